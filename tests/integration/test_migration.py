"""Claims about plain Feast repositories, as a team brings them: they compile by defaults, or say exactly what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coeval.client import read_manifest
from coeval.spec.time import DAY
from tests.support.feast_server import Done, FeastServer, feast_server

pytestmark = pytest.mark.timeout(300)

_CONFIG = """
project: drivers
provider: coeval_pipelines.catalog.provider.CoevalProvider
registry:
  registry_store_type: coeval_pipelines.catalog.registry.CoevalRegistryStore
  path: registry.db
online_store: null
entity_key_serialization_version: 3
"""

_PROJECT = 'Project(name="drivers", owner="fleet@company.example", tags={"coeval.io/default-pii": "pseudonymous"})'

_TYPED = "value_type=ValueType.INT64"

# Written by hand after what `feast init` gives a newcomer: nothing of Coeval is imported.
_DRIVERS = """
from datetime import timedelta

import pandas as pd
from feast import Entity, FeatureService, FeatureView, Field, FileSource, Project, PushSource, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float32, Float64, Int32, Int64, String

project = PROJECT
driver = Entity(name="driver", join_keys=["driver_id"], ENTITY)
stats = FileSource(
    name="driver_stats_source", path="driver_stats.parquet", timestamp_field="event_timestamp",
    created_timestamp_column="created",
)
driver_hourly_stats = FeatureView(
    name="driver_hourly_stats",
    entities=[driver],
    ttl=timedelta(days=1),
    schema=[
        Field(name="conv_rate", dtype=Float32),
        Field(name="acc_rate", dtype=Float64),
        Field(name="trips", dtype=Int32, description="Trips of the day."),
        Field(name="city", dtype=String),
    ],
    online=True,
    source=stats,
    tags={"team": "driver_performance"},
)
inputs = RequestSource(name="vals_to_add", schema=[Field(name="val_to_add", dtype=Int64)])
driver_activity = FeatureService(name="driver_activity", features=[driver_hourly_stats[["conv_rate", "trips"]]])
"""

_ON_DEMAND = """

@on_demand_feature_view(
    sources=[driver_hourly_stats, inputs],
    schema=[Field(name="conv_rate_plus", dtype=Float64)],
)
def transformed(features: pd.DataFrame) -> pd.DataFrame:
    raise RuntimeError("nobody runs this while the catalog is read")


fresh_push = PushSource(name="driver_push", batch_source=stats)
driver_fresh = FeatureView(
    name="driver_fresh", entities=[driver], schema=[Field(name="conv_rate", dtype=Float32)], source=fresh_push
)
driver_activity_fresh = FeatureService(name="driver_activity_fresh", features=[driver_fresh, transformed])
"""


@pytest.fixture(scope="module")
def server() -> Iterator[FeastServer]:
    with feast_server() as running:
        yield running


Apply = Callable[..., Done]


@pytest.fixture
def apply(server: FeastServer, tmp_path: Path) -> Apply:
    """Register the drivers of a team; the parts of their file may be replaced."""

    def run(more: str = "", *, project: str = _PROJECT, entity: str = _TYPED, **edits: str) -> Done:
        repository = tmp_path / "drivers" / "feature_repo"
        repository.mkdir(parents=True, exist_ok=True)
        text = _DRIVERS.replace("PROJECT", project).replace("ENTITY", entity) + more
        for old, new in edits.items():
            text = text.replace(old, new)
        (repository / "feature_store.yaml").write_text(_CONFIG)
        (repository / "drivers.py").write_text(text)
        return server.run(repository, tmp_path / "state", "apply", repository)

    return run


def test_a_plain_repository_compiles_by_defaults_and_says_which(apply: Apply, tmp_path: Path) -> None:
    done = apply()
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(tmp_path / "state" / "manifest.json")
    (view,) = manifest.row_views
    (source,) = manifest.batch_sources
    assert [(field.name, str(field.type), field.nullable) for field in source.fields] == [
        ("driver_id", "int64", False),
        ("event_timestamp", "timestamp", False),
        ("created", "timestamp", True),
        ("acc_rate", "float64", True),
        ("city", "string", True),
        ("conv_rate", "float64", True),
        ("trips", "int64", True),
    ]
    assert (source.event_ts, source.available_at) == ("event_timestamp", "created")
    assert {field.pii for field in (*view.key, *view.features)} == {"pseudonymous"}
    assert (view.ttl, view.sla.freshness) == (DAY, DAY)
    owners = [manifest.services[0].owner, view.owner, source.owner]
    assert owners == ["fleet@company.example"] * 3
    notes = [line.strip() for line in done.stdout.splitlines() if "note:" in line]
    assert notes == [
        "note: no description: 4 objects (driver, driver_stats_source, driver_hourly_stats and 1 more) and 3 features",
        "note: no promised freshness, so 24h: driver_hourly_stats",
        "note: no declared columns, so those of the views: driver_stats_source",
    ]


def test_a_key_without_a_type_takes_that_of_the_files(apply: Apply, tmp_path: Path) -> None:
    """As Feast does: it reads the Parquet schema, where there are files."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    instants = pa.array([0], pa.timestamp("us", "UTC"))
    columns = {"driver_id": pa.array([7], pa.int64()), "event_timestamp": instants, "created": instants}
    path = tmp_path / "stats.parquet"
    parquet.write_table(pa.table(columns), path)
    done = apply(entity="description='Somebody who drives.'", **{"driver_stats.parquet": str(path)})
    assert done.returncode == 0, done.stderr
    (entity,) = read_manifest(tmp_path / "state" / "manifest.json").entities
    assert str(entity.key.type) == "int64"


def test_a_key_whose_type_nothing_says_is_refused_with_the_fix(apply: Apply) -> None:
    done = apply(entity="description='Somebody who drives.'")
    assert done.returncode == 2, done.stdout
    assert (
        "Error: entity driver: its key has no type, and no source or view says it.\n"
        '  fix  Entity(name="driver", ..., value_type=ValueType.INT64) or STRING, as the column driver_id is.\n'
        "  in   feature_repo/drivers.py:10\n"
    ) in done.stderr


def test_a_project_without_owner_and_default_is_told_once_what_to_say(apply: Apply) -> None:
    done = apply(project='Project(name="drivers")')
    assert done.returncode == 2
    assert (
        "project drivers: it has no owner, and neither have view driver_hourly_stats, service driver_activity.\n"
        '  fix  Project(name="drivers", owner="team@company"), or owner= on each of them.\n'
        "  in   feature_repo/drivers.py:9\n"
    ) in done.stderr
    assert done.stderr.count("it has no owner") == 1
    assert "6 mistakes in the catalog." in done.stderr, "the project, the entity, four features"
    assert "entity driver: its key has no PII class." in done.stderr
    assert "Project(..., tags={" in done.stderr


def test_what_cannot_come_along_is_named_each_with_its_way_and_nothing_is_run(apply: Apply, tmp_path: Path) -> None:
    done = apply(_ON_DEMAND)
    assert done.returncode == 2
    assert "2 mistakes in the catalog." in done.stderr
    assert (
        "source driver_push: a source of type PUSH_SOURCE is not supported.\n"
        "  fix  Produce what is pushed to a topic, and declare it as a KafkaSource; or read its batch_source.\n"
    ) in done.stderr
    assert (
        "derived view transformed: its function is pickled by Feast and not named by an import path, "
        "so serving and training cannot share it.\n"
        "  fix  Move transformed to a module, over numpy columns instead of a DataFrame, and name it: "
        'derived_view(name="transformed", function="feature_repo.functions:transformed", '
        'inputs=[driver_hourly_stats[["acc_rate", "city", "conv_rate", "trips"]]], request=vals_to_add, '
        "schema=[...]).\n"
    ) in done.stderr
    assert "nobody runs this" not in done.stderr + done.stdout
    assert not (tmp_path / "state" / "manifest.json").exists()


def test_names_that_no_engine_would_take_are_refused_where_they_are_written(apply: Apply, tmp_path: Path) -> None:
    """Nothing else declares the columns of such a source: the names of its views become columns everywhere."""
    done = apply(acc_rate="acc__rate", city="Home City")
    assert done.returncode == 2, done.stdout
    for name in ("acc__rate", "Home City"):
        assert f"view driver_hourly_stats, field {name}: '{name}' cannot be a name." in done.stderr
    assert "Use lower-case letters, digits and single underscores" in done.stderr
    assert not (tmp_path / "state").exists()
