"""The runs of checks beside state parity: a row for each subject that a run checked. It knows SQL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from coeval.spec.manifest import Manifest
from coeval_pipelines.control import schema
from coeval_pipelines.control.plane import ControlPlane

PARITY = "parity"
"""What state parity is called beside the kinds of check, whose runs are kept apart from it."""
DRIFT, QUALITY, REPLAY, REBUILD, FRESHNESS = "drift", "quality", "replay", "rebuild", "freshness"
KINDS = (REPLAY, REBUILD, FRESHNESS, DRIFT, QUALITY)
"""The kinds of check."""

CHECKS = sa.Table(
    "check_runs",
    schema.METADATA,
    sa.Column("run", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.String, nullable=False, index=True),
    sa.Column("subject", sa.String, nullable=False, index=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("manifest_hash", sa.String, nullable=False),
    sa.Column("passed", sa.Boolean, nullable=False),
    sa.Column("result", sa.Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Newest:
    """A run: its number, when it was (microseconds UTC), by which manifest, whether it passed, what it found."""

    run: int
    at: int
    manifest_hash: str
    passed: bool
    result: Mapping[str, Any]


def broken_rules(check: Mapping[str, Any]) -> int:
    """How many critical rules were broken, by what was kept of a check of data quality."""
    return sum(not rule["passed"] and rule["severity"] == "critical" for rule in check["rules"])


def by_table(runs: Mapping[str, Newest]) -> dict[str, Newest]:
    """Of runs of data quality, each of which looks at some tables, the newest of every table, with what it found there.

    It passed if all that it looked at of the table did; the result is that of a log's newest batch.
    """
    found: dict[str, Newest] = {}
    for run in sorted(runs.values(), key=lambda item: item.run):
        for check in run.result["checks"]:
            before = found.get(check["subject"])
            passed = not broken_rules(check) and (before is None or before.run != run.run or before.passed)
            found[check["subject"]] = replace(run, passed=passed, result=check)
    return found


class CheckBook:
    """The runs of checks of a control plane. `subject` is what was checked; instants are microseconds UTC."""

    def __init__(self, control: ControlPlane) -> None:
        self._engine = control.engine
        CHECKS.create(self._engine, checkfirst=True)

    def record(
        self,
        kind: str,
        subject: str,
        at: int,
        manifest_hash: str,
        *,
        passed: bool,
        result: Mapping[str, Any],
        run: int | None = None,
    ) -> int:
        """Keep the result of a run, in the place of what was kept of `run` before; returns its number."""
        values = {"kind": kind, "subject": subject, "at": at, "manifest_hash": manifest_hash, "passed": passed}
        with self._engine.begin() as connection:
            if run is not None:
                change = sa.update(CHECKS).where(CHECKS.c.run == run)
                connection.execute(change.values(passed=passed, result=json.dumps(result)))
                return run
            key = connection.execute(sa.insert(CHECKS).values(**values, result=json.dumps(result))).inserted_primary_key
            return int(key[0]) if key else 0

    def run(self, kind: str, number: int | None = None) -> tuple[int, dict[str, Any]] | None:
        """The number and the result of a run of a kind; the latest where none is named."""
        query = sa.select(CHECKS.c.run, CHECKS.c.result).where(CHECKS.c.kind == kind)
        query = query.order_by(CHECKS.c.run.desc()).limit(1) if number is None else query.where(CHECKS.c.run == number)
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else (row.run, json.loads(row.result))

    def history(self, kind: str, subject: str, limit: int = 40) -> tuple[tuple[int, dict[str, Any]], ...]:
        """The newest runs on a subject, oldest first: number and result."""
        query = sa.select(CHECKS.c.run, CHECKS.c.result).where(CHECKS.c.kind == kind, CHECKS.c.subject == subject)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(CHECKS.c.run.desc()).limit(limit)).all()
        return tuple((row.run, json.loads(row.result)) for row in reversed(rows))

    def newest(self, kind: str) -> dict[str, Newest]:
        """The newest run of a kind on each subject."""
        numbers = sa.select(sa.func.max(CHECKS.c.run)).where(CHECKS.c.kind == kind).group_by(CHECKS.c.subject)
        query = sa.select(CHECKS).where(CHECKS.c.run.in_(numbers)).order_by(CHECKS.c.subject)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return {
            row.subject: Newest(row.run, row.at, row.manifest_hash, row.passed, json.loads(row.result)) for row in rows
        }

    def forget(self, kind: str, subject: str, keep: int = 0) -> None:
        """Forget all but the newest runs on a subject."""
        mine = (CHECKS.c.kind == kind, CHECKS.c.subject == subject)
        kept = sa.select(CHECKS.c.run).where(*mine).order_by(CHECKS.c.run.desc()).limit(keep)
        with self._engine.begin() as connection:
            connection.execute(sa.delete(CHECKS).where(*mine, CHECKS.c.run.not_in(kept)))


def newest_runs(control: ControlPlane, manifest: Manifest) -> dict[str, dict[str, Newest]]:
    """By kind the newest run on every subject: views that the manifest has, tables, training sets."""
    book = CheckBook(control)
    found = {kind: book.newest(kind) for kind in KINDS}
    for kind in (REPLAY, FRESHNESS):  # a view that is gone fails no more
        found[kind] = {view: run for view, run in found[kind].items() if view in manifest.views}
    return {**found, QUALITY: by_table(found[QUALITY])}
