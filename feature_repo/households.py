"""What a household does and is: its spending, what it saves, its latest basket, what it told about itself."""

from datetime import timedelta

from feast import FeatureView, StreamFeatureView

from coeval_pipelines.catalog.authoring import computed, count, of, sla, take, windowed
from entities import household
from sources import demographics, purchases

_WINDOWS = ("1h", "24h", "7d", "30d")
_spend = windowed(
    purchases,
    count(per=_WINDOWS, pii="pseudonymous"),
    of("amount", "sum", "mean", "min", "max", per=_WINDOWS),
    of("quantity", "sum", per=("7d", "30d")),
)

household_spend = StreamFeatureView(
    name="household_spend",
    description="How often and how much a household buys: receipt lines and dollars over an hour, day, week, month.",
    owner="customer-data@grocer.example",
    entities=[household],
    source=purchases,
    timestamp_field="purchased_at",
    aggregations=_spend.aggregations,
    schema=_spend.schema,
    tags=sla(freshness="10s", p99_ms=20, availability=0.999, tolerated={"late": 0.1}),
)

_savings = windowed(
    purchases,
    count(per=("30d",), pii="pseudonymous"),
    of("saved", "sum", "stddev", per=("7d", "30d")),
    of("product_id", "last", per=("30d",), pii="pseudonymous"),
    where="saved > 0",
    columns=[
        computed(
            "saved",
            "COALESCE(retail_discount, 0) + COALESCE(coupon_discount, 0)",
            "Dollars off a line, by card and coupon.",
            pii="pseudonymous",
        )
    ],
)

household_savings = StreamFeatureView(
    name="household_savings",
    description="What a household saves on lines at a discount: how many, how much, how evenly, and on what last.",
    owner="campaigns@grocer.example",
    entities=[household],
    source=purchases,
    timestamp_field="purchased_at",
    aggregations=_savings.aggregations,
    schema=_savings.schema,
    tags=sla(freshness="10s", p99_ms=20, availability=0.999, tolerated={"late": 0.1}) | _savings.tags,
)

latest_basket = StreamFeatureView(
    name="latest_basket",
    description="The line that a household bought last, while it is at most 30 days old.",
    owner="customer-data@grocer.example",
    entities=[household],
    source=purchases,
    ttl=timedelta(days=30),
    schema=take(purchases, "basket_id", "store_id", "amount", "quantity"),
    tags=sla(freshness="10s", p99_ms=20, availability=0.999),
)

household_profile = FeatureView(
    name="household_profile",
    description="What a household told about itself. Never expires; a third of the households answered.",
    owner="customer-data@grocer.example",
    entities=[household],
    source=demographics,
    ttl=timedelta(0),
    schema=take(
        demographics,
        "age",
        "income",
        "home_ownership",
        "marital_status",
        "household_size",
        "household_comp",
        "kids_count",
    ),
    tags=sla(freshness="7d", p99_ms=20, availability=0.999),
)
