"""How busy a store is, and how loyal a household is to it."""

from feast import StreamFeatureView

from coeval_pipelines.catalog.authoring import count, of, sla, windowed
from entities import household, store
from sources import purchases

_sales = windowed(
    purchases,
    count(per=("24h", "7d"), pii="none"),
    of("amount", "sum", per=("24h", "7d"), pii="none"),
)

store_sales = StreamFeatureView(
    name="store_sales",
    description="Receipt lines and dollars of a store over a day and a week.",
    owner="store-operations@grocer.example",
    entities=[store],
    source=purchases,
    timestamp_field="purchased_at",
    aggregations=_sales.aggregations,
    schema=_sales.schema,
    # A store sells so much that a few late lines touch many of its values until the next batch run.
    tags=sla(freshness="10s", p99_ms=20, availability=0.999, tolerated={"late": 0.25}),
)

_loyalty = windowed(
    purchases,
    count(per=("7d", "30d"), pii="pseudonymous"),
    of("amount", "sum", per=("7d", "30d")),
)

household_store = StreamFeatureView(
    name="household_store",
    description="What a household buys in one store: receipt lines and dollars over a week and a month.",
    owner="store-operations@grocer.example",
    entities=[household, store],
    source=purchases,
    timestamp_field="purchased_at",
    aggregations=_loyalty.aggregations,
    schema=_loyalty.schema,
    tags=sla(freshness="10s", p99_ms=20, availability=0.999),
)
