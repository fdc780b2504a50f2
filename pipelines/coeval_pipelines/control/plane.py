"""The control plane itself: one SQL database, SQLite or PostgreSQL. It holds state of operation, never feature data."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from coeval.errors import ManifestError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.time import HOUR
from coeval_pipelines.control import schema
from coeval_pipelines.control.model import ENDED, RUNNING, BatchLoad, Certificate, Deployment, Run

_PAGE = 200
"""Certificates that are read at a time: a store that keeps up has reached one of the newest."""


class ControlPlane:
    """One connection pool to the control-plane database; instants are microseconds since the epoch, UTC."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        schema.METADATA.create_all(self._engine)

    @property
    def engine(self) -> sa.Engine:
        """The connections, for tables that are kept beside these."""
        return self._engine

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
            self._insert(schema.MANIFESTS, hash=manifest.hash, body=manifest.to_json(), applied_at=now)

    def manifest(self, content_hash: str) -> Manifest | None:
        """A manifest kept before."""
        row = self._first(sa.select(schema.MANIFESTS.c.body).where(schema.MANIFESTS.c.hash == content_hash))
        return None if row is None else Manifest.from_json(row.body)

    def manifest_like(self, beginning: str) -> Manifest:
        """The kept manifest whose hash begins so.

        Raises:
            ManifestError: there is none, or more than one.
        """
        table = schema.MANIFESTS
        with self._engine.connect() as connection:
            query = sa.select(table.c.body).where(table.c.hash.startswith(beginning, autoescape=True))
            found = connection.execute(query).all()
        if len(found) != 1:
            what = "no manifest" if not found else f"{len(found)} manifests"
            raise ManifestError(f"The control plane has {what} whose hash begins with {beginning!r}.")
        return Manifest.from_json(found[0].body)

    def deploy(self, view: str, version: str, manifest_hash: str, since: int, now: int) -> Deployment:
        """Record that the stream owns a view version from `since` on; a version that is deployed is left as it is."""
        if self.deployment(view, version) is None:
            self._insert(
                schema.DEPLOYMENTS,
                view=view,
                version=version,
                manifest_hash=manifest_hash,
                since=since,
                deployed_at=now,
            )
        found = self.deployment(view, version)
        assert found is not None
        return found

    def retire(self, view: str, version: str) -> None:
        """Forget that the stream owns a view version: nothing fills it any more."""
        table = schema.DEPLOYMENTS
        with self._engine.begin() as connection:
            connection.execute(sa.delete(table).where(table.c.view == view, table.c.version == version))

    def begin_run(self, run: Run, now: int, ends: Collection[int] = ()) -> Run:
        """Record a run with the next number, and with it, at once or not at all, the end of others."""
        values = {
            "source": run.source,
            "manifest_hash": run.manifest_hash,
            "views": json.dumps(run.views),
            "since": json.dumps(run.since),
            "start": json.dumps(run.start),
            "parallelism": run.parallelism,
            "restore": run.restore,
            "replaces": json.dumps(run.replaces),
            "reason": run.reason,
            "status": RUNNING,
            "started_at": now,
            "changed_at": now,
            "identity": secrets.token_hex(3),
        }
        with self._engine.begin() as connection:
            number = connection.execute(sa.insert(schema.RUNS).values(**values)).inserted_primary_key[0]  # type: ignore[index]
            ended = sa.update(schema.RUNS).where(schema.RUNS.c.number.in_(ends))
            connection.execute(ended.values(status=ENDED, changed_at=now))
        made = replace(run, number=number, status=RUNNING, started_at=now, changed_at=now)
        return replace(made, identity=str(values["identity"]))

    def set_run(self, number: int, status: str, now: int, restore: str | None = None) -> None:
        """Change what a run is meant to be, and, where given, what its state is to be taken from."""
        values = {"status": status, "changed_at": now} | ({} if restore is None else {"restore": restore})
        with self._engine.begin() as connection:
            connection.execute(sa.update(schema.RUNS).where(schema.RUNS.c.number == number).values(**values))

    def runs(self, source: str | None = None, statuses: Collection[str] = (RUNNING,)) -> tuple[Run, ...]:
        """The runs of a source, or of all, that have one of the statuses; oldest first."""
        query = sa.select(schema.RUNS).where(schema.RUNS.c.status.in_(statuses)).order_by(schema.RUNS.c.number)
        if source is not None:
            query = query.where(schema.RUNS.c.source == source)
        with self._engine.connect() as connection:
            return tuple(_run(row) for row in connection.execute(query))

    def release(self, manifest_hash: str, now: int) -> None:
        """Record that a kept manifest is the one to run from now on; naming an earlier one again rolls back to it."""
        self._insert(schema.RELEASES, manifest_hash=manifest_hash, at=now)

    def released(self) -> Manifest | None:
        """The manifest to run; None before the first release."""
        row = self._first(sa.select(schema.RELEASES.c.manifest_hash).order_by(schema.RELEASES.c.number.desc()).limit(1))
        return None if row is None else self.manifest(row.manifest_hash)

    def was_released(self, manifest_hash: str) -> bool:
        """Whether a manifest was ever the one to run."""
        return (
            self._first(sa.select(schema.RELEASES).where(schema.RELEASES.c.manifest_hash == manifest_hash)) is not None
        )

    def deployment(self, view: str, version: str) -> Deployment | None:
        """The deployment of a view version."""
        table = schema.DEPLOYMENTS
        row = self._first(sa.select(table).where(table.c.view == view, table.c.version == version))
        return None if row is None else Deployment(**row._asdict())

    def deployments(self) -> tuple[Deployment, ...]:
        """Every deployment, by view and version."""
        with self._engine.connect() as connection:
            rows = connection.execute(
                sa.select(schema.DEPLOYMENTS).order_by(schema.DEPLOYMENTS.c.view, schema.DEPLOYMENTS.c.version)
            )
            return tuple(Deployment(**row._asdict()) for row in rows)

    def finish_load(self, run: int, written: int, now: int) -> None:
        """Close a batch load: everything it had to write is in the online store."""
        with self._engine.begin() as connection:
            connection.execute(
                sa.update(schema.LOADS).where(schema.LOADS.c.run == run).values(written=written, finished_at=now)
            )

    def last_epoch(self) -> int:
        """The greatest run number of a batch load so far, finished or not; 0 before the first."""
        row = self._first(sa.select(sa.func.max(schema.LOADS.c.run)))
        return (row[0] if row else None) or 0

    def last_load(self, view: str, version: str) -> BatchLoad | None:
        """The latest finished batch load of a view version."""
        row = self._first(_finished(view, version).limit(1))
        return None if row is None else _load(row)

    def finished_loads(self, view: str, version: str) -> tuple[BatchLoad, ...]:
        """The finished batch loads of a view version, newest first."""
        with self._engine.connect() as connection:
            return tuple(map(_load, connection.execute(_finished(view, version))))

    def record_certificate(self, certificate: Certificate) -> None:
        """Keep a progress certificate."""
        self._insert(
            schema.CERTIFICATES,
            source=certificate.source,
            run=certificate.run,
            offsets=json.dumps(certificate.offsets),
            ends=json.dumps(certificate.ends),
            recorded_at=certificate.recorded_at,
        )

    def certificates(self, source: str, run: int | None = None, limit: int = 100) -> tuple[Certificate, ...]:
        """The newest certificates of a source, or of one run, newest first."""
        table = schema.CERTIFICATES
        query = sa.select(table).where(table.c.source == source).order_by(table.c.id.desc()).limit(limit)
        if run is not None:
            query = query.where(table.c.run == run)
        with self._engine.connect() as connection:
            return tuple(_certificate(row) for row in connection.execute(query))

    def every_certificate(self, source: str) -> Iterator[Certificate]:
        """All certificates of a source, of all its runs, newest first; read as far as they are asked for."""
        table = schema.CERTIFICATES
        query = sa.select(table).where(table.c.source == source).order_by(table.c.id.desc()).limit(_PAGE)
        rows: Sequence[sa.Row[Any]] = ()
        while not rows or len(rows) == _PAGE:
            with self._engine.connect() as connection:
                rows = connection.execute(query.where(table.c.id < rows[-1].id) if rows else query).all()
            if not rows:
                return
            yield from map(_certificate, rows)

    def forget_certificates(self, run: int, keep: int) -> None:
        """Delete certificates of a run, but the newest, and the first of each hour before.

        Old ones say less than newer ones that are reached; a store that is far behind has reached the old ones only.
        """
        table = schema.CERTIFICATES
        mine = sa.select(table.c.id).where(table.c.run == run)
        newest = mine.order_by(table.c.id.desc()).limit(keep)
        of_hours = sa.select(sa.func.min(table.c.id)).where(table.c.run == run).group_by(table.c.recorded_at // HOUR)
        with self._engine.begin() as connection:
            gone = (table.c.run == run, table.c.id.not_in(newest), table.c.id.not_in(of_hours))
            connection.execute(sa.delete(table).where(*gone))

    def _first(self, query: sa.Select[Any]) -> sa.Row[Any] | None:
        with self._engine.connect() as connection:
            return connection.execute(query).first()

    def _insert(self, table: sa.Table, **values: object) -> int:
        with self._engine.begin() as connection:
            key = connection.execute(sa.insert(table).values(**values)).inserted_primary_key
            return key[0] if key and isinstance(key[0], int) else 0


def _run(row: sa.Row[Any]) -> Run:
    encoded = {name: json.loads(getattr(row, name)) for name in ("views", "since", "start", "replaces")}
    return Run.of({**row._asdict(), **encoded})


def _certificate(row: sa.Row[Any]) -> Certificate:
    ends = {topic: _int_keys(parts) for topic, parts in json.loads(row.ends).items()}
    return Certificate(row.source, row.run, _int_keys(json.loads(row.offsets)), ends, row.recorded_at)


def _int_keys(mapping: Mapping[str, int]) -> dict[int, int]:
    return {int(key): value for key, value in mapping.items()}


def _finished(view: str, version: str) -> sa.Select[Any]:
    loads, runs = schema.LOADS, schema.LOAD_RUNS
    joined = sa.select(loads, runs.c.pins).outerjoin(runs, loads.c.run == runs.c.run)
    mine = (loads.c.view == view, loads.c.version == version, loads.c.finished_at.is_not(None))
    return joined.where(*mine).order_by(loads.c.run.desc())


def _load(row: sa.Row[Any]) -> BatchLoad:
    values = row._asdict()
    pins = json.loads(values.pop("pins") or "{}")
    return BatchLoad(**values, as_of=pins.get("as_of"))
