"""The engine that is this process. It knows Arrow and deltalake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coeval.errors import EngineError, UsageError
from coeval.settings import Settings
from coeval.spec.model import BatchSource, EventSource
from coeval.spec.time import duration
from coeval.training import Labels
from coeval_pipelines.offline.arrow_events import BEGINNING, Span, batch_rows, source_facts
from coeval_pipelines.offline.arrow_files import INSTANT, delta_files, parquet_files
from coeval_pipelines.offline.arrow_spine import CheckedSpine, checked, normalised, read_table
from coeval_pipelines.offline.asked import Asked, Inputs
from coeval_pipelines.offline.scratch import scratch_name, sweep
from coeval_pipelines.offline.small import reader_of, small_features, source_features
from coeval_pipelines.offline.spine_rules import TIMESTAMP_COLUMN, check_names
from coeval_pipelines.offline.tables import latest_version
from coeval_pipelines.offline.training.apart import SHOWN, features_apart, rows_apart, side_by_side
from coeval_pipelines.offline.training.digest import row_digests
from coeval_pipelines.offline.training.engines import COMMIT, TABLE, types_of
from coeval_pipelines.offline.training.labels import delay_of, label_rule
from coeval_pipelines.offline.training.summary import Summary


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """See `engines.Engine`."""

    settings: Settings

    def read(self, spine: object, asked: Asked, at: int | None = None) -> pa.Table:
        """A spine in any form that needs no Spark."""
        table = normalised(read_table(spine, asked))
        if at is not None:
            if TIMESTAMP_COLUMN in table.column_names:
                raise instants_given()
            table = table.append_column(TIMESTAMP_COLUMN, pa.repeat(pa.scalar(at, INSTANT), table.num_rows))
        check_names(table.column_names, asked)
        return table

    def labelled(self, spine: pa.Table, asked: Asked, labels: Labels, now: int, inputs: Inputs) -> pa.Table:
        """The rows whose labels can be known by now, with their labels."""
        table = normalised(read_table(labels.table, asked))
        rows = checked(spine, asked)
        delay = delay_of(labels)
        rows = CheckedSpine(rows.table.filter(pa.array(rows.q + delay <= now)), rows.q[rows.q + delay <= now] + delay)
        with _parquet(self.settings, _finite(table)) as path:
            rule = label_rule(asked, labels, path, types_of(table.schema), spine.column_names)
            read = reader_of(self.settings, rule.manifest, inputs)
            found = source_features(rule.manifest, [rule.view], rows, read, "available")
        labelled = rows.table
        for name in rule.columns:
            labelled = labelled.append_column(name, found[rule.column(name)])
        return labelled

    def features(self, asked: Asked, spine: pa.Table, inputs: Inputs, knowledge: str) -> pa.Table:
        """The spine with the service's features."""
        return small_features(self.settings, asked, spine, inputs, knowledge)

    in_order = features

    def summary(self, table: pa.Table, given: Sequence[str] = (), *, profiled: bool = True) -> Summary:
        """The summary of a table, of whose columns some were given."""
        return Summary.of(table.schema, table.to_batches(), given, profiled)

    def count(self, table: pa.Table) -> int:
        """The number of rows."""
        return int(table.num_rows)

    def sample(self, table: pa.Table, columns: Sequence[str], below: int | None) -> pa.Table:
        """The rows whose digest of these columns begins below a number (None: every row)."""
        if below is None or not table.num_rows:
            return table
        masks = [row_digests(batch, columns)[:, 0] < np.uint64(below) for batch in table.to_batches(50_000)]
        return table.filter(pa.array(np.concatenate(masks)))

    def table(self, rows: pa.Table) -> pa.Table:
        """The rows themselves."""
        return rows

    def late(self, asked: Asked, source: EventSource, inputs: Inputs, until: int) -> tuple[int, dict[str, int]]:
        """The events of a source before an instant, and by granularity those that came after their tile was final."""
        span = Span(BEGINNING, until - 1, "final")
        facts = source_facts(self.settings, asked.manifest, source, (), inputs, span)
        views = [view for view in asked.manifest.windowed_views if view.source == source.name]
        late = {}
        for hop in sorted({aggregate.hop for view in views for aggregate in view.aggregates}):
            final = facts.event_ts - facts.event_ts % hop + hop + source.allowed_lateness
            late[duration(hop)] = int((facts.available_at >= final).sum())
        return len(facts.event_ts), late

    def file_rows(self, source: BatchSource) -> pa.Table:
        """What the files of a batch source hold."""
        return batch_rows(self.settings, source)

    def stored(self, path: Path, version: int, files: Sequence[str] | None = None) -> pa.Table:
        """A version of a training set, or only some of its files."""
        if files:
            found = parquet_files([str(path / name) for name in files])
        else:
            found = delta_files(path, version)
            if files is not None:
                return normalised(found.data.schema.empty_table())
        return normalised(found.read(list(found.types)))

    def commit(self, table: pa.Table, path: Path, document: str, *, append: bool = False) -> None:
        """Put rows in the place of what the table holds, or beside it, together with a document: one commit."""
        from deltalake import CommitProperties, write_deltalake
        from deltalake.exceptions import DeltaError

        path.parent.mkdir(parents=True, exist_ok=True)
        options: dict[str, Any] = {"mode": "append"} if append else {"mode": "overwrite", "schema_mode": "overwrite"}
        if latest_version(path) is None:
            options["configuration"] = TABLE
        try:
            said = CommitProperties(custom_metadata={COMMIT: document})
            write_deltalake(str(path), table, commit_properties=said, **options)
        except DeltaError as error:
            raise EngineError(f"{path} cannot be written: {error}.", "Ask for Spark: --engine spark.") from error

    def differing(
        self, asked: Asked, stored: pa.Table, given: Sequence[str], inputs: Inputs, knowledge: str
    ) -> tuple[int, Mapping[str, int], pa.Table]:
        """How many rows have other features when they are computed again, how many by feature, and the first rows."""
        again = self.features(asked, stored.select(list(given)), inputs, knowledge)
        both = side_by_side(stored, again, asked.outputs)
        found = [rows_apart(batch, asked.outputs) for batch in both.to_batches(50_000)]
        rows = pa.Table.from_batches(found, both.schema)
        return rows.num_rows, features_apart(rows, asked.outputs), rows.slice(0, SHOWN)

    def only(self, table: pa.Table, columns: Sequence[str]) -> pa.Table:
        """Some columns of a table."""
        return table.select(list(columns))

    def rows(self, table: pa.Table) -> pa.Table:
        """The rows themselves."""
        return table


def _finite(labels: pa.Table) -> pa.Table:
    """Labels with null for what is no number: as in a file of events, it would take its whole row along."""
    for place, field in enumerate(labels.schema):
        if pa.types.is_floating(field.type):
            column = labels.column(place)
            finite = pc.if_else(pc.is_finite(column), column, pa.scalar(None, field.type))
            labels = labels.set_column(place, field.name, finite)
    return labels


def instants_given() -> UsageError:
    """The error of entities that bring instants of their own."""
    return UsageError(f"The entities have a column {TIMESTAMP_COLUMN}.", "Leave it out, or ask for a training set.")


@contextmanager
def _parquet(settings: Settings, table: pa.Table) -> Iterator[Path]:
    # On this machine, wherever the tables are.
    path = settings.delta / "_scratch" / f"{scratch_name()}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    try:
        pq.write_table(table, path)
        yield path
    finally:
        path.unlink(missing_ok=True)
