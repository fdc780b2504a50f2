"""What models read. A service names the version of every view it takes."""

from feast import FeatureService

from customers import customer_spend, latest_order
from derived import basket_vs_usual

checkout = FeatureService(
    name="checkout",
    description="What is known of a customer at the till.",
    features=[customer_spend, latest_order, basket_vs_usual],
)
