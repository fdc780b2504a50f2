"""Features that need something only the caller knows."""

from feast import RequestSource

from coeval_pipelines.catalog.authoring import derived_view, feature
from customers import customer_spend

checkout = RequestSource(
    name="checkout_request",
    schema=[feature("basket_amount", "decimal(9,2)", "What is in the basket so far.", pii="pseudonymous")],
)

basket_vs_usual = derived_view(
    name="basket_vs_usual",
    description="The basket against the customer's mean order of 30 days.",
    owner="team@company.example",
    function="feature_repo.functions:basket_vs_usual",
    inputs=[customer_spend[["mean_amount_30d"]]],
    request=checkout,
    schema=[feature("basket_over_usual", "float64", "Basket over the mean order.", pii="pseudonymous")],
)
