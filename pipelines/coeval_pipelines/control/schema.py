"""The tables of the control plane. Instants are microseconds since the epoch, UTC; mappings are JSON."""

from __future__ import annotations

import sqlalchemy as sa

METADATA = sa.MetaData()

MANIFESTS = sa.Table(
    "manifests",
    METADATA,
    sa.Column("hash", sa.String, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("applied_at", sa.BigInteger, nullable=False),
)
DEPLOYMENTS = sa.Table(
    "deployments",
    METADATA,
    sa.Column("view", sa.String, primary_key=True),
    sa.Column("version", sa.String, primary_key=True),
    sa.Column("manifest_hash", sa.String, nullable=False),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Column("deployed_at", sa.BigInteger, nullable=False),
)
RUNS = sa.Table(
    "stream_runs",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("source", sa.String, nullable=False, index=True),
    sa.Column("manifest_hash", sa.String, nullable=False),
    sa.Column("views", sa.Text, nullable=False),
    sa.Column("since", sa.Text, nullable=False),
    sa.Column("start", sa.Text, nullable=False),
    sa.Column("parallelism", sa.Integer, nullable=False),
    sa.Column("restore", sa.String, nullable=False),
    sa.Column("replaces", sa.Text, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("status", sa.String, nullable=False, index=True),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("changed_at", sa.BigInteger, nullable=False),
    sa.Column("identity", sa.String, nullable=False),
)
RELEASES = sa.Table(
    "releases",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("manifest_hash", sa.String, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
)
LOADS = sa.Table(
    "batch_loads",
    METADATA,
    sa.Column("run", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("view", sa.String, nullable=False),
    sa.Column("version", sa.String, nullable=False),
    sa.Column("cut", sa.BigInteger, nullable=False),
    sa.Column("written", sa.Integer),
    sa.Column("finished_at", sa.BigInteger),
)
LOAD_RUNS = sa.Table(
    "load_runs",
    METADATA,
    sa.Column("run", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("manifest_hash", sa.String, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False, index=True),
    sa.Column("pins", sa.Text),
    sa.Column("life", sa.String, nullable=False),
    sa.Column("units", sa.Integer),
    sa.Column("rows", sa.BigInteger),
    sa.Column("done", sa.BigInteger, nullable=False),
    sa.Column("per_second", sa.Float, nullable=False),
    sa.Column("beat_at", sa.BigInteger, nullable=False),
)
LOAD_UNITS = sa.Table(
    "load_units",
    METADATA,
    sa.Column("run", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("unit", sa.String, primary_key=True),
    sa.Column("life", sa.String, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("written", sa.BigInteger, nullable=False),
    sa.Column("done_at", sa.BigInteger, nullable=False),
)
LOAD_CHANGES = sa.Table(
    "load_changes",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("run", sa.Integer, nullable=False, index=True),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("who", sa.String, nullable=False),
    sa.Column("why", sa.String, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
)
CERTIFICATES = sa.Table(
    "certificates",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("source", sa.String, nullable=False, index=True),
    sa.Column("run", sa.Integer, nullable=False, index=True),
    sa.Column("offsets", sa.Text, nullable=False),
    sa.Column("ends", sa.Text, nullable=False),
    sa.Column("recorded_at", sa.BigInteger, nullable=False),
)
COVERAGE = sa.Table(
    "coverage",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("topic", sa.String, nullable=False, index=True),
    sa.Column("offsets", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("back", sa.Boolean, nullable=False),
)
PARITY = sa.Table(
    "parity_runs",
    METADATA,
    sa.Column("run", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("manifest_hash", sa.String, nullable=False),
    sa.Column("passed", sa.Boolean, nullable=False),
    sa.Column("result", sa.Text, nullable=False),
)
PARITY_VIEWS = sa.Table(
    "parity_views",
    METADATA,
    sa.Column("run", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("view", sa.String, primary_key=True),
    sa.Column("version", sa.String, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("keys", sa.BigInteger, nullable=False),
    sa.Column("compared", sa.BigInteger, nullable=False),
    sa.Column("matched", sa.BigInteger, nullable=False),
    sa.Column("causes", sa.Text, nullable=False),
    sa.Column("breaches", sa.Text, nullable=False),
    sa.Column("share", sa.Float, nullable=False),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("budgets", sa.Text, nullable=False),
)
