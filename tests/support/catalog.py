"""A manifest that uses every kind of view: small, typed by hand, independent of the example catalog."""

from __future__ import annotations

from coeval.spec.manifest import Manifest, with_version
from coeval.spec.model import (
    Aggregate,
    DerivedView,
    Entity,
    EventSource,
    FeatureRef,
    FeatureService,
    Field,
    RowView,
    ServiceView,
    View,
    WindowedView,
)
from coeval.spec.time import DAY, HOUR, MINUTE, duration, hop_of
from coeval.spec.types import FLOAT64, INT64, STRING, TIMESTAMP, DataType

MONEY = DataType.parse("decimal(9,2)")
WIDE_MONEY = DataType.parse("decimal(15,3)")
CARD = Field("card_id", INT64, nullable=False)
MERCHANT = Field("merchant_id", STRING, nullable=False)

PAYMENTS = EventSource(
    name="payments",
    topic="payments",
    fields=(
        Field("event_id", STRING, nullable=False),
        Field("paid_at", TIMESTAMP, nullable=False),
        CARD,
        MERCHANT,
        Field("amount", MONEY),
        Field("fee", WIDE_MONEY),
        Field("points", INT64),
        Field("note", STRING),
    ),
    event_id="event_id",
    event_ts="paid_at",
    allowed_lateness=10 * MINUTE,
)


def _aggregate(function: str, column: str, window: int) -> Aggregate:
    name = f"{function}_{column}_{duration(window)}" if column else f"{function}_{duration(window)}"
    return Aggregate(name, function, column, window, hop_of(window))


def _result(aggregate: Aggregate) -> DataType:
    match aggregate.function:
        case "count":
            return INT64
        case "mean":
            return FLOAT64
        case "sum":
            column = PAYMENTS.field(aggregate.column).type
            return INT64 if column == INT64 else DataType(column.kind, 38, column.scale)
        case _:
            return PAYMENTS.field(aggregate.column).type


def windowed(name: str, key: tuple[Field, ...], aggregates: tuple[Aggregate, ...]) -> View:
    """A windowed view of the payments with its version."""
    fields = tuple(Field(item.feature, _result(item)) for item in aggregates)
    view = WindowedView(name, tuple(field.name for field in key), key, PAYMENTS.name, aggregates, fields, partitions=4)
    return with_version(view, PAYMENTS)


CARD_SPEND = windowed(
    "card_spend",
    (CARD,),
    tuple(
        _aggregate(function, column, window)
        for window in (HOUR, DAY, 7 * DAY, 30 * DAY)
        for function, column in (
            ("count", ""),
            ("count", "amount"),
            ("sum", "amount"),
            ("mean", "amount"),
            ("min", "amount"),
            ("max", "amount"),
            ("sum", "fee"),
            ("sum", "points"),
        )
    ),
)
PAIR = windowed(
    "card_merchant", (CARD, MERCHANT), tuple(_aggregate(*item, 7 * DAY) for item in (("count", ""), ("max", "points")))
)
LATEST = with_version(
    RowView(
        "latest_payment",
        ("card",),
        (CARD,),
        PAYMENTS.name,
        (Field("merchant_id", STRING), Field("amount", MONEY), Field("points", INT64), Field("note", STRING)),
        stream=True,
        ttl=2 * DAY,
        partitions=4,
    ),
    PAYMENTS,
)
RATIO = DerivedView(
    "against_usual",
    "tests.support.functions:against_usual",
    (FeatureRef("card_spend", "mean_amount_30d"),),
    (Field("payment_amount", MONEY),),
    (Field("ratio", FLOAT64),),
)


def manifest() -> Manifest:
    """The manifest of this catalog."""
    assert isinstance(CARD_SPEND, WindowedView)
    assert isinstance(PAIR, WindowedView)
    assert isinstance(LATEST, RowView)
    views = (PAIR, CARD_SPEND, LATEST)
    return Manifest(
        project="bank",
        tenant="bank",
        entities=(Entity("card", CARD), Entity("merchant", MERCHANT)),
        event_sources=(PAYMENTS,),
        windowed_views=(PAIR, CARD_SPEND),
        row_views=(LATEST,),
        derived_views=(RATIO,),
        services=(
            FeatureService(
                "risk",
                tuple(ServiceView(v.name, v.version, tuple(f.name for f in v.features)) for v in views),
                (ServiceView("against_usual", "", ("ratio",)),),
            ),
        ),
    )
