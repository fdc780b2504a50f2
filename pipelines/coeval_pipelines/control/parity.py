"""The runs of state parity: the newest results, and of every run a row for each view version. It knows SQL."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from coeval_pipelines.control import schema
from coeval_pipelines.control.model import ParityCheck
from coeval_pipelines.control.plane import ControlPlane

KEPT_RUNS = 40
"""Parity runs whose documents are kept, the newest; what they say of each view version is kept of all."""


class ParityBook:
    """The parity runs of a control plane. Instants are microseconds since the epoch, UTC."""

    def __init__(self, control: ControlPlane) -> None:
        self._engine = control.engine

    def record(
        self, at: int, manifest_hash: str, passed: bool, result: Mapping[str, Any], checks: Sequence[ParityCheck] = ()
    ) -> int:
        """Keep the result of a parity run, and what it says of each view version; returns its number.

        Of the results the newest 40 are kept.
        """
        values = {"at": at, "manifest_hash": manifest_hash, "passed": passed, "result": json.dumps(result)}
        with self._engine.begin() as connection:
            key = connection.execute(sa.insert(schema.PARITY).values(**values)).inserted_primary_key
            run = int(key[0]) if key else 0
            rows = [
                asdict(item) | {"run": run, "causes": json.dumps(item.causes), "breaches": json.dumps(item.breaches)}
                for item in checks
            ]
            if rows:
                connection.execute(sa.insert(schema.PARITY_VIEWS), rows)
            number = schema.PARITY.c.run
            old = connection.execute(sa.select(number).order_by(number.desc()).offset(KEPT_RUNS).limit(1)).scalar()
            if old is not None:
                connection.execute(sa.delete(schema.PARITY).where(number <= old))
        return run

    def checks(
        self, view: str | None = None, version: str | None = None, limit: int | None = 200
    ) -> tuple[ParityCheck, ...]:
        """What parity runs found of a view, or of one version of it, or of every view; the newest first (None: all)."""
        table = schema.PARITY_VIEWS
        query = sa.select(table).order_by(table.c.run.desc(), table.c.view, table.c.version).limit(limit)
        wanted = [(table.c.view, view), (table.c.version, version)]
        query = query.where(*(column == value for column, value in wanted if value is not None))
        with self._engine.connect() as connection:
            return tuple(map(_check, connection.execute(query)))

    def run(self, run: int | None = None) -> tuple[int, Mapping[str, Any]] | None:
        """A parity run's number and the result that was kept of it; the latest where none is named."""
        query = sa.select(schema.PARITY.c.run, schema.PARITY.c.result).order_by(schema.PARITY.c.run.desc()).limit(1)
        with self._engine.connect() as connection:
            row = connection.execute(query if run is None else query.where(schema.PARITY.c.run == run)).first()
        return None if row is None else (row.run, json.loads(row.result))

    def forget_differences(self, views: Collection[str]) -> int:
        """Delete the single differences of some views from every parity run, with their keys, values and events.

        The counts stay; what was deleted counts as omitted. Returns how many there were.
        """
        table, forgotten = schema.PARITY, 0
        with self._engine.begin() as connection:
            for run in connection.execute(sa.select(table.c.run)).scalars().all():
                # One at a time: each may be megabytes.
                found = connection.execute(sa.select(table.c.result).where(table.c.run == run)).scalar_one_or_none()
                result = json.loads(found or "{}")
                known = result.get("mismatches", [])
                kept = [item for item in known if item["view"] not in views]
                if len(kept) < len(known):
                    gone = len(known) - len(kept)
                    result |= {"mismatches": kept, "omitted": result.get("omitted", 0) + gone}
                    mine = sa.update(table).where(table.c.run == run)
                    connection.execute(mine.values(result=json.dumps(result)))
                    forgotten += gone
        return forgotten


def _check(row: sa.Row[Any]) -> ParityCheck:
    values = row._asdict()
    decoded = {"causes": json.loads(values["causes"]), "breaches": tuple(json.loads(values["breaches"]))}
    return ParityCheck(**{**values, **decoded})
