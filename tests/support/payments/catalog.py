"""The payments catalog: three event sources, views of every kind over them. Pure values, typed by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

from coeval.aggregations import AGGREGATIONS
from coeval.spec.expressions import column, literal
from coeval.spec.manifest import Manifest, with_version
from coeval.spec.model import (
    Aggregate,
    Computed,
    Entity,
    EventSource,
    FeatureService,
    Field,
    RowView,
    ServiceView,
    View,
    WindowedView,
)
from coeval.spec.operations import typed
from coeval.spec.time import DAY, HOUR, duration, hop_of
from coeval.spec.types import BOOL, FLOAT64, INT64, STRING, TIMESTAMP, DataType

MONEY = DataType.parse("decimal(12,2)")
CARD = Field("card_id", INT64, nullable=False)
MERCHANT = Field("merchant_id", STRING, nullable=False)
COUNTRY = Field("country", STRING, nullable=False)
_ENVELOPE = (Field("event_id", STRING, nullable=False), Field("occurred_at", TIMESTAMP, nullable=False))

PAYMENTS = EventSource(
    name="payments",
    topic="payments",
    fields=(
        *_ENVELOPE,
        CARD,
        MERCHANT,
        COUNTRY,
        Field("amount", MONEY),
        Field("currency", STRING),
        Field("is_online", BOOL),
        Field("items", INT64),
        Field("note", STRING),
    ),
    event_id="event_id",
    event_ts="occurred_at",
)
REFUNDS = EventSource(
    name="refunds",
    topic="refunds",
    fields=(*_ENVELOPE, CARD, Field("payment_id", STRING, nullable=False), Field("amount", MONEY)),
    event_id="event_id",
    event_ts="occurred_at",
)
SCORES = EventSource(
    name="anomaly_scores",
    topic="anomaly_scores",
    fields=(*_ENVELOPE, CARD, Field("score", FLOAT64), Field("model", STRING)),
    event_id="event_id",
    event_ts="occurred_at",
)
SOURCES = (PAYMENTS, REFUNDS, SCORES)
"""In the order in which the generator numbers them."""

_SPEND = ("count", "sum", "mean", "min", "max", "stddev")
ViewSet: TypeAlias = Literal[1, 3, 10, "all"] | tuple[str, ...]


def _aggregate(source: EventSource, function: str, name: str, window: int) -> tuple[Aggregate, Field]:
    # A week by days, so that there are three granularities: 5 minutes, an hour, a day.
    hop = hop_of(window, DAY)
    feature = f"{function}_{name}_{duration(window)}" if name else f"{function}_{duration(window)}"
    read = source.field(name).type if name else None
    return Aggregate(feature, function, name, window, hop), Field(feature, AGGREGATIONS[function].result(read))


def _windowed(
    name: str, source: EventSource, key: tuple[Field, ...], functions: tuple[str, ...], of: str, *windows: int
) -> WindowedView:
    """Functions over one column, each over every window; a count is of events."""
    made = [_aggregate(source, item, "" if item == "count" else of, window) for window in windows for item in functions]
    entities = tuple(field.name.removesuffix("_id") for field in key)
    aggregates, features = tuple(item for item, _ in made), tuple(item for _, item in made)
    return WindowedView(name, entities, key, source.name, aggregates, features)


def _latest(name: str, source: EventSource, key: tuple[Field, ...], *names: str) -> RowView:
    entities = tuple(field.name.removesuffix("_id") for field in key)
    return RowView(name, entities, key, source.name, tuple(source.field(item) for item in names), stream=True)


_AMOUNT, _ONLINE = column("amount", MONEY), column("is_online", BOOL)
CARD_SPEND = _windowed("card_spend", PAYMENTS, (CARD,), _SPEND, "amount", HOUR, DAY, 7 * DAY)
CARD_MERCHANT = _windowed("card_merchant", PAYMENTS, (CARD, MERCHANT), ("count", "sum", "last"), "amount", DAY, 7 * DAY)
LATEST_PAYMENT = _latest("latest_payment", PAYMENTS, (CARD,), "merchant_id", "country", "amount", "is_online", "note")


def _large() -> WindowedView:
    """Payments of at least 100, and how far they are above it."""
    above = typed("sub", _AMOUNT, literal(MONEY, "100.00"))
    excess = Computed(Field("excess", above.type), above)
    aggregate, feature = Aggregate("sum_excess_24h", "sum", "excess", DAY, HOUR), DataType.parse("decimal(38,2)")
    large = typed("ge", _AMOUNT, literal(MONEY, "100.00"))
    features = (Field(aggregate.feature, feature),)
    return WindowedView("card_large", ("card",), (CARD,), "payments", (aggregate,), features, 8, large, (excess,))


MERCHANT_ONLINE = replace(
    _windowed("merchant_online", PAYMENTS, (MERCHANT,), ("count", "sum", "mean", "max"), "amount", HOUR, DAY),
    where=_ONLINE,
)
CARD_REFUNDS = _windowed("card_refunds", REFUNDS, (CARD,), ("count", "sum"), "amount", DAY, 7 * DAY)
CARD_ANOMALY = _windowed("card_anomaly", SCORES, (CARD,), ("count", "mean", "max", "last"), "score", HOUR, DAY)
LATEST_SCORE = _latest("latest_score", SCORES, (CARD,), "score", "model")

_OF_PAYMENTS: tuple[View, ...] = (
    CARD_SPEND,
    CARD_MERCHANT,
    LATEST_PAYMENT,
    MERCHANT_ONLINE,
    _windowed("merchant_spend", PAYMENTS, (MERCHANT,), ("count", "sum", "mean"), "amount", HOUR, DAY),
    _windowed("country_spend", PAYMENTS, (COUNTRY,), ("count", "sum", "max"), "amount", HOUR, DAY),
    _windowed("card_country", PAYMENTS, (CARD, COUNTRY), ("count", "sum"), "amount", DAY),
    _large(),
    _windowed("card_items", PAYMENTS, (CARD,), ("sum", "mean", "max"), "items", DAY),
    _latest("latest_at_merchant", PAYMENTS, (MERCHANT,), "card_id", "amount"),
)
"""Views over one topic; a benchmark takes the first one, three or ten."""
_OF_ALL_SOURCES: tuple[View, ...] = (*_OF_PAYMENTS[:4], CARD_REFUNDS, CARD_ANOMALY, LATEST_SCORE)


def manifest(views: ViewSet = "all", tenant: str = "payments", topic_prefix: str = "", partitions: int = 8) -> Manifest:
    """One, three or ten views over the payments, or seven over all three sources ("all"), or those of these names.

    Topics are named `topic_prefix` + the source's name; `partitions` are those of the changelogs. A source of which no
    view is chosen is left out. The service `risk` holds every feature.
    """
    chosen = _chosen(views)
    sources = {item.name: _on_topic(item, topic_prefix) for item in SOURCES}
    made = [_with_partitions(view, partitions, sources[view.source]) for view in chosen]
    used = {view.source for view in made}
    return Manifest(
        project=tenant,
        tenant=tenant,
        entities=(Entity("card", CARD), Entity("country", COUNTRY), Entity("merchant", MERCHANT)),
        event_sources=tuple(sources[name] for name in sorted(used)),
        windowed_views=tuple(sorted((v for v in made if isinstance(v, WindowedView)), key=lambda view: view.name)),
        row_views=tuple(sorted((v for v in made if isinstance(v, RowView)), key=lambda view: view.name)),
        services=(FeatureService("risk", tuple(_all_features(view) for view in made)),),
    )


def _chosen(views: ViewSet) -> tuple[View, ...]:
    if views == "all":
        return _OF_ALL_SOURCES
    if isinstance(views, int):
        return _OF_PAYMENTS[:views]
    known = {view.name: view for view in (*_OF_PAYMENTS, *_OF_ALL_SOURCES)}
    return tuple(known[name] for name in views)


def _on_topic(source: EventSource, prefix: str) -> EventSource:
    return replace(source, topic=prefix + source.topic)


def _with_partitions(view: View, partitions: int, source: EventSource) -> View:
    return with_version(replace(view, partitions=partitions), source)


def _all_features(view: View) -> ServiceView:
    return ServiceView(view.name, view.version, tuple(field.name for field in view.features))
