"""Claims about the compilation of a Feast registry to the manifest, over registries built from Feast's own objects."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from coeval.spec.manifest import Manifest
from coeval.spec.model import Aggregate, EventSource, Field, WindowedView
from coeval.spec.time import DAY, HOUR, MINUTE
from coeval.spec.types import INT64, STRING, TIMESTAMP, DataType, Kind
from coeval_pipelines.catalog.compile import compile_project
from coeval_pipelines.catalog.errors import BrokenCatalogError
from tests.support.fast_feast import import_feast

if TYPE_CHECKING:
    from feast.protos.feast.core.Registry_pb2 import Registry

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's own: it calls stream views experimental.

PROJECT = "bank"
MONEY = DataType(Kind.DECIMAL, 9, 2)


@pytest.fixture(scope="module")
def built() -> Registry:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_feast()
        return _build()


@pytest.fixture
def registry(built: Registry) -> Registry:
    copy = type(built)()
    copy.CopyFrom(built)
    return copy


def _build() -> Registry:
    from feast import (
        Entity,
        FeatureService,
        FeatureView,
        FileSource,
        KafkaSource,
        RequestSource,
        StreamFeatureView,
        ValueType,
    )
    from feast.protos.feast.core.Registry_pb2 import Registry

    from coeval_pipelines.catalog import authoring as at

    card = Entity(
        name="card", join_keys=["card_id"], value_type=ValueType.INT64, description="A card.", owner="cards@bank",
        tags=at.entity_tags(pii="pseudonymous"),
    )  # fmt: skip
    shop = Entity(
        name="shop", join_keys=["shop_id"], value_type=ValueType.STRING, description="A shop.", owner="shops@bank",
        tags=at.entity_tags(pii="none"),
    )  # fmt: skip
    payments = KafkaSource(
        name="payments", topic="payments.v1", timestamp_field="paid_at", description="Payments.", owner="cards@bank",
        message_format=at.json_events(
            at.column("payment_id", "string", "Id.", pii="pseudonymous", required=True),
            at.column("paid_at", "timestamp", "When.", pii="none", required=True),
            at.column("card_id", "int64", "Card.", pii="pseudonymous", required=True),
            at.column("shop_id", "string", "Shop.", pii="none", required=True),
            at.column("amount", "decimal(9,2)", "Euros.", pii="pseudonymous"),
            at.column("items", "int64", "Items.", pii="none"),
            at.column("note", "string", "Free text.", pii="personal"),
        ),
        tags=at.event_tags(event_id="payment_id", max_future_skew="1m"),
        watermark_delay_threshold=timedelta(minutes=2),
        batch_source=FileSource(name="payments_history", path="history/payments", timestamp_field="paid_at"),
    )  # fmt: skip
    owners = FileSource(
        name="owners", path="owners.parquet", timestamp_field="since", created_timestamp_column="loaded",
        description="Card owners.", owner="crm@bank",
        tags=at.batch_tags(
            at.column("card_id", "int64", "Card.", pii="pseudonymous", required=True),
            at.column("since", "timestamp", "From when.", pii="none", required=True),
            at.column("loaded", "timestamp", "When known.", pii="none"),
            at.column("city", "string", "Home.", pii="personal"),
        ),
    )  # fmt: skip
    spend_parts = at.windowed(
        payments, at.of("amount", "sum", "avg", per=("24h", "30d")), at.count(per=("1h",), pii="pseudonymous"),
        at.of("items", "sum", "max", per=("7d",)),
    )  # fmt: skip
    spend = StreamFeatureView(
        name="card_spend", entities=[card], source=payments, timestamp_field="paid_at", description="Spend.",
        owner="risk@bank", aggregations=spend_parts.aggregations, schema=spend_parts.schema,
        tags=at.sla("10s", p99_ms=20, availability=0.99, tolerated={"late": 0.01, "late 24h": 0.2}, partitions=4),
    )  # fmt: skip
    pair_parts = at.windowed(payments, at.count(per=("7d",), pii="pseudonymous"))
    pair = StreamFeatureView(
        name="card_shop", entities=[shop, card], source=payments, timestamp_field="paid_at", description="Pair.",
        owner="risk@bank", aggregations=pair_parts.aggregations, schema=pair_parts.schema, tags=at.sla("1h"),
    )  # fmt: skip
    latest = StreamFeatureView(
        name="latest_payment", entities=[card], source=payments, ttl=timedelta(days=3), description="Latest.",
        owner="risk@bank", schema=at.take(payments, "shop_id", "amount"), tags=at.sla("10s"),
    )  # fmt: skip
    home = FeatureView(
        name="owner_home", entities=[card], source=owners, ttl=timedelta(0), description="Home.", owner="crm@bank",
        schema=at.take(owners, "city"), tags=at.sla("7d"),
    )  # fmt: skip
    till = RequestSource(name="till", schema=[at.feature("basket", "decimal(9,2)", "Basket.", pii="none")])
    unusual = at.derived_view(
        name="unusual", description="Unusual.", owner="risk@bank", function="bank.functions:unusual",
        inputs=[spend[["sum_amount_30d", "avg_amount_24h"]]], request=till,
        schema=[at.feature("ratio", "float64", "Ratio.", pii="none")],
    )  # fmt: skip
    risk = FeatureService(
        name="risk", features=[spend[["sum_amount_24h", "count_1h"]], pair, home, unusual], description="Risk.",
        owner="risk@bank",
    )  # fmt: skip
    made = Registry()
    made.entities.extend([card.to_proto(), shop.to_proto()])
    sources: list[Any] = [payments, payments.batch_source, owners, till]
    made.data_sources.extend(source.to_proto() for source in sources)
    made.stream_feature_views.extend(view.to_proto() for view in (spend, pair, latest))
    made.feature_views.append(home.to_proto())
    made.on_demand_feature_views.append(unusual.to_proto())
    made.feature_services.append(risk.to_proto())
    for source in made.data_sources:
        source.project = PROJECT
    for item in _specified(made):
        item.spec.project = PROJECT
    return made


def _specified(registry: Registry) -> list[Any]:
    return [
        *registry.entities,
        *registry.stream_feature_views,
        *registry.feature_views,
        *registry.on_demand_feature_views,
        *registry.feature_services,
    ]


def _compiled(registry: Registry) -> Manifest:
    done = compile_project(registry, PROJECT)
    if done.problems:
        raise BrokenCatalogError(done.problems)
    return done.manifest


def _named(items: Any, name: str) -> Any:
    return next(item.spec for item in items if item.spec.name == name)


def _spend(registry: Registry) -> Any:
    return _named(registry.stream_feature_views, "card_spend")


def _payments(registry: Registry) -> Any:
    return next(source for source in registry.data_sources if source.name == "payments")


def _field(spec: Any, name: str) -> Any:
    return next(field for field in spec.features if field.name == name)


def test_an_event_source_keeps_columns_identity_times_and_history(registry: Registry) -> None:
    assert _compiled(registry).event_sources == (
        EventSource(
            name="payments",
            topic="payments.v1",
            fields=(
                Field("payment_id", STRING, False, "Id.", "pseudonymous"),
                Field("paid_at", TIMESTAMP, False, "When.", "none"),
                Field("card_id", INT64, False, "Card.", "pseudonymous"),
                Field("shop_id", STRING, False, "Shop.", "none"),
                Field("amount", MONEY, True, "Euros.", "pseudonymous"),
                Field("items", INT64, True, "Items.", "none"),
                Field("note", STRING, True, "Free text.", "personal"),
            ),
            event_id="payment_id",
            event_ts="paid_at",
            max_future_skew=MINUTE,
            allowed_lateness=2 * MINUTE,
            history="history/payments",
            description="Payments.",
            owner="cards@bank",
        ),
    )


def test_an_event_source_says_who_drops_duplicates_and_how_many_events_to_expect(registry: Registry) -> None:
    _payments(registry).tags.update({"coeval.io/dedup": "off", "coeval.io/expected-rate": "250.0"})
    (source,) = _compiled(registry).event_sources
    assert (source.dedup, source.expected_rate) == (False, 250.0)


def test_a_batch_source_keeps_its_path_and_both_times(registry: Registry) -> None:
    (owners,) = _compiled(registry).batch_sources
    assert (owners.path, owners.format, owners.event_ts, owners.available_at) == (
        "owners.parquet",
        "parquet",
        "since",
        "loaded",
    )


def test_a_windowed_view_has_its_aggregates_in_canonical_order_with_hops_and_result_types(registry: Registry) -> None:
    view = _compiled(registry).views["card_spend"]
    assert isinstance(view, WindowedView)
    assert view.aggregates == (
        Aggregate("count_1h", "count", "", HOUR, 5 * MINUTE),
        Aggregate("max_items_7d", "max", "items", 7 * DAY, HOUR),
        Aggregate("avg_amount_24h", "mean", "amount", DAY, HOUR),
        Aggregate("avg_amount_30d", "mean", "amount", 30 * DAY, DAY),
        Aggregate("sum_amount_24h", "sum", "amount", DAY, HOUR),
        Aggregate("sum_amount_30d", "sum", "amount", 30 * DAY, DAY),
        Aggregate("sum_items_7d", "sum", "items", 7 * DAY, HOUR),
    )
    types = {field.name: str(field.type) for field in view.features}
    assert types["sum_amount_24h"] == "decimal(38,2)"
    assert types["sum_items_7d"] == "int64"
    assert types["avg_amount_24h"] == "float64"
    assert view.partitions == 4
    assert (view.sla.freshness, view.sla.p99_ms, view.sla.availability, view.sla.late_share) == (
        10_000_000,
        20,
        0.99,
        0.2,
    )


def test_a_pair_is_keyed_in_the_order_of_its_entities(registry: Registry) -> None:
    view = _compiled(registry).views["card_shop"]
    assert [(field.name, str(field.type), field.nullable) for field in view.key] == [
        ("shop_id", "string", False),
        ("card_id", "int64", False),
    ]


def test_a_feature_without_a_name_is_named_by_function_column_and_window(registry: Registry) -> None:
    spec = _spend(registry)
    for aggregation in spec.aggregations:
        if aggregation.name == "sum_items_7d":
            aggregation.name = ""
    assert "sum_items_7d" in {field.name for field in _compiled(registry).views["card_spend"].features}


def test_rows_know_their_ttl_and_whether_they_stream(registry: Registry) -> None:
    views = {view.name: view for view in _compiled(registry).row_views}
    assert (views["latest_payment"].stream, views["latest_payment"].ttl) == (True, 3 * DAY)
    assert (views["owner_home"].stream, views["owner_home"].ttl) == (False, 0)
    assert [field.name for field in views["latest_payment"].features] == ["amount", "shop_id"]


def test_a_derived_view_names_its_function_and_its_inputs(registry: Registry) -> None:
    (view,) = _compiled(registry).derived_views
    assert view.function == "bank.functions:unusual"
    assert [ref.full_name for ref in view.inputs] == ["card_spend__avg_amount_24h", "card_spend__sum_amount_30d"]
    assert [(field.name, field.type) for field in view.request] == [("basket", MONEY)]


def test_a_service_names_the_versions_of_what_it_takes(registry: Registry) -> None:
    manifest = _compiled(registry)
    (service,) = manifest.services
    assert [(item.view, item.features) for item in service.views] == [
        ("card_spend", ("count_1h", "sum_amount_24h")),
        ("card_shop", ("count_7d",)),
        ("owner_home", ("city",)),
    ]
    assert {item.view: item.version for item in service.views} == {
        name: manifest.views[name].version for name in ("card_spend", "card_shop", "owner_home")
    }
    assert [(item.view, item.version, item.features) for item in service.derived] == [("unusual", "", ("ratio",))]


def test_no_pickled_function_is_in_the_registry_and_none_is_needed(registry: Registry) -> None:
    spec = _named(registry.on_demand_feature_views, "unusual")
    assert spec.feature_transformation.user_defined_function.body == b""
    spec.feature_transformation.user_defined_function.body = b"cos\nsystem\n(S'exit 1'\ntR."
    assert _compiled(registry).derived_views


def test_the_manifest_survives_its_json(registry: Registry) -> None:
    manifest = _compiled(registry)
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_a_registry_does_not_reach_the_manifest(registry: Registry, seed: int) -> None:
    expected = _compiled(registry).to_json()
    shuffle = random.Random(seed).shuffle
    for name in ("entities", "data_sources", "stream_feature_views", "feature_views"):
        _shuffle(getattr(registry, name), shuffle)
    for view in (*registry.stream_feature_views, *registry.feature_views):
        _shuffle(view.spec.features, shuffle)
    for view in registry.stream_feature_views:
        _shuffle(view.spec.aggregations, shuffle)
    assert _compiled(registry).to_json() == expected


def _shuffle(repeated: Any, shuffle: Callable[[list[Any]], None]) -> None:
    items = [type(item).FromString(item.SerializeToString()) for item in repeated]
    shuffle(items)
    del repeated[:]
    repeated.extend(items)


_IN_A_CHILD = """
import sys, types
from importlib.util import find_spec
stub = types.ModuleType("feast")
stub.__path__ = list(find_spec("feast").submodule_search_locations)
sys.modules["feast"] = stub  # the protos alone: Feast itself takes seconds to import
from feast.protos.feast.core.Registry_pb2 import Registry
from coeval_pipelines.catalog.compile import compile_project
registry = Registry.FromString(open(sys.argv[1], "rb").read())
print(compile_project(registry, sys.argv[2]).manifest.hash)
assert "feast.feature_store" not in sys.modules and "dill" not in sys.modules
"""


def test_the_hash_depends_on_no_hash_seed_and_compiling_imports_no_feast(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.write_bytes(registry.SerializeToString())
    command = [sys.executable, "-W", "ignore", "-c", _IN_A_CHILD, str(path), PROJECT]
    paths = os.pathsep.join(item for item in sys.path if item)
    hashes = {
        subprocess.run(
            command,
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": paths},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert hashes == {_compiled(registry).hash}


def _set(name: str, value: object) -> Callable[[Any], None]:
    return lambda spec: setattr(spec, name, value)


def _tag(tag: str, value: str) -> Callable[[Any], None]:
    return lambda spec: spec.tags.update({tag: value})


@pytest.mark.parametrize(
    "edit",
    [
        _set("description", "Said otherwise."),
        _set("owner", "others@bank"),
        _tag("coeval.io/sla-freshness", "1h"),
        _tag("coeval.io/tolerated", "late=0.5"),
        lambda spec: _field(spec, "count_1h").tags.update({"coeval.io/pii": "sensitive"}),
        lambda spec: setattr(_field(spec, "count_1h"), "description", "Said otherwise."),
    ],
    ids=["description", "owner", "freshness", "tolerated", "pii", "field description"],
)
def test_what_changes_no_value_changes_the_manifest_and_no_version(registry: Registry, edit: Any) -> None:
    before = _compiled(registry)
    edit(_spend(registry))
    after = _compiled(registry)
    assert after.hash != before.hash
    assert {name: view.version for name, view in after.views.items()} == {
        name: view.version for name, view in before.views.items()
    }


def _longer(spec: Any) -> None:
    spec.aggregations[0].time_window.seconds = 2 * 86_400
    spec.aggregations[0].slide_interval.seconds = 2 * 86_400


def _slide(spec: Any) -> None:
    spec.aggregations[0].slide_interval.seconds = 2 * 3600


def _reverse_keys(spec: Any) -> None:
    names = list(spec.entities)[::-1]
    del spec.entities[:]
    spec.entities.extend(names)


@pytest.mark.parametrize(
    ("view", "edit"),
    [
        ("card_spend", _longer),
        ("card_spend", _slide),
        ("card_spend", _tag("coeval.io/partitions", "16")),
        ("card_shop", _reverse_keys),
        ("latest_payment", lambda spec: setattr(spec.ttl, "seconds", 60)),
    ],
    ids=["window", "slide", "partitions", "key order", "ttl"],
)
def test_what_changes_values_changes_the_version_of_that_view_alone(registry: Registry, view: str, edit: Any) -> None:
    before = _compiled(registry).views
    edit(_named(registry.stream_feature_views, view))
    after = _compiled(registry).views
    assert {name for name in before if before[name].version != after[name].version} == {view}


def test_where_the_files_are_changes_no_version(registry: Registry) -> None:
    before = _compiled(registry).views
    _payments(registry).batch_source.file_options.uri = "elsewhere"
    assert {name: view.version for name, view in _compiled(registry).views.items()} == {
        name: view.version for name, view in before.items()
    }


def _rewrite_column(name: str, **said: Any) -> Callable[[Registry], None]:
    def edit(registry: Registry) -> None:
        form = _payments(registry).kafka_options.message_format.json_format
        document = json.loads(form.schema_json)
        document["properties"][name].update(said)
        form.schema_json = json.dumps(document)

    return edit


def _optional_column(name: str) -> Callable[[Registry], None]:
    def edit(registry: Registry) -> None:
        form = _payments(registry).kafka_options.message_format.json_format
        document = json.loads(form.schema_json)
        document["required"].remove(name)
        form.schema_json = json.dumps(document)

    return edit


def _rename_column(old: str, new: str) -> Callable[[Registry], None]:
    def edit(registry: Registry) -> None:
        form = _payments(registry).kafka_options.message_format.json_format
        form.schema_json = form.schema_json.replace(f'"{old}"', f'"{new}"')

    return edit


def _view(edit: Callable[[Any], object], name: str = "card_spend") -> Callable[[Registry], object]:
    return lambda registry: edit(_named(registry.stream_feature_views, name))


def _drop_tag(tag: str) -> Callable[[Any], object]:
    return lambda item: item.tags.pop(tag)


def _first(name: str, value: object) -> Callable[[Any], None]:
    return lambda spec: setattr(spec.aggregations[0], name, value)


def _take(registry: Registry, name: str) -> None:
    _named(registry.feature_services, "risk").features[0].feature_columns.add(name=name)


def _request(registry: Registry) -> Any:
    sources = _named(registry.on_demand_feature_views, "unusual").sources
    return sources["till"].request_data_source.request_data_options.schema[0]


def _no_function(registry: Registry) -> None:
    _named(registry.on_demand_feature_views, "unusual").tags.clear()


BROKEN: dict[str, tuple[Callable[[Registry], object], str, str]] = {
    "misspelt tag": (
        _view(_tag("coeval.io/sla-freshnes", "10s")),
        "view card_spend, tag coeval.io/sla-freshnes: it is not known on a view",
        "Did you mean coeval.io/sla-freshness?",
    ),
    "tag on the wrong kind": (
        _view(_tag("coeval.io/event-id", "x")),
        "view card_spend, tag coeval.io/event-id: it is not known",
        "It belongs on the event source",
    ),
    "dedup neither on nor off": (
        lambda registry: _payments(registry).tags.update({"coeval.io/dedup": "no"}),
        "source payments, tag coeval.io/dedup: it cannot be read: 'no' is neither on nor off",
        "Correct its value",
    ),
    "expected rate of nothing": (
        lambda registry: _payments(registry).tags.update({"coeval.io/expected-rate": "0"}),
        "source payments, tag coeval.io/expected-rate: it cannot be read: 0 is no number of events a second",
        "Correct its value",
    ),
    "unreadable tag": (
        _view(_tag("coeval.io/sla-freshness", "soon")),
        "view card_spend, tag coeval.io/sla-freshness: it cannot be read: 'soon' is not a duration",
        "Correct its value",
    ),
    "a cause that is never tolerated": (
        _view(_tag("coeval.io/tolerated", "ttl=0.1")),
        "view card_spend, tag coeval.io/tolerated: it cannot be read: 'ttl' is never tolerated",
        "Correct its value",
    ),
    "a share that is none": (
        _view(_tag("coeval.io/tolerated", "late 24h=2")),
        "view card_spend, tag coeval.io/tolerated: it cannot be read: 'late 24h=2': 2 is not a share between 0 and 1",
        "Correct its value",
    ),
    "tolerated twice": (
        _view(_tag("coeval.io/tolerated", "late=0.1, late=0.2")),
        "view card_spend, tag coeval.io/tolerated: it cannot be read: 'late=0.1, late=0.2' says one thing twice",
        "Correct its value",
    ),
    "tolerated in no window": (
        _view(_tag("coeval.io/tolerated", "late 2h=0.1")),
        "view card_spend, tag coeval.io/tolerated: it tolerates late in windows of 2h, and has none",
        "Its windows are 1h, 24h, 7d, 30d",
    ),
    "no pii class": (
        _view(lambda spec: _field(spec, "count_1h").tags.clear()),
        "view card_spend, field count_1h: it has no PII class",
        "coeval.io/pii",
    ),
    "unknown pii class": (
        _view(lambda spec: _field(spec, "count_1h").tags.update({"coeval.io/pii": "secret"})),
        "view card_spend, field count_1h, tag coeval.io/pii: it cannot be read: 'secret' is no PII class",
        "Correct",
    ),
    "unknown aggregation": (
        _view(_first("function", "mode")),
        "view card_spend, feature sum_amount_24h: mode is not an aggregation; known are count",
        "the functions are count, sum",
    ),
    "aggregation of a later release": (
        _view(_first("function", "count_distinct")),
        "view card_spend, feature sum_amount_24h: count_distinct is not supported yet: it needs a mergeable sketch",
        "Ask for another function",
    ),
    "sum of text": (
        _view(_first("column", "note")),
        "view card_spend, feature sum_amount_24h: sum takes int64, decimal or float64; note is a string",
        "another function or column",
    ),
    "unknown column": (
        _view(_first("column", "amout")),
        "view card_spend, feature sum_amount_24h: in source payments, the column 'amout' is not one of its columns",
        "amount",
    ),
    "window without length": (
        _view(lambda spec: spec.aggregations[0].ClearField("time_window")),
        "view card_spend: sum(amount) has no window",
        "time_window=",
    ),
    "too many tiles": (
        _view(lambda spec: setattr(spec.aggregations[0].slide_interval, "seconds", 60)),
        "view card_spend, feature sum_amount_24h: a window of 24h would need 1440 tiles",
        "slide_interval=",
    ),
    "output that nobody described": (
        _view(lambda spec: spec.features.remove(_field(spec, "count_1h"))),
        "view card_spend, feature count_1h: it has no field in schema",
        "schema=windowed(...).schema",
    ),
    "field that nothing gives": (
        _view(lambda spec: setattr(_field(spec, "count_1h"), "name", "count_1hour")),
        "view card_spend, feature count_1h: it has no field in schema",
        'name="count_1h"',
    ),
    "ttl of a windowed view": (
        _view(lambda spec: setattr(spec.ttl, "seconds", 5)),
        "view card_spend: a windowed view has no ttl",
        "Remove ttl=",
    ),
    "decimal of unknown size": (
        _view(lambda spec: _field(spec, "amount").tags.pop("coeval.io/type"), "latest_payment"),
        "view latest_payment, field amount: it is a decimal of unknown size",
        "decimal(9,2)",
    ),
    "another type than the source's": (
        _view(lambda spec: _field(spec, "amount").tags.update({"coeval.io/type": "decimal(9,3)"}), "latest_payment"),
        "view latest_payment, field amount: it is a decimal(9,3), and a decimal(9,2) in source payments",
        'take(payments, "amount"',
    ),
    "decimal too wide": (
        _rewrite_column("amount", format="decimal(39,2)"),
        "source payments, column amount: decimal(39,2) needs 0 < precision <= 38",
        "decimal(9,2)",
    ),
    "unknown column type": (
        _rewrite_column("amount", format="money"),
        "source payments, column amount: the type 'string' with format 'money' is not known",
        "decimal(p,s)",
    ),
    "key that may be null": (
        _optional_column("card_id"),
        "source payments, key card_id: it may be null, and a key (of entity card) cannot",
        "required=True",
    ),
    "event time that may be null": (
        _optional_column("paid_at"),
        "source payments, column paid_at: the time column may be null",
        "required=True",
    ),
    "event id that may be null": (
        _optional_column("payment_id"),
        "source payments, column payment_id: the event id may be null",
        "required=True",
    ),
    "key of another type": (
        _rewrite_column("card_id", type="string", format=""),
        "source payments, key card_id: entity card says that it is int64, and the source string",
        "value_type",
    ),
    "column named as one of the log's": (
        _rename_column("items", "offset"),
        "source payments, column offset: every event of the log has a column of that name",
        "Rename it",
    ),
    "no topic": (
        lambda registry: setattr(_payments(registry).kafka_options, "topic", ""),
        "source payments: it names no topic",
        'topic="payments"',
    ),
    "name that engines read in two ways": (
        _view(_set("name", "card__spend")),
        "view card__spend: 'card__spend' cannot be a name",
        "single underscores",
    ),
    "column in two cases": (
        _rename_column("note", "Note"),
        "source payments: 'Note' cannot be a name",
        "lower-case",
    ),
    "request input named as a key": (
        lambda registry: setattr(_request(registry), "name", "card_id"),
        "service risk, input card_id: it is a key",
        "Rename it",
    ),
    "pinned version": (_view(_set("version", "v2")), "view card_spend: a pinned version (v2)", "Remove version="),
    "one tile size for all": (
        _view(lambda spec: setattr(spec.tiling_hop_size, "seconds", 300)),
        "view card_spend: tiles follow the hop of each window",
        "slide_interval=",
    ),
    "no event id": (
        lambda registry: _payments(registry).tags.pop("coeval.io/event-id"),
        "source payments: it names no event id",
        "event_tags(",
    ),
    "service of an unknown feature": (
        lambda registry: _take(registry, "sum_amount_12h"),
        "service risk, feature card_spend:sum_amount_12h: it is not defined",
        "Did you mean sum_amount_",
    ),
    "service of an unknown view": (
        lambda registry: setattr(
            _named(registry.feature_services, "risk").features[1], "feature_view_name", "card_shops"
        ),
        "service risk: its view card_shops is not defined",
        "Did you mean card_shop?",
    ),
    "function without an import path": (
        _no_function,
        "derived view unusual: its function is pickled by Feast and not named by an import path",
        "derived_view(",
    ),
}


@pytest.mark.parametrize(("edit", "reason", "fix"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_catalog_is_refused_with_object_field_and_fix(
    registry: Registry, edit: Callable[[Registry], object], reason: str, fix: str
) -> None:
    edit(registry)
    with pytest.raises(BrokenCatalogError) as caught:
        _compiled(registry)
    problem = caught.value.problems[0]
    assert f"{problem.where}: {problem.what}".startswith(reason)
    assert fix in problem.fix
    assert caught.value.exit_code == 2


def test_an_error_names_the_object_and_the_part_whose_line_is_to_be_found(registry: Registry) -> None:
    _spend(registry).aggregations[0].function = "median"
    (problem,) = compile_project(registry, PROJECT).problems
    assert (problem.kind, problem.subject, problem.part) == ("view", "card_spend", "sum_amount_24h")


def test_other_projects_of_the_registry_are_left_out(registry: Registry) -> None:
    for item in _specified(registry):
        item.spec.project = "other"
    for source in registry.data_sources:
        source.project = "other"
    assert _compiled(registry) == Manifest(PROJECT, PROJECT)


def test_a_tenant_is_a_tag_of_the_project(registry: Registry) -> None:
    project = registry.projects.add()
    project.spec.name = PROJECT
    project.spec.tags["coeval.io/tenant"] = "acme"
    compiled = _compiled(registry)
    assert (compiled.project, compiled.tenant) == (PROJECT, "acme")


@pytest.mark.parametrize(("name", "kind"), [("card_spend", "view"), ("unusual", "derived view")])
def test_a_service_has_a_name_of_its_own(registry: Registry, name: str, kind: str) -> None:
    registry.feature_services[0].spec.name = name
    done = compile_project(registry, PROJECT)
    assert [(item.where, item.what) for item in done.problems] == [
        (f"service {name}", f"a {kind} has the same name"),
    ]
    assert done.problems[0].fix.startswith("Give it another name")
    assert {(kind, name), ("service", name)} <= done.defined
