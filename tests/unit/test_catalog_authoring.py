"""Claims about the helpers that catalog files use, from the call to the manifest."""

from __future__ import annotations

import json
import warnings
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from coeval.spec.expressions import to_text
from coeval.spec.manifest import Manifest
from coeval.spec.model import Expected, WindowedView
from coeval_pipelines.catalog.compile import Compilation, compile_project
from coeval_pipelines.catalog.errors import Problem
from coeval_pipelines.catalog.locate import locate
from tests.support.fast_feast import import_feast

if TYPE_CHECKING:
    from feast import Entity, KafkaSource
    from feast.protos.feast.core.Registry_pb2 import Registry

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's own: it calls stream views experimental.

PROJECT = "shop"


@pytest.fixture(scope="module")
def at() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_feast()
        from coeval_pipelines.catalog import authoring
    return authoring


@pytest.fixture(scope="module")
def customer(at: Any) -> Entity:
    from feast import Entity, ValueType

    return Entity(
        name="customer", join_keys=["customer_id"], value_type=ValueType.INT64, owner="shop@company",
        description="A customer.", tags=at.entity_tags(pii="pseudonymous"),
    )  # fmt: skip


def _orders(at: Any, *more: Any) -> KafkaSource:
    from feast import FileSource, KafkaSource

    return KafkaSource(
        name="orders", topic="orders", timestamp_field="ordered_at", description="Orders.",
        message_format=at.json_events(
            at.column("event_id", "string", "Id.", pii="none", required=True),
            at.column("ordered_at", "timestamp", "When.", pii="none", required=True),
            at.column("customer_id", "int64", "Who.", pii="pseudonymous", required=True),
            at.column("amount", "decimal(9,2)", "Euros.", pii="pseudonymous", low="0.00", high="9999.00"),
            at.column("discount", "decimal(9,2)", "Euros off.", pii="none"),
            at.column("channel", "string", "Where.", pii="none", allowed=("web", "app")),
            *more,
        ),
        tags=at.event_tags(event_id="event_id"),
        batch_source=FileSource(name="orders_history", path="history/orders", timestamp_field="ordered_at"),
    )  # fmt: skip


def _registry(*objects: Any) -> Registry:
    from feast import Entity, FeatureService, StreamFeatureView
    from feast.data_source import DataSource
    from feast.protos.feast.core.Registry_pb2 import Registry

    homes = {Entity: "entities", StreamFeatureView: "stream_feature_views", FeatureService: "feature_services"}
    made = Registry()
    for item in objects:
        home = next((name for kind, name in homes.items() if isinstance(item, kind)), "data_sources")
        proto = item.to_proto()
        if isinstance(item, DataSource):
            proto.project = PROJECT
        else:
            proto.spec.project = PROJECT
        getattr(made, home).append(proto)
    project = made.projects.add()
    project.spec.name, project.spec.owner = PROJECT, "shop@company"
    return made


def _compiled(*objects: Any) -> Compilation:
    return compile_project(_registry(*objects), PROJECT)


def _sound(*objects: Any) -> Manifest:
    done = _compiled(*objects)
    assert done.problems == ()
    return done.manifest


def _view(customer: Entity, source: KafkaSource, asked: Any, **more: Any) -> Any:
    from feast import StreamFeatureView

    return StreamFeatureView(
        name="spend", description="Spend.", entities=[customer], source=source, timestamp_field="ordered_at",
        aggregations=asked.aggregations, schema=asked.schema, tags=more.pop("tags", {}) | asked.tags, **more,
    )  # fmt: skip


def test_a_view_aggregates_what_it_computes_of_the_events_it_chooses(at: Any, customer: Entity) -> None:
    orders = _orders(at)
    paid = [
        at.computed("paid", "amount - COALESCE(discount, 0)", "Euros paid.", pii="pseudonymous", low="0.00"),
        at.computed("paid_twice", "paid + paid", "Twice that.", pii="none"),
    ]
    asked = at.windowed(
        orders, at.of("paid", "sum", "max", per=("24h",)), at.of("paid_twice", "mean", per=("24h",)),
        where="channel = 'web' AND paid > 0", columns=paid,
    )  # fmt: skip
    view = _sound(customer, orders, _view(customer, orders, asked)).views["spend"]
    assert isinstance(view, WindowedView)
    types = {field.name: str(field.type) for field in view.features}
    assert types["mean_paid_twice_24h"] == "float64"
    computed = {item.field.name: item for item in view.columns}
    assert types["max_paid_24h"] == str(computed["paid"].field.type), "a chosen value has the column's type"
    assert computed["paid"].field.expected == Expected(low="0.00")
    expected = {field.name: field.expected for field in view.features}
    assert expected["max_paid_24h"] == Expected(low="0.00")
    assert expected["sum_paid_24h"] == Expected()
    # Every engine sees the columns of the source only: what is computed stands in the place of its name.
    assert view.where is not None
    assert view.where.columns == {"channel", "amount", "discount"}
    assert computed["paid_twice"].expression.columns == {"amount", "discount"}
    assert to_text(computed["paid"].expression) == "amount - COALESCE(discount, 0)"


def test_a_row_view_takes_computed_columns(at: Any, customer: Entity) -> None:
    from feast import StreamFeatureView

    orders = _orders(at)
    columns = [at.computed("is_web", "channel = 'web'", "Ordered on the web.", pii="none")]
    view = StreamFeatureView(
        name="latest", description="Latest.", entities=[customer], source=orders, ttl=timedelta(days=1),
        schema=at.take(orders, "amount", "is_web", columns=columns),
        tags=at.selection(where="amount IS NOT NULL", columns=columns),
    )  # fmt: skip
    found = _sound(customer, orders, view).views["latest"]
    assert [(field.name, str(field.type)) for field in found.features] == [
        ("amount", "decimal(9,2)"),
        ("is_web", "bool"),
    ]
    assert found.where is not None
    assert found.features[0].expected == Expected("0.00", "9999.00")


def test_text_and_order_of_columns_reach_the_version_and_nothing_said_of_them_does(at: Any, customer: Entity) -> None:
    orders = _orders(at)

    def version(*columns: Any, where: str = "") -> str:
        asked = at.windowed(orders, at.count(per=("24h",), pii="none"), where=where, columns=columns)
        return _sound(customer, orders, _view(customer, orders, asked)).views["spend"].version

    a, b = at.computed("a", "amount + 1", "A.", pii="none"), at.computed("b", "discount * 2", "B.", pii="none")
    assert version(a, b) == version(b, a)
    assert version(a) == version(at.computed("a", "amount+1", "Otherwise.", pii="sensitive", low="0.00"))
    assert len({version(), version(a), version(a, b), version(where="amount > 1"), version(where="amount > 2")}) == 5


def test_expected_values_and_deprecation_reach_the_manifest(at: Any, customer: Entity) -> None:
    from feast import FeatureService

    orders = _orders(at)
    asked = at.windowed(orders, at.of("amount", "sum", "max", per=("24h",)))
    view = _view(customer, orders, asked, tags=at.deprecated("Use spend_2."))
    old = FeatureService(name="old", features=[view], tags=at.deprecated("Use new."))
    manifest = _sound(customer, orders, view, old)
    assert manifest.views["spend"].deprecated == "Use spend_2."
    assert manifest.services[0].deprecated == "Use new."
    columns = {field.name: field.expected for field in manifest.event_sources[0].fields}
    assert columns["amount"] == Expected("0.00", "9999.00")
    assert columns["channel"] == Expected(allowed=("web", "app"))
    assert Manifest.from_json(manifest.to_json()) == manifest


def _where(done: Compilation) -> list[tuple[str, str]]:
    return [(problem.where, problem.what) for problem in done.problems]


def test_everything_wrong_with_columns_is_said_at_once(at: Any, customer: Entity) -> None:
    orders = _orders(
        at,
        at.column("price", "money", "Bad type.", pii="none"),
        at.column("rank", "int64", "Bad class.", pii="secret"),
        at.column("age", "int64", "Bad range.", pii="none", low=9, high=1),
        at.column("note", "int64", "Bad literal.", pii="none", allowed=("many",)),
    )
    asked = at.windowed(orders, at.of("amount", "sum", per=("24h",)), at.of("amont", "sum", per=("24h",)))
    assert _where(_compiled(customer, orders, _view(customer, orders, asked))) == [
        ("source orders, column price", "'money' is no type"),
        ("source orders, column rank", "'secret' is no PII class"),
        ("source orders, column age", "the least value expected, 9, is greater than the greatest, 1"),
        ("source orders, column note", "an expected value cannot be read: 'many' is not a literal of int64"),
    ]


def test_everything_wrong_with_a_view_is_said_at_once(at: Any, customer: Entity) -> None:
    orders = _orders(at)
    columns = [
        at.computed("amount", "1", "Taken.", pii="none"),
        at.computed("half", "amont / 2", "Misspelt.", pii="none"),
        at.computed("fine", "amount / 2", "Fine.", pii="none"),
    ]
    asked = at.windowed(
        orders,
        at.of("discont", "sum", per=("24h",)),
        at.of("channel", "sum", per=("24h", "30d")),
        at.of("discount", "max", per=("a day",)),
        at.of("half", "sum", per=("24h",)),
        columns=columns,
    )
    assert _where(_compiled(customer, orders, _view(customer, orders, asked))) == [
        ("view spend, field max_discount_a day", "'a day' is not a duration; write 90s, 5m, 24h or 30d"),
        ("view spend, field sum_channel", "sum takes int64, decimal or float64; channel is a string"),
        ("view spend, field sum_discont", "source orders has no column 'discont'"),
    ]
    fine = at.windowed(orders, at.of("half", "sum", per=("24h",)), columns=columns)
    assert _where(_compiled(customer, orders, _view(customer, orders, fine))) == [
        ("view spend, column amount", "the source has a column of that name"),
        ("view spend, column half", "there is no column amont"),
    ]


def test_what_hangs_on_something_broken_is_not_said_again(at: Any, customer: Entity) -> None:
    from feast import FeatureService

    orders = _orders(at, at.column("price", "money", "Bad type.", pii="none"))
    asked = at.windowed(orders, at.of("price", "sum", per=("24h",)))
    view = _view(customer, orders, asked)
    done = _compiled(customer, orders, view, FeatureService(name="risk", features=[view]))
    assert _where(done) == [("source orders, column price", "'money' is no type")]
    assert done.manifest.views == {}
    assert {name for _, name in done.defined} == {"spend", "risk"}, "broken is not removed"


@pytest.mark.parametrize("text", ["not json", "[]", '{"lo": "1"}'])
def test_a_tag_that_cannot_be_read_is_refused(at: Any, customer: Entity, text: str) -> None:
    orders = _orders(at)
    asked = at.windowed(orders, at.count(per=("24h",), pii="none"))
    asked.schema[0].tags["coeval.io/expected"] = text
    (problem,) = _compiled(customer, orders, _view(customer, orders, asked)).problems
    assert problem.where == "view spend, field count_24h, tag coeval.io/expected"


def test_columns_may_be_declared_by_hand(at: Any, customer: Entity) -> None:
    orders = _orders(at)
    asked = at.windowed(orders, at.count(per=("24h",), pii="none"))
    tags = {"coeval.io/columns": json.dumps({"x": {"sql": "amount * 2", "pii": "none"}}), "coeval.io/where": "x > 2"}
    view = _sound(customer, orders, _view(customer, orders, asked, tags=tags)).views["spend"]
    assert [item.field.name for item in view.columns] == ["x"]
    tags = {"coeval.io/columns": json.dumps({"x": {"expr": "amount * 2"}}), "coeval.io/where": "amount"}
    done = _compiled(customer, orders, _view(customer, orders, asked, tags=tags))
    assert _where(done) == [("view spend, column x", "it is not an object of sql, pii, description, expected")]


FILE = """
spend = StreamFeatureView(
    name="spend",
    schema=[
        Field(name="lat", dtype=Float64),
    ],
)
other = FeatureService(name="spend", features=[spend])
home = Entity(name="home")
asked = windowed(orders, where="amont > 1")


@on_demand_feature_view(sources=[])
def ratio(inputs):
    return inputs
"""


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (Problem("view spend", "", ""), "feature_repo/cards.py:2"),
        (Problem("view spend, field lat", "", ""), "feature_repo/cards.py:5"),
        (Problem("view spend, field long", "", ""), "feature_repo/cards.py:2"),
        (Problem("service spend", "", ""), "feature_repo/cards.py:8"),
        (Problem("entity home", "", ""), "feature_repo/cards.py:9"),
        (Problem("derived view ratio", "", ""), "feature_repo/cards.py:14"),
        (Problem("view spend, where", "", "", mark="amont > 1"), "feature_repo/cards.py:10"),
        (Problem("project shop", "", ""), "feature_repo/feature_store.yaml:1"),
        (Problem("view nobody", "", ""), ""),
    ],
)
def test_a_mistake_is_found_in_the_files(tmp_path: Path, problem: Problem, line: str) -> None:
    repository = tmp_path / "feature_repo"
    repository.mkdir()
    (repository / "feature_store.yaml").write_text("project: shop\n")
    (repository / "cards.py").write_text(FILE)
    (repository / "broken.py").write_text("this is no Python")
    assert locate(repository, problem) == line
