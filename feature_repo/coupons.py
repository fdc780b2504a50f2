"""How often a household redeems coupons."""

from feast import StreamFeatureView

from coeval_pipelines.catalog.authoring import count, sla, windowed
from entities import household
from sources import coupon_redemptions

_redeemed = windowed(coupon_redemptions, count(per=("7d", "30d"), pii="pseudonymous"))

household_coupons = StreamFeatureView(
    name="household_coupons",
    description="Coupons that a household redeemed over a week and a month.",
    owner="campaigns@grocer.example",
    entities=[household],
    source=coupon_redemptions,
    timestamp_field="redeemed_at",
    aggregations=_redeemed.aggregations,
    schema=_redeemed.schema,
    tags=sla(freshness="1h", p99_ms=20, availability=0.999),
)
