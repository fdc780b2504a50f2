"""Which dead letters were replayed: a row each, planned before anything is sent, marked once it is. It knows SQL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from coeval_pipelines.control import schema
from coeval_pipelines.control.plane import ControlPlane

REPLAYS = sa.Table(
    "deadletter_replays",
    schema.METADATA,
    sa.Column("source", sa.String, primary_key=True),
    sa.Column("log", sa.String, primary_key=True),
    sa.Column("topic", sa.String, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("offset", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("ends", sa.Text, nullable=False),
    sa.Column("planned_at", sa.BigInteger, nullable=False),
    sa.Column("sent_at", sa.BigInteger),
)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a reject of a source stands: the identity of its log, its topic (empty: a history file), its position.

    A log that was begun anew, and a topic of another name, have the same positions for other records.
    """

    log: str
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Replay:
    """A reject by its place, and the ends of its source's topic, by partition, before it was first sent."""

    source: str
    place: Place
    ends: Mapping[int, int]
    sent_at: int | None = None


class ReplayBook:
    """The replays of a control plane."""

    def __init__(self, control: ControlPlane) -> None:
        self._engine = control.engine
        REPLAYS.create(self._engine, checkfirst=True)

    def of(self, source: str) -> dict[Place, Replay]:
        """Every replay of a source, by the place of the reject."""
        query = sa.select(REPLAYS).where(REPLAYS.c.source == source)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        found = [
            Replay(
                source,
                Place(row.log, row.topic, row.partition, row.offset),
                {int(part): end for part, end in json.loads(row.ends).items()},
                row.sent_at,
            )
            for row in rows
        ]
        return {item.place: item for item in found}

    def plan(self, replays: Sequence[Replay], now: int) -> None:
        """Write down what is about to be sent; what was planned before keeps the ends of that time."""
        known = self.of(replays[0].source) if replays else {}
        fresh = [
            {"source": item.source, **asdict(item.place), "ends": json.dumps(item.ends), "planned_at": now}
            for item in replays
            if item.place not in known
        ]
        if fresh:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(REPLAYS), fresh)

    def sent(self, source: str, places: Sequence[Place], now: int) -> None:
        """Mark replays as sent."""
        with self._engine.begin() as connection:
            for place in places:
                mine = [REPLAYS.c[name] == value for name, value in asdict(place).items()]
                connection.execute(sa.update(REPLAYS).where(REPLAYS.c.source == source, *mine).values(sent_at=now))
