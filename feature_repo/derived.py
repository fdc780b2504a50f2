"""Features that need something only the caller knows: how large is the basket at the till, for this household?"""

from feast import RequestSource

from coeval_pipelines.catalog.authoring import derived_view, feature
from households import household_spend

checkout = RequestSource(
    name="checkout",
    description="What the till knows when it asks.",
    owner="checkout@grocer.example",
    schema=[feature("basket_amount", "decimal(9,2)", "Dollars in the basket so far.", pii="pseudonymous")],
)

spend_vs_usual = derived_view(
    name="spend_vs_usual",
    description="The basket at the till, and the week, against what the household usually spends.",
    owner="customer-data@grocer.example",
    function="feature_repo.functions:spend_vs_usual",
    inputs=[household_spend[["mean_amount_30d", "sum_amount_7d", "sum_amount_30d"]]],
    request=checkout,
    schema=[
        feature("basket_in_usual_lines", "float64", "Basket over the mean line of the month.", pii="pseudonymous"),
        feature("basket_share_of_week", "float64", "Basket over itself plus the last week.", pii="pseudonymous"),
        feature("week_pace", "float64", "Daily spend of the week over that of the month.", pii="pseudonymous"),
    ],
)
