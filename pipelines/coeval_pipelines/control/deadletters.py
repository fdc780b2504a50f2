"""Which dead letters were replayed: a row each, planned before anything is sent, marked once it is. It knows SQL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from coeval_pipelines.control import schema
from coeval_pipelines.control.plane import ControlPlane

REPLAYS = sa.Table(
    "deadletter_replays",
    schema.METADATA,
    sa.Column("source", sa.String, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("offset", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("ends", sa.Text, nullable=False),
    sa.Column("planned_at", sa.BigInteger, nullable=False),
    sa.Column("sent_at", sa.BigInteger),
)


@dataclass(frozen=True, slots=True)
class Replay:
    """A reject by its position, and the ends of its topic, by partition, before it was sent for the first time."""

    source: str
    partition: int
    offset: int
    ends: Mapping[int, int]
    sent_at: int | None = None

    @property
    def position(self) -> tuple[int, int]:
        """Where the reject stands."""
        return self.partition, self.offset


class ReplayBook:
    """The replays of a control plane."""

    def __init__(self, control: ControlPlane) -> None:
        self._engine = control.engine
        REPLAYS.create(self._engine, checkfirst=True)

    def of(self, source: str) -> dict[tuple[int, int], Replay]:
        """Every replay of a source, by the position of the reject."""
        query = sa.select(REPLAYS).where(REPLAYS.c.source == source)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        ends = [{int(part): end for part, end in json.loads(row.ends).items()} for row in rows]
        found = [
            Replay(source, row.partition, row.offset, end, row.sent_at) for row, end in zip(rows, ends, strict=True)
        ]
        return {item.position: item for item in found}

    def plan(self, replays: Sequence[Replay], now: int) -> None:
        """Write down what is about to be sent; what was planned before keeps the ends of that time."""
        known = self.of(replays[0].source) if replays else {}
        fresh = [
            {
                "source": item.source,
                "partition": item.partition,
                "offset": item.offset,
                "ends": json.dumps(item.ends),
                "planned_at": now,
            }
            for item in replays
            if item.position not in known
        ]
        if fresh:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(REPLAYS), fresh)

    def sent(self, source: str, positions: Sequence[tuple[int, int]], now: int) -> None:
        """Mark replays as sent."""
        with self._engine.begin() as connection:
            for partition, offset in positions:
                mine = (REPLAYS.c.source == source, REPLAYS.c.partition == partition, REPLAYS.c.offset == offset)
                connection.execute(sa.update(REPLAYS).where(*mine).values(sent_at=now))
