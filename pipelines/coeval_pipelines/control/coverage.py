"""When the store was seen to cover what of a source. Rows of the control plane."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from coeval.spec.time import DAY, HOUR
from coeval_pipelines.control import schema
from coeval_pipelines.control.plane import ControlPlane


@dataclass(frozen=True, slots=True)
class Coverage:
    """At an instant (microseconds UTC) the store was seen to cover these offsets of a source's topic.

    `topic` is the changelog through which it does. Offsets are the next to read, by partition of the source.
    """

    topic: str
    offsets: Mapping[int, int]
    at: int


class CoverageBook:
    """What was seen, by changelog; of what is older than a day, only the first of each hour stays."""

    def __init__(self, control: ControlPlane) -> None:
        self._engine = control.engine

    def record(self, coverage: Coverage) -> None:
        """Keep what was seen."""
        table = schema.COVERAGE
        mine = table.c.topic == coverage.topic
        of_hours = sa.select(sa.func.min(table.c.id)).where(mine).group_by(table.c.at // HOUR)
        row = {"topic": coverage.topic, "offsets": json.dumps(coverage.offsets), "at": coverage.at}
        with self._engine.begin() as connection:
            connection.execute(sa.insert(table).values(row))
            gone = (mine, table.c.at < coverage.at - DAY, table.c.id.not_in(of_hours))
            connection.execute(sa.delete(table).where(*gone))

    def of(self, topic: str) -> tuple[Coverage, ...]:
        """What the store was seen to cover through a changelog, oldest first."""
        table = schema.COVERAGE
        query = sa.select(table).where(table.c.topic == topic).order_by(table.c.at, table.c.id)
        with self._engine.connect() as connection:
            return tuple(_coverage(row) for row in connection.execute(query))


def _coverage(row: sa.Row[tuple[object, ...]]) -> Coverage:
    offsets = {int(partition): offset for partition, offset in json.loads(row.offsets).items()}
    return Coverage(row.topic, offsets, row.at)
