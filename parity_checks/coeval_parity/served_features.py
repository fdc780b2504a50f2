"""What was served of a service as a table: a column for each feature, read out of the serving log's JSON.

It knows Arrow and where the table of what was served is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from coeval.arrow import arrow_type
from coeval.errors import UsageError
from coeval.service import Services
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import Field
from coeval.spec.types import INT64, STRING, Physical
from coeval_parity.served import forget, ingest_served, physical, served_path
from coeval_pipelines.offline.arrow_files import Files, delta_files
from coeval_pipelines.offline.columns import logical_array
from coeval_pipelines.offline.tables import latest_version

SERVED = "served:"
"""What the name of such a table begins with; the service follows."""
AT = "at"
UNREADABLE = "__unreadable"
"""A computed column: which keys and features of a row are not of their declared types; null where all are."""
RAW = (AT, "entities", "features")
"""The columns of the table of what was served that are read."""
_NOT_LOGGED = ("personal", "sensitive")


@dataclass(frozen=True, slots=True)
class ServedColumns:
    """The columns of what was served of a service: `at` (microseconds UTC), entity keys, features that are logged."""

    service: str
    keys: Mapping[str, Field]
    features: Mapping[str, Field]

    @property
    def fields(self) -> dict[str, Field]:
        """Every column as a field."""
        return {AT: Field(AT, INT64), **self.keys, **self.features, UNREADABLE: Field(UNREADABLE, STRING)}

    def of(self, raw: pa.Table | pa.RecordBatch, wanted: Collection[str]) -> pa.Table:
        """Some columns of rows as they were logged; a value that is not of its type is null.

        Rows from before the service had all its present features are left out.
        """
        documents = zip(*(raw.column(name).to_pylist() for name in RAW), strict=True)
        rows = [(at, json.loads(entities), json.loads(features)) for at, entities, features in documents]
        rows = [row for row in rows if self.features.keys() <= row[2].keys()]
        wrong: list[list[str]] = [[] for _ in rows]
        found = {AT: pa.array([at for at, _, _ in rows], pa.int64())}
        for place, fields in ((1, self.keys), (2, self.features)):
            for name, declared in fields.items():
                if name in wanted or UNREADABLE in wanted:
                    values = [_read(declared, name, row[place], said) for row, said in zip(rows, wrong, strict=True)]
                    found[name] = logical_array(declared.type, values)
        found[UNREADABLE] = pa.array([" ".join(said) or None for said in wrong], pa.string())
        return pa.table({name: found[name] for name in wanted})


def _read(declared: Field, name: str, values: Mapping[str, Any], wrong: list[str]) -> Physical:
    try:
        return physical(declared, values.get(name))
    except (ValueError, TypeError):
        wrong.append(name)
        return None


def served_columns(manifest: Manifest, service: str) -> ServedColumns:
    """The columns of a service, by the manifest that is applied now.

    Raises:
        UnknownFeatureError: there is no such service.
    """
    plan = Services(manifest).plan(service)
    logged = {name: item for name, item in plan.fields.items() if item.pii not in _NOT_LOGGED}
    return ServedColumns(service, plan.keys, logged)


@dataclass(frozen=True, slots=True)
class ServedFiles(Files):
    """What was served of a service, read as if it were a table of features."""

    columns: ServedColumns = field(kw_only=True)

    @property
    def types(self) -> dict[str, pa.DataType]:
        """The columns and their types."""
        return {name: arrow_type(item.type) for name, item in self.columns.fields.items()}

    def read(self, columns: list[str], where: ds.Expression | None = None) -> pa.Table:
        """Some columns of the rows that a condition on `at` holds for."""
        mine = ds.field("service") == self.columns.service
        raw = self.data.to_table(columns=list(RAW), filter=mine if where is None else mine & where)
        return self.columns.of(raw, columns)


def served_files(settings: Settings, manifest: Manifest, service: str) -> ServedFiles:
    """What is in the table of what was served, of one service.

    Raises:
        UnknownFeatureError: there is no such service.
        UsageError: nothing was taken from the serving log yet.
    """
    columns, path = served_columns(manifest, service), served_path(settings, manifest.tenant)
    if latest_version(path) is None:
        raise UsageError(
            "Nothing that was served is in a table yet.",
            "Log a share of it (COEVAL_SERVER__SERVING_LOG=0.01), and leave out --no-ingest.",
        )
    files = delta_files(path)
    return ServedFiles(files.data, files.instants, files.recorded, columns=columns)


def bring_up_to_date(
    settings: Settings, manifest: Manifest, names: Iterable[str], say: Callable[[str], None], *, ingest: bool
) -> None:
    """Where a table of what was served is among these, take in what is new; in any case forget who was erased.

    Raises:
        BrokerError: the broker does not answer, or nothing was ever logged.
    """
    if not any(name.startswith(SERVED) for name in names):
        return
    if not ingest:
        forget(settings, manifest)
        return
    report = ingest_served(settings, manifest)
    say(f"{report.rows:,} responses taken from the serving log, {report.unreadable:,} unreadable")


def expander(columns: ServedColumns) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for `mapInArrow`: rows as they were logged (RAW) to every column. It runs inside Spark's workers."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield from columns.of(batch, columns.fields).to_batches()

    return run
