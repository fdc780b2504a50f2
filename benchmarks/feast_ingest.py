"""Feast's stream ingest: Spark reads the topic, and each micro-batch's rows go to `write_to_online_store`.

This is what `feast.infra.contrib.spark_kafka_processor` does, with its checkpoint in a directory of its own, reading
what is there and then ending. Of `latest_payment` it writes a micro-batch's newest row per card. Of `card_spend` it
aggregates the tiles that we store too, and writes those which changed; duplicates and late events count there. A child
process: its argument is JSON (view, bootstrap, topic, events, redis, directory); it prints figures as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

PER_BATCH = 20_000
"""maxOffsetsPerTrigger: the records of a micro-batch."""
_CONFIG = """project: bench
provider: local
registry: {directory}/registry.db
online_store: {{type: redis, connection_string: "{redis}"}}
offline_store: {{type: file}}
entity_key_serialization_version: 3
"""
_SCHEMA = "event_id string, occurred_at timestamp, card_id bigint, merchant_id string, country string, \
amount double, is_online boolean, note string"
_FEATURES = {
    "latest_payment": {
        "merchant_id": "String", "country": "String", "amount": "Float64", "is_online": "Bool", "note": "String",
    },
    "card_spend": {
        "count": "Int64", "sum": "Float64", "mean": "Float64", "min": "Float64", "max": "Float64", "stddev": "Float64",
    },
}  # fmt: skip
_KEYS = {"latest_payment": ("card_id",), "card_spend": ("card_id", "tile")}
_HOPS = (300, 3_600, 86_400)
"""Seconds: the granularities of our tiles of card_spend."""


def make_store(directory: Path, redis: str, view: str) -> Any:
    """A store with one view, in Redis."""
    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, ValueType, types

    (directory / "feature_store.yaml").write_text(_CONFIG.format(directory=directory, redis=redis))
    empty = directory / "empty.parquet"
    pd.DataFrame({"card_id": [0], "tile": [""], "occurred_at": [pd.Timestamp(0, tz="UTC")]}).to_parquet(empty)
    kinds = {"card_id": ValueType.INT64, "tile": ValueType.STRING}
    keys = [Entity(name=name, join_keys=[name], value_type=kinds[name]) for name in _KEYS[view]]
    source = PushSource(
        name="payments", batch_source=FileSource(name="past", path=str(empty), timestamp_field="occurred_at")
    )
    schema = [Field(name=name, dtype=getattr(types, kind)) for name, kind in _FEATURES[view].items()]
    store = FeatureStore(repo_path=str(directory))
    store.apply([*keys, FeatureView(name=view, entities=keys, schema=schema, source=source)])
    return store


def tiles(rows: Any) -> Any:
    """The tiles of all granularities by one streaming aggregation: a key is a card and the text of hop and tile."""
    from pyspark.sql import functions as F

    hop = F.explode(F.array(*(F.lit(item) for item in _HOPS))).alias("hop")
    start = F.floor(F.unix_timestamp("occurred_at") / F.col("hop"))
    amount = F.col("amount")
    return (
        rows.where("card_id IS NOT NULL AND occurred_at IS NOT NULL")
        .select("card_id", "occurred_at", "amount", hop)
        .groupBy("card_id", F.concat_ws("/", "hop", start).alias("tile"))
        .agg(
            F.count("*").alias("count"), F.sum(amount).alias("sum"), F.avg(amount).alias("mean"),
            F.min(amount).alias("min"), F.max(amount).alias("max"), F.stddev_pop(amount).alias("stddev"),
            F.max("occurred_at").alias("occurred_at"),
        )
    )  # fmt: skip


def main() -> int:
    """Ingest the first `events` records, in micro-batches."""
    from coeval.settings import load_settings
    from coeval_pipelines.offline.session import spark_session

    chosen = json.loads(sys.argv[1])
    directory = Path(chosen["directory"])
    view = chosen["view"]
    store = make_store(directory, chosen["redis"], view)
    spans: list[tuple[int, float]] = []
    with spark_session(load_settings()) as spark:
        from pyspark.sql import functions as F

        records = spark.readStream.format("kafka").options(
            **{
                "kafka.bootstrap.servers": chosen["bootstrap"],
                "subscribe": chosen["topic"],
                "startingOffsets": "earliest",
                "maxOffsetsPerTrigger": str(PER_BATCH),
            }
        )
        rows = (
            records.load().select(F.from_json(F.col("value").cast("string"), _SCHEMA).alias("table")).select("table.*")
        )
        chosen_rows = tiles(rows) if view == "card_spend" else rows

        def write(batch: Any, number: int) -> None:
            del number
            if len(spans) * PER_BATCH < chosen["events"]:
                _write(store, view, batch.toPandas())
                spans.append((PER_BATCH, time.perf_counter()))

        stream = chosen_rows.writeStream.outputMode("update").option(
            "checkpointLocation", str(directory / "checkpoint")
        )
        query = stream.foreachBatch(write).start()
        while len(spans) * PER_BATCH < chosen["events"] and query.isActive:
            query.awaitTermination(0.2)
        query.stop()
    # From the end of the first micro-batch to the end of the last.
    seconds = spans[-1][1] - spans[0][1]
    print(json.dumps({"events": PER_BATCH * (len(spans) - 1), "seconds": seconds, "batches": len(spans)}))
    return 0


def _write(store: Any, view: str, rows: Any) -> None:
    import pandas as pd

    keys = list(_KEYS[view])
    rows = rows.dropna(subset=[*keys, "occurred_at"])
    rows["card_id"] = rows["card_id"].astype("int64")
    rows["occurred_at"] = pd.to_datetime(rows["occurred_at"], utc=True)
    newest = rows.sort_values([*keys, "occurred_at"], ascending=False).groupby(keys).nth(0)
    newest = newest.assign(created=pd.Timestamp.now("UTC"))
    store.write_to_online_store(view, newest.reset_index(drop=True))


if __name__ == "__main__":
    sys.exit(main())
