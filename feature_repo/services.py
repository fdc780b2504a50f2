"""What models read. A service names the version of every view it takes, so a changed view never changes a model."""

from feast import FeatureService

from coupons import household_coupons
from derived import spend_vs_usual
from households import household_profile, household_savings, household_spend, latest_basket
from stores import household_store, store_sales

coupon_propensity = FeatureService(
    name="coupon_propensity",
    description="Will this household redeem a coupon in the next 14 days? Asked at the till, basket in hand.",
    owner="campaigns@grocer.example",
    features=[
        household_spend[
            [
                *(f"count_{window}" for window in ("1h", "24h", "7d", "30d")),
                *(f"sum_amount_{window}" for window in ("1h", "24h", "7d", "30d")),
                *(f"mean_amount_{window}" for window in ("1h", "24h", "7d", "30d")),
                "min_amount_30d",
                "max_amount_30d",
            ]
        ],
        store_sales,
        household_store,
        household_coupons,
        household_savings,
        latest_basket[["store_id", "amount", "quantity"]],
        household_profile[["age", "income", "household_size", "kids_count"]],
        spend_vs_usual,
    ],
)
