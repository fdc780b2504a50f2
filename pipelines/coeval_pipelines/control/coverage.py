"""When the store was seen to cover what of a source. Rows of the control plane."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from coeval.spec.time import DAY, HOUR, MINUTE
from coeval_pipelines.control import schema
from coeval_pipelines.control.plane import ControlPlane

_WEEK = 8 * DAY
"""For so long, and a day to spare, the topic of the serving log keeps responses that may still be replayed."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """At an instant (microseconds UTC) the store was seen to cover these offsets of a source's topic.

    `topic` is the changelog through which it does. Offsets are the next to read, by partition of the source. `back`
    says that it was seen to cover more before: it came back without its last writes.
    """

    topic: str
    offsets: Mapping[int, int]
    at: int
    back: bool = False

    def goes_back(self, before: Coverage) -> bool:
        """Whether it covers less than before, of some partition."""
        return any(self.offsets.get(partition, 0) < offset for partition, offset in before.offsets.items())


class CoverageBook:
    """What was seen, by changelog; also of changelogs that are gone, through which something was served."""

    def __init__(self, control: ControlPlane) -> None:
        self._engine = control.engine

    def record(self, coverage: Coverage) -> None:
        """Keep what was seen, and whether that is less than what was seen last."""
        table = schema.COVERAGE
        newest = sa.select(table).where(table.c.topic == coverage.topic).order_by(table.c.id.desc()).limit(1)
        with self._engine.begin() as connection:
            before = connection.execute(newest).first()
            back = before is not None and coverage.goes_back(_coverage(before))
            row = {"topic": coverage.topic, "offsets": json.dumps(coverage.offsets), "at": coverage.at, "back": back}
            connection.execute(sa.insert(table).values(row))

    def thin(self, now: int) -> None:
        """Let go, of every changelog, of what is older than a day but not the last of its minute.

        After a week it has to be the last of its hour. What goes back stays: it proves that a store was killed.
        """
        table = schema.COVERAGE
        for before, unit in ((now - DAY, MINUTE), (now - _WEEK, HOUR)):
            old = table.c.at < before
            last = sa.select(sa.func.max(table.c.id)).where(old).group_by(table.c.topic, table.c.at // unit)
            with self._engine.begin() as connection:
                connection.execute(sa.delete(table).where(old, sa.not_(table.c.back), table.c.id.not_in(last)))

    def of(self, topic: str) -> tuple[Coverage, ...]:
        """What the store was seen to cover through a changelog, oldest first."""
        table = schema.COVERAGE
        query = sa.select(table).where(table.c.topic == topic).order_by(table.c.at, table.c.id)
        with self._engine.connect() as connection:
            return tuple(_coverage(row) for row in connection.execute(query))


def _coverage(row: sa.Row[tuple[object, ...]]) -> Coverage:
    offsets = {int(partition): offset for partition, offset in json.loads(row.offsets).items()}
    return Coverage(row.topic, offsets, row.at, row.back)
