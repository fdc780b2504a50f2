"""The engine that is Spark. It knows Spark and Delta."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from coeval.files import remove_tree
from coeval.settings import Settings
from coeval.spec.model import BatchSource, EventSource
from coeval.training import Labels
from coeval_pipelines.offline.asked import Asked, Inputs
from coeval_pipelines.offline.columns import quoted
from coeval_pipelines.offline.point_in_time import source_events, view_features
from coeval_pipelines.offline.service_features import service_features
from coeval_pipelines.offline.session import scratch
from coeval_pipelines.offline.sorting import late_conditions
from coeval_pipelines.offline.spine import ROW, Q, StagedSpine, read_spine, staged
from coeval_pipelines.offline.spine_rules import TIMESTAMP_COLUMN, check_names
from coeval_pipelines.offline.tables import latest_version, read_files, read_log
from coeval_pipelines.offline.training.apart import AGAIN, SHOWN, features_apart, rows_apart
from coeval_pipelines.offline.training.digest import row_digests
from coeval_pipelines.offline.training.engines import COMMIT, TABLE, types_of
from coeval_pipelines.offline.training.labels import delay_of, label_rule
from coeval_pipelines.offline.training.local import instants_given
from coeval_pipelines.offline.training.summary import Summary

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Batches = Iterable[pa.RecordBatch]
_PLACE = "__place"


class SparkEngine(ExitStack):
    """See `engines.Engine`. What it keeps on disk and in memory goes when it is closed."""

    def __init__(self, spark: SparkSession, settings: Settings) -> None:
        super().__init__()
        self._spark = spark
        self._settings = settings

    def read(self, spine: object, asked: Asked, at: int | None = None) -> DataFrame:
        """A spine in any form."""
        from pyspark.sql import functions as F

        frame = read_spine(self._spark, spine, asked)
        if at is not None:
            if TIMESTAMP_COLUMN in frame.columns:
                raise instants_given()
            frame = frame.withColumn(TIMESTAMP_COLUMN, F.expr(f"TIMESTAMP_MICROS({at}L)"))
        check_names(frame.columns, asked)
        return self._kept(frame)  # a frame may have other rows the next time

    def labelled(self, spine: DataFrame, asked: Asked, labels: Labels, now: int, inputs: Inputs) -> DataFrame:
        """The rows whose labels can be known by now, with their labels."""
        path = scratch(self._settings)
        self.callback(remove_tree, path)
        table = _finite(read_spine(self._spark, labels.table, asked))
        table.write.parquet(str(path))
        rule = label_rule(asked, labels, path, types_of(table.limit(0).toArrow().schema), spine.columns)
        rows = _later(
            self.enter_context(staged(self._spark, self._settings, spine, asked.views)), delay_of(labels), now
        )
        events = source_events(self._spark, self._settings, rule.manifest, rule.view, inputs.logs, inputs.erasures)
        (found,) = view_features(rule.manifest, [rule.view], {rule.source.name: events}, rows, "available")
        named = found.selectExpr(ROW, *(f"{quoted(rule.column(name))} AS {quoted(name)}" for name in rule.columns))
        return self._kept(rows.frame.join(named, ROW).select(*map(quoted, (*rows.columns, *rule.columns))))

    def features(self, asked: Asked, spine: DataFrame, inputs: Inputs, knowledge: str) -> DataFrame:
        """The spine with the service's features."""
        rows = self.enter_context(staged(self._spark, self._settings, spine, asked.views, asked.request))
        return self._kept(service_features(self._spark, self._settings, asked, rows, inputs, knowledge))

    def in_order(self, asked: Asked, spine: DataFrame, inputs: Inputs, knowledge: str) -> pa.Table:
        """The same, with the rows in the order of the spine."""
        from pyspark.sql import functions as F

        numbered = spine.withColumn(_PLACE, F.monotonically_increasing_id())
        found = self.features(asked, numbered, inputs, knowledge).toArrow()
        return found.sort_by(_PLACE).drop_columns([_PLACE])

    def summary(self, table: DataFrame, given: Sequence[str] = (), *, profiled: bool = True) -> Summary:
        """The summary of a table, of whose columns some were given."""
        schema = table.limit(0).toArrow().schema
        found = Summary.of(schema, [], given, profiled)
        for row in table.mapInArrow(_summed(schema, given, profiled), "summary BINARY").collect():
            found.merge(pickle.loads(row["summary"]))  # noqa: S301 - of our own workers
        return found

    def count(self, table: DataFrame) -> int:
        """The number of rows."""
        return int(table.count())

    def sample(self, table: DataFrame, columns: Sequence[str], below: int | None) -> pa.Table:
        """The rows whose digest of these columns begins below a number (None: every row)."""
        return (table if below is None else table.mapInArrow(_below(columns, below), table.schema)).toArrow()

    def table(self, rows: pa.Table) -> DataFrame:
        """The rows as a frame."""
        return self._spark.createDataFrame(rows)

    def late(self, asked: Asked, source: EventSource, inputs: Inputs, until: int) -> tuple[int, dict[str, int]]:
        """The events of a source before an instant, and by granularity those that came after their tile was final."""
        conditions = late_conditions(asked.manifest, source)
        version, erasures = inputs.logs[source.name], inputs.erasures
        log = read_log(self._spark, self._settings, asked.manifest, source, None, version, erasures)
        counts = (f"COUNT_IF({condition})" for condition in conditions.values())
        found = log.where(f"event_ts < {until}").selectExpr("COUNT(*)", *counts).first()
        assert found is not None
        return found[0], dict(zip(conditions, found[1:], strict=True))

    def file_rows(self, source: BatchSource) -> DataFrame:
        """What the files of a batch source hold."""
        kind = source.format or "parquet"
        return read_files(self._spark, self._settings, source.name, source.path, source.fields, kind)

    def stored(self, path: Path, version: int, files: Sequence[str] | None = None) -> DataFrame:
        """A version of a training set, or only some of its files."""
        if files:
            return self._spark.read.parquet(*(str(path / name) for name in files))
        whole = self._spark.read.format("delta").option("versionAsOf", version).load(str(path))
        return whole if files is None else whole.limit(0)

    def commit(self, table: DataFrame, path: Path, document: str, *, append: bool = False) -> None:
        """Put rows in the place of what the table holds, or beside it, together with a document: one commit."""
        writer = table.write.format("delta").mode("append" if append else "overwrite").option(COMMIT, document)
        if not append:
            writer = writer.option("overwriteSchema", "true")
        if latest_version(path) is None:
            writer = writer.options(**TABLE)
        writer.save(str(path))

    def differing(
        self, asked: Asked, stored: DataFrame, given: Sequence[str], inputs: Inputs, knowledge: str
    ) -> tuple[int, Mapping[str, int], pa.Table]:
        """How many rows have other features when they are computed again, how many by feature, and the first rows."""
        from pyspark.sql import functions as F

        numbered = self._kept(stored.withColumn(_PLACE, F.monotonically_increasing_id()))
        again = self.features(asked, self.only(numbered, [*given, _PLACE]), inputs, knowledge)
        renamed = (f"{quoted(name)} AS {quoted(AGAIN + name)}" for name in asked.outputs)
        both = numbered.join(again.selectExpr(_PLACE, *renamed), _PLACE)
        found = self._kept(both.mapInArrow(_apart(asked.outputs), both.schema))
        counts = Counter[str]()
        for row in found.mapInArrow(_counted(asked.outputs), "feature STRING, count BIGINT").collect():
            counts[row["feature"]] += row["count"]
        features = {name: counts[name] for name in asked.outputs if name in counts}
        return found.count(), features, found.orderBy(_PLACE).limit(SHOWN).toArrow()

    def only(self, table: DataFrame, columns: Sequence[str]) -> DataFrame:
        """Some columns of a table."""
        return table.select(*map(quoted, columns))

    def rows(self, table: DataFrame) -> pa.Table:
        """The rows of a table, as they come."""
        return table.toArrow()

    def _kept(self, frame: DataFrame) -> DataFrame:
        """Computed once, though it is asked for several times."""
        kept = frame.persist()
        self.callback(kept.unpersist)
        return kept


def _finite(labels: DataFrame) -> DataFrame:
    """Labels with null for what is no number: as in a file of events, it would take its whole row along."""
    finite = {
        name: f"IF(ABS({quoted(name)}) < DOUBLE('Infinity'), {quoted(name)}, NULL)"
        for name, kind in labels.dtypes
        if kind in ("float", "double")
    }
    return labels.selectExpr(*(f"{finite.get(n, quoted(n))} AS {quoted(n)}" for n in labels.columns))


def _later(rows: StagedSpine, delay: int, now: int) -> StagedSpine:
    """The rows whose labels can be known by now, at the instants at which they are."""
    from pyspark.sql import functions as F

    frame = rows.frame.where(f"{Q} + {delay}L <= {now}L").withColumn(Q, F.expr(f"{Q} + {delay}L"))
    return replace(rows, frame=frame, earliest=rows.earliest + delay, latest=rows.latest + delay)


def _summed(schema: pa.Schema, given: Sequence[str], profiled: bool) -> Callable[[Batches], Iterator[pa.RecordBatch]]:
    def run(batches: Batches) -> Iterator[pa.RecordBatch]:
        summary = pickle.dumps(Summary.of(schema, batches, given, profiled))
        yield pa.RecordBatch.from_arrays([pa.array([summary], pa.binary())], ["summary"])

    return run


def _below(columns: Sequence[str], below: int) -> Callable[[Batches], Iterator[pa.RecordBatch]]:
    def run(batches: Batches) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield batch.filter(pa.array(row_digests(batch, columns)[:, 0] < np.uint64(below)))

    return run


def _apart(features: Sequence[str]) -> Callable[[Batches], Iterator[pa.RecordBatch]]:
    def run(batches: Batches) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield rows_apart(batch, features)

    return run


def _counted(features: Sequence[str]) -> Callable[[Batches], Iterator[pa.RecordBatch]]:
    def run(batches: Batches) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            counts = features_apart(batch, features)
            columns = [pa.array(list(counts), pa.string()), pa.array(list(counts.values()), pa.int64())]
            yield pa.RecordBatch.from_arrays(columns, ["feature", "count"])

    return run
