"""The batch loads as an operator sees them: their states, what they read, which of their units are done. It knows SQL.

A load's number is its epoch, and stays its own however often it is interrupted. Every change of its state is kept, with
who made it and why.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from coeval.errors import UsageError
from coeval_pipelines.control import schema
from coeval_pipelines.control.plane import ControlPlane

PLANNED, LOADING, CATCHING_UP = "planned", "loading", "catching_up"
READY, FAILED, CANCELLED = "ready", "failed", "cancelled"
OPEN = (PLANNED, LOADING, CATCHING_UP, FAILED)
"""Not over: somebody works on it, or it may be resumed."""
FIRST_FILL, CORRECTION, REBUILD = "first fill", "correction", "rebuild"


@dataclass(frozen=True, slots=True)
class Pins:
    """What a load reads, whenever it reads it: written down before it reads anything.

    `log` is the version of the source's log (None: there is none), `ingested` the last ingest that is in it for
    certain, `erasures` the version of the table of erasures, `as_of` the instant (microseconds UTC) at which rows are
    visible. `files` tells the contents of a batch source's files ('' where that is not known), and `turns_at` when the
    next of their rows becomes visible (None: never).
    """

    log: int | None
    erasures: int
    as_of: int
    ingested: int = 0
    files: str = ""
    turns_at: int | None = None


@dataclass(frozen=True, slots=True)
class LoadRun:
    """A batch load, begun or over. Instants are microseconds UTC.

    `life` tells the life of the store that its units were last written to; `rows` and `units` are what it has to write
    (None: not computed yet), `done` the rows of it that are written, `per_second` how fast that went last.
    """

    run: int
    view: str
    version: str
    cut: int
    manifest_hash: str
    kind: str
    state: str
    pins: Pins | None = None
    life: str = ""
    units: int | None = None
    rows: int | None = None
    done: int = 0
    per_second: float = 0.0
    beat_at: int = 0

    @property
    def is_open(self) -> bool:
        """Whether it is not over."""
        return self.state in OPEN

    @property
    def seconds_left(self) -> float | None:
        """How long it will go on writing at its last rate; None: not known."""
        if self.state != LOADING or self.rows is None or not self.per_second:
            return None
        return max(0, self.rows - self.done) / self.per_second


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a load's state: who made it (user@host pid), why and when (microseconds UTC)."""

    run: int
    state: str
    who: str
    why: str
    at: int


def myself() -> str:
    """Who changes a state: user@host pid."""
    return f"{getpass.getuser()}@{socket.gethostname()} pid {os.getpid()}"


class LoadBook:
    """The loads of a control plane."""

    def __init__(self, control: ControlPlane) -> None:
        self._engine = control.engine

    def begin(
        self, view: str, version: str, manifest_hash: str, cut: int, kind: str, why: str, now: int, who: str = ""
    ) -> LoadRun:
        """Plan a load: its number is greater than that of any other."""
        with self._engine.begin() as connection:
            load = sa.insert(schema.LOADS).values(view=view, version=version, cut=cut)
            key = connection.execute(load).inserted_primary_key
            assert key is not None
            run = LoadRun(key[0], view, version, cut, manifest_hash, kind, PLANNED, beat_at=now)
            values = asdict(run)
            for name in ("view", "version", "cut"):
                del values[name]
            connection.execute(sa.insert(schema.LOAD_RUNS).values(**values))
            _note(connection, run.run, PLANNED, who, why, now)
        return run

    def move(self, run: int, state: str, why: str, now: int, who: str = "") -> bool:
        """Change the state of a load that is not over, and write down who did and why; whether it was so changed."""
        table = schema.LOAD_RUNS
        with self._engine.begin() as connection:
            mine = sa.update(table).where(table.c.run == run, table.c.state.in_(OPEN))
            moved = bool(connection.execute(mine.values(state=state)).rowcount)
            if moved:
                _note(connection, run, state, who, why, now)
        return moved

    def stopped(self, run: int, why: str, now: int) -> None:
        """Write down that who worked on a load that was cancelled has stopped."""
        with self._engine.begin() as connection:
            _note(connection, run, CANCELLED, "", why, now)

    def pin(self, run: int, pins: Pins) -> None:
        """Write down what a load reads."""
        self._set(run, pins=json.dumps(asdict(pins)))

    def stage(self, run: int, units: int, rows: int, life: str) -> None:
        """Write down how much a load has to write, and into which life of the store it does."""
        self._set(run, units=units, rows=rows, life=life)

    def beat(self, run: int, done: int, per_second: float, now: int) -> None:
        """Write down how far a load is."""
        self._set(run, done=done, per_second=per_second, beat_at=now)

    def beat_idle(self, runs: Collection[int], now: int) -> None:
        """Write down that somebody works on loads that are computed, wait for others or for the changelog.

        Those that are being written beat as their rows are.
        """
        table = schema.LOAD_RUNS
        idle = (table.c.run.in_(runs), table.c.state.in_(OPEN), table.c.state != LOADING)
        with self._engine.begin() as connection:
            connection.execute(sa.update(table).where(*idle).values(beat_at=now))

    def unit_done(self, run: int, unit: str, life: str, rows: int, written: int, now: int) -> None:
        """Write down that all of a unit is in that life of the store: `written` of its `rows`, others were newer."""
        table = schema.LOAD_UNITS
        with self._engine.begin() as connection:
            connection.execute(sa.delete(table).where(table.c.run == run, table.c.unit == unit))
            values = {"run": run, "unit": unit, "life": life, "rows": rows, "written": written, "done_at": now}
            connection.execute(sa.insert(table).values(**values))

    def units_done(self, run: int, life: str) -> dict[str, int]:
        """What was written of each unit of a load that is whole in that life of the store, by name."""
        table = schema.LOAD_UNITS
        query = sa.select(table.c.unit, table.c.written).where(table.c.run == run, table.c.life == life)
        with self._engine.connect() as connection:
            return {row.unit: row.written for row in connection.execute(query)}

    def forget_units(self, run: int) -> None:
        """Forget the units of a load that is over."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(schema.LOAD_UNITS).where(schema.LOAD_UNITS.c.run == run))

    def get(self, run: int) -> LoadRun:
        """A load by its number.

        Raises:
            UsageError: there is none.
        """
        found = self._select(schema.LOAD_RUNS.c.run == run)
        if not found:
            raise UsageError(f"There is no load {run}.", "See coeval backfill status")
        return found[0]

    def pins(self, run: int) -> Pins | None:
        """What a load read; None of one that is not known so well."""
        found = self._select(schema.LOAD_RUNS.c.run == run)
        return found[0].pins if found else None

    def newest(self, limit: int, states: Collection[str] = (), view: str = "") -> tuple[LoadRun, ...]:
        """The newest loads, newest first; those of some states or of a view only, where any are named."""
        wanted = [schema.LOAD_RUNS.c.state.in_(states)] if states else []
        return self._select(*wanted, *([schema.LOADS.c.view == view] if view else []), limit=limit)

    def open_runs(self) -> set[int]:
        """The numbers of the loads that are not over."""
        query = sa.select(schema.LOAD_RUNS.c.run).where(schema.LOAD_RUNS.c.state.in_(OPEN))
        with self._engine.connect() as connection:
            return set(connection.execute(query).scalars())

    def of(self, view: str, version: str, states: Collection[str]) -> tuple[LoadRun, ...]:
        """The loads of a view version that have one of the states, newest first."""
        table = schema.LOADS
        return self._select(table.c.view == view, table.c.version == version, schema.LOAD_RUNS.c.state.in_(states))

    def changes(self, run: int) -> tuple[Change, ...]:
        """The changes of a load's state, oldest first."""
        table = schema.LOAD_CHANGES
        columns = [table.c[name] for name in ("run", "state", "who", "why", "at")]
        query = sa.select(*columns).where(table.c.run == run).order_by(table.c.id)
        with self._engine.connect() as connection:
            return tuple(Change(*row) for row in connection.execute(query))

    def _set(self, run: int, **values: object) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.update(schema.LOAD_RUNS).where(schema.LOAD_RUNS.c.run == run).values(**values))

    def _select(self, *conditions: sa.ColumnElement[bool], limit: int | None = None) -> tuple[LoadRun, ...]:
        loads, runs = schema.LOADS, schema.LOAD_RUNS
        columns = [loads.c.view, loads.c.version, loads.c.cut, *runs.c]
        query = sa.select(*columns).join(loads, loads.c.run == runs.c.run).where(*conditions)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(runs.c.run.desc()).limit(limit)).all()
        return tuple(map(_load_run, rows))


def _note(connection: sa.Connection, run: int, state: str, who: str, why: str, now: int) -> None:
    values = {"run": run, "state": state, "who": who or myself(), "why": why, "at": now}
    connection.execute(sa.insert(schema.LOAD_CHANGES).values(**values))


def _load_run(row: sa.Row[Any]) -> LoadRun:
    values = row._asdict()
    pins = json.loads(values.pop("pins") or "null")
    return LoadRun(**values, pins=Pins(**pins) if pins else None)
