"""A table's rows in brief: how many, their content hash, a sketch of every column. Pure; it knows Arrow.

Parts of a table are summed up wherever they are and merged: the sum is the same however the table is cut.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from coeval_pipelines.offline.training.digest import Words, columns_of, content_hash, nothing, row_digests, sums
from coeval_pipelines.offline.training.sketch import MOST_ROWS, Sketch


@dataclass(slots=True)
class Summary:
    """Rows of a schema. Some of the columns are what was `given`; sketches may be left out."""

    schema: pa.Schema
    given: tuple[str, ...]
    rows: int
    total: Words
    given_total: Words
    sketches: dict[str, Sketch]

    @staticmethod
    def of(
        schema: pa.Schema, batches: Iterable[pa.RecordBatch], given: Sequence[str] = (), profiled: bool = True
    ) -> Summary:
        """The summary of batches of any size that have this schema; `profiled`: with sketches."""
        found = Summary(schema, tuple(given), 0, nothing(), nothing(), {})
        for batch in batches:
            for start in range(0, batch.num_rows, MOST_ROWS):
                found._add(batch.slice(start, MOST_ROWS), profiled)
        return found

    def _add(self, batch: pa.RecordBatch, profiled: bool) -> None:
        names = self.schema.names
        sketches = {name: Sketch.of(batch.column(name)) for name in names} if profiled else {}
        total, given = (sums(row_digests(batch, columns)) for columns in (names, self.given))
        self.merge(Summary(self.schema, self.given, batch.num_rows, total, given, sketches))

    def merge(self, other: Summary) -> None:
        """Add other rows."""
        self.rows += other.rows
        self.total = self.total + other.total
        self.given_total = self.given_total + other.given_total
        for name, sketch in other.sketches.items():
            if name in self.sketches:
                self.sketches[name].merge(sketch)
            else:
                self.sketches[name] = sketch

    @property
    def hash(self) -> str:
        """The content hash of the rows."""
        return content_hash(self.schema, self.rows, self.total)

    @property
    def fingerprint(self) -> str:
        """The content hash of what was given."""
        return content_hash(pa.schema([self.schema.field(name) for name in self.given]), self.rows, self.given_total)

    def profile(self, private: Collection[str] = ()) -> dict[str, Any]:
        """The profile: by column its type and what its values are like; of `private` ones no value is told."""
        types = dict(columns_of(self.schema))
        empty = {field.name: Sketch.of(pa.array([], field.type)) for field in self.schema}
        sketches = {name: self.sketches.get(name, empty[name]) for name in types}
        columns = {name: {"type": types[name], **sketch.document(name in private)} for name, sketch in sketches.items()}
        return {"rows": self.rows, "columns": columns}
