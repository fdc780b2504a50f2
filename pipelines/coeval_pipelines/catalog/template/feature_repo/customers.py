"""What a customer does: orders and spending over three windows, and the latest order."""

from datetime import timedelta

from feast import StreamFeatureView

from coeval_pipelines.catalog.authoring import count, of, sla, take, windowed
from entities import customer
from sources import orders

_spend = windowed(
    orders,
    count(per=("1h", "24h", "30d"), pii="pseudonymous"),
    of("amount", "sum", "mean", "max", per=("24h", "30d")),
)

customer_spend = StreamFeatureView(
    name="customer_spend",
    description="How often and how much a customer orders: over an hour, a day, 30 days.",
    entities=[customer],
    source=orders,
    timestamp_field="ordered_at",
    aggregations=_spend.aggregations,
    schema=_spend.schema,
    tags=sla(freshness="10s", p99_ms=20, availability=0.999),
)

latest_order = StreamFeatureView(
    name="latest_order",
    description="What a customer ordered last, while it is at most 90 days ago.",
    entities=[customer],
    source=orders,
    ttl=timedelta(days=90),
    schema=take(orders, "amount", "items", "channel"),
    tags=sla(freshness="10s", p99_ms=20, availability=0.999),
)
