"""The control plane: deployments, batch loads, progress certificates, parity runs. SQL state; never feature data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from coeval.settings import Settings
from coeval.spec.manifest import Manifest

_METADATA = sa.MetaData()

_MANIFESTS = sa.Table(
    "manifests",
    _METADATA,
    sa.Column("hash", sa.String, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("applied_at", sa.BigInteger, nullable=False),
)
_DEPLOYMENTS = sa.Table(
    "deployments",
    _METADATA,
    sa.Column("view", sa.String, primary_key=True),
    sa.Column("version", sa.String, primary_key=True),
    sa.Column("manifest_hash", sa.String, nullable=False),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Column("deployed_at", sa.BigInteger, nullable=False),
)
_RELEASES = sa.Table(
    "releases",
    _METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("manifest_hash", sa.String, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
)
_LOADS = sa.Table(
    "batch_loads",
    _METADATA,
    sa.Column("run", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("view", sa.String, nullable=False),
    sa.Column("version", sa.String, nullable=False),
    sa.Column("cut", sa.BigInteger, nullable=False),
    sa.Column("written", sa.Integer),
    sa.Column("finished_at", sa.BigInteger),
)
_CERTIFICATES = sa.Table(
    "certificates",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("source", sa.String, nullable=False, index=True),
    sa.Column("offsets", sa.Text, nullable=False),
    sa.Column("ends", sa.Text, nullable=False),
    sa.Column("recorded_at", sa.BigInteger, nullable=False),
)
_PARITY = sa.Table(
    "parity_runs",
    _METADATA,
    sa.Column("run", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("manifest_hash", sa.String, nullable=False),
    sa.Column("passed", sa.Boolean, nullable=False),
    sa.Column("result", sa.Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A view version that the stream fills: it owns the tiles that start at or after `since` (microseconds UTC)."""

    view: str
    version: str
    manifest_hash: str
    since: int
    deployed_at: int


@dataclass(frozen=True, slots=True)
class BatchLoad:
    """A finished batch load: `run` is its epoch; it wrote the tiles that were final at `cut` of the log."""

    run: int
    view: str
    version: str
    cut: int
    written: int
    finished_at: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """Once the online store has reached `ends` of the changelogs, it covers `offsets` of the source topic.

    `offsets` is by source partition; `ends` is by changelog topic, then partition. Both are next offsets to read.
    """

    source: str
    offsets: Mapping[int, int]
    ends: Mapping[str, Mapping[int, int]]
    recorded_at: int


class ControlPlane:
    """One connection pool to the control-plane database; instants are microseconds since the epoch, UTC."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        _METADATA.create_all(self._engine)

    @staticmethod
    def open(settings: Settings) -> ControlPlane:
        """The control plane that the settings name; creates it where there is none."""
        settings.home.mkdir(parents=True, exist_ok=True)
        return ControlPlane(settings.control_url)

    def close(self) -> None:
        """Release every connection."""
        self._engine.dispose()

    def save_manifest(self, manifest: Manifest, now: int) -> None:
        """Keep a manifest by its hash; saving it again changes nothing."""
        if self.manifest(manifest.hash) is None:
            self._insert(_MANIFESTS, hash=manifest.hash, body=manifest.to_json(), applied_at=now)

    def manifest(self, content_hash: str) -> Manifest | None:
        """A manifest kept before."""
        row = self._first(sa.select(_MANIFESTS.c.body).where(_MANIFESTS.c.hash == content_hash))
        return None if row is None else Manifest.from_json(row.body)

    def deploy(self, view: str, version: str, manifest_hash: str, since: int, now: int) -> Deployment:
        """Record that the stream owns a view version from `since` on; a version that is deployed is left as it is."""
        if self.deployment(view, version) is None:
            self._insert(
                _DEPLOYMENTS, view=view, version=version, manifest_hash=manifest_hash, since=since, deployed_at=now
            )
        found = self.deployment(view, version)
        assert found is not None
        return found

    def release(self, manifest_hash: str, now: int) -> None:
        """Record that a kept manifest is the one to run from now on; naming an earlier one again rolls back to it."""
        self._insert(_RELEASES, manifest_hash=manifest_hash, at=now)

    def released(self) -> Manifest | None:
        """The manifest to run; None before the first release."""
        row = self._first(sa.select(_RELEASES.c.manifest_hash).order_by(_RELEASES.c.number.desc()).limit(1))
        return None if row is None else self.manifest(row.manifest_hash)

    def deployment(self, view: str, version: str) -> Deployment | None:
        """The deployment of a view version."""
        table = _DEPLOYMENTS
        row = self._first(sa.select(table).where(table.c.view == view, table.c.version == version))
        return None if row is None else Deployment(**row._asdict())

    def deployments(self) -> tuple[Deployment, ...]:
        """Every deployment, by view and version."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_DEPLOYMENTS).order_by(_DEPLOYMENTS.c.view, _DEPLOYMENTS.c.version))
            return tuple(Deployment(**row._asdict()) for row in rows)

    def start_load(self, view: str, version: str, cut: int) -> int:
        """Open a batch load and return its run number: the epoch of the tiles that it writes."""
        return self._insert(_LOADS, view=view, version=version, cut=cut)

    def finish_load(self, run: int, written: int, now: int) -> None:
        """Close a batch load: everything it had to write is in the online store."""
        with self._engine.begin() as connection:
            connection.execute(sa.update(_LOADS).where(_LOADS.c.run == run).values(written=written, finished_at=now))

    def last_load(self, view: str, version: str) -> BatchLoad | None:
        """The latest finished batch load of a view version."""
        table = _LOADS
        query = sa.select(table).where(
            table.c.view == view, table.c.version == version, table.c.finished_at.is_not(None)
        )
        row = self._first(query.order_by(table.c.run.desc()).limit(1))
        return None if row is None else BatchLoad(**row._asdict())

    def record_certificate(self, certificate: Certificate) -> None:
        """Keep a progress certificate."""
        self._insert(
            _CERTIFICATES,
            source=certificate.source,
            offsets=json.dumps(certificate.offsets),
            ends=json.dumps(certificate.ends),
            recorded_at=certificate.recorded_at,
        )

    def certificates(self, source: str, limit: int = 100) -> tuple[Certificate, ...]:
        """The newest certificates of a source, newest first."""
        table = _CERTIFICATES
        query = sa.select(table).where(table.c.source == source).order_by(table.c.id.desc()).limit(limit)
        with self._engine.connect() as connection:
            return tuple(_certificate(row) for row in connection.execute(query))

    def record_parity(self, at: int, manifest_hash: str, passed: bool, result: Mapping[str, Any]) -> int:
        """Keep the result of a parity run; returns its number."""
        return self._insert(_PARITY, at=at, manifest_hash=manifest_hash, passed=passed, result=json.dumps(result))

    def parity_run(self, run: int | None = None) -> tuple[int, Mapping[str, Any]] | None:
        """A parity run's number and the result that was kept of it; the latest where none is named."""
        query = sa.select(_PARITY.c.run, _PARITY.c.result).order_by(_PARITY.c.run.desc()).limit(1)
        row = self._first(query if run is None else query.where(_PARITY.c.run == run))
        return None if row is None else (row.run, json.loads(row.result))

    def parity_history(self, limit: int = 40) -> tuple[Mapping[str, Any], ...]:
        """The totals of the newest parity runs, oldest first: run, at, passed, keys, compared, matched, causes."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_PARITY).order_by(_PARITY.c.run.desc()).limit(limit)).all()
        return tuple(_parity_totals(row) for row in reversed(rows))

    def _first(self, query: sa.Select[Any]) -> sa.Row[Any] | None:
        with self._engine.connect() as connection:
            return connection.execute(query).first()

    def _insert(self, table: sa.Table, **values: object) -> int:
        with self._engine.begin() as connection:
            key = connection.execute(sa.insert(table).values(**values)).inserted_primary_key
            return key[0] if key and isinstance(key[0], int) else 0


def _certificate(row: sa.Row[Any]) -> Certificate:
    ends = {topic: _int_keys(parts) for topic, parts in json.loads(row.ends).items()}
    return Certificate(row.source, _int_keys(json.loads(row.offsets)), ends, row.recorded_at)


def _parity_totals(row: sa.Row[Any]) -> Mapping[str, Any]:
    result = json.loads(row.result)
    totals = {name: result.get(name) for name in ("keys", "compared", "matched", "causes")}
    return {"run": row.run, "at": row.at, "passed": row.passed, **totals}


def _int_keys(mapping: Mapping[str, int]) -> dict[int, int]:
    return {int(key): value for key, value in mapping.items()}
