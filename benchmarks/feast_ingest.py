"""Feast's stream ingest: Spark reads the topic, each micro-batch's newest row per card goes to write_to_online_store.

This is what `feast.infra.contrib.spark_kafka_processor` does, with its checkpoint in a directory of its own, reading
what is there and then ending. Feast aggregates nothing here: a row view stands for all of ours, which flatters it. A
child process: its argument is JSON (bootstrap, topic, events, redis, directory); it prints figures as JSON.
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
_FEATURES = {"merchant_id": "String", "country": "String", "amount": "Float64", "is_online": "Bool", "note": "String"}


def make_store(directory: Path, redis: str) -> Any:
    """A store with one row view by card, in Redis."""
    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, ValueType, types

    (directory / "feature_store.yaml").write_text(_CONFIG.format(directory=directory, redis=redis))
    empty = directory / "empty.parquet"
    pd.DataFrame({"card_id": [0], "occurred_at": [pd.Timestamp(0, tz="UTC")]}).to_parquet(empty)
    card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.INT64)
    source = PushSource(
        name="payments", batch_source=FileSource(name="past", path=str(empty), timestamp_field="occurred_at")
    )
    schema = [Field(name=name, dtype=getattr(types, kind)) for name, kind in _FEATURES.items()]
    store = FeatureStore(repo_path=str(directory))
    store.apply([card, FeatureView(name="latest_payment", entities=[card], schema=schema, source=source)])
    return store


def main() -> int:
    """Ingest the first `events` records, in micro-batches."""
    from coeval.settings import load_settings
    from coeval_pipelines.offline.session import spark_session

    chosen = json.loads(sys.argv[1])
    directory = Path(chosen["directory"])
    store = make_store(directory, chosen["redis"])
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
        rows = records.load().select(F.from_json(F.col("value").cast("string"), _SCHEMA).alias("table"))

        def write(batch: Any, number: int) -> None:
            del number
            if len(spans) * PER_BATCH < chosen["events"]:
                _write(store, batch.select("table.*").toPandas())
                spans.append((PER_BATCH, time.perf_counter()))

        query = rows.writeStream.option("checkpointLocation", str(directory / "checkpoint")).foreachBatch(write).start()
        while len(spans) * PER_BATCH < chosen["events"] and query.isActive:
            query.awaitTermination(0.2)
        query.stop()
    # From the end of the first micro-batch to the end of the last.
    seconds = spans[-1][1] - spans[0][1]
    print(json.dumps({"events": PER_BATCH * (len(spans) - 1), "seconds": seconds, "batches": len(spans)}))
    return 0


def _write(store: Any, rows: Any) -> None:
    import pandas as pd

    rows = rows.dropna(subset=["card_id", "occurred_at"])
    rows["card_id"] = rows["card_id"].astype("int64")
    rows["occurred_at"] = pd.to_datetime(rows["occurred_at"], utc=True)
    newest = rows.sort_values(["card_id", "occurred_at"], ascending=False).groupby("card_id").nth(0)
    newest = newest.assign(created=pd.Timestamp.now("UTC"))
    store.write_to_online_store("latest_payment", newest.reset_index(drop=True))


if __name__ == "__main__":
    sys.exit(main())
