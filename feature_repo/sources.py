"""Where events and rows come from: two Kafka topics with their history, and one table. Columns are declared here, once.

Paths are relative to the state directory (COEVAL_HOME), so that no definition depends on where it is checked out. The
files need not exist when the catalog is applied.
"""

from datetime import timedelta

from feast import FileSource, KafkaSource

from coeval_pipelines.catalog.authoring import batch_tags, column, event_tags, json_events

purchases = KafkaSource(
    name="purchases",
    topic="purchases",
    description="One event per line of a receipt, as the till prints it.",
    owner="checkout@grocer.example",
    timestamp_field="purchased_at",
    message_format=json_events(
        column("event_id", "string", "Basket and product: a line.", pii="pseudonymous", required=True),
        column("purchased_at", "timestamp", "When the line was scanned.", pii="none", required=True),
        column("household_id", "int64", "Who bought.", pii="pseudonymous", required=True),
        column("store_id", "int64", "Where.", pii="none", required=True),
        column("basket_id", "int64", "The receipt.", pii="pseudonymous"),
        column("product_id", "int64", "What.", pii="none"),
        column("quantity", "int64", "How many units.", pii="pseudonymous"),
        column("amount", "decimal(9,2)", "Dollars paid for the line, after discounts.", pii="pseudonymous"),
        column("retail_discount", "decimal(9,2)", "Dollars off by the loyalty card.", pii="pseudonymous"),
        column("coupon_discount", "decimal(9,2)", "Dollars off by a coupon.", pii="pseudonymous"),
    ),
    # A line that comes more than this after its tile ended is left to the next batch run.
    watermark_delay_threshold=timedelta(minutes=10),
    tags=event_tags(event_id="event_id", max_future_skew="5m"),
    batch_source=FileSource(
        name="purchases_history",
        path="demo/history/purchases",
        timestamp_field="purchased_at",
        description="Receipt lines from before the topic began.",
        owner="checkout@grocer.example",
    ),
)

coupon_redemptions = KafkaSource(
    name="coupon_redemptions",
    topic="coupon_redemptions",
    description="One event per coupon that a household hands in.",
    owner="campaigns@grocer.example",
    timestamp_field="redeemed_at",
    message_format=json_events(
        column("event_id", "string", "Household, coupon, day and ordinal.", pii="pseudonymous", required=True),
        column("redeemed_at", "timestamp", "The end of the day of the redemption.", pii="none", required=True),
        column("household_id", "int64", "Who redeemed.", pii="pseudonymous", required=True),
        column("coupon_upc", "string", "The coupon's code.", pii="none"),
        column("campaign_id", "int64", "The campaign that it belongs to.", pii="none"),
    ),
    watermark_delay_threshold=timedelta(minutes=10),
    tags=event_tags(event_id="event_id", max_future_skew="5m"),
    batch_source=FileSource(
        name="coupon_redemptions_history",
        path="demo/history/coupon_redemptions",
        timestamp_field="redeemed_at",
        description="Redemptions from before the topic began.",
        owner="campaigns@grocer.example",
    ),
)

demographics = FileSource(
    name="demographics",
    path="demo/demographics.parquet",
    timestamp_field="recorded_at",
    description="What households said about themselves when they took a loyalty card.",
    owner="customer-data@grocer.example",
    tags=batch_tags(
        column("household_id", "int64", "Whose answers.", pii="pseudonymous", required=True),
        column("recorded_at", "timestamp", "When they were recorded.", pii="none", required=True),
        column("age", "string", "Age range of the card holder: 35-44.", pii="personal"),
        column("income", "string", "Range of yearly income: 50-74K.", pii="personal"),
        column("home_ownership", "string", "Homeowner, Renter, ...", pii="personal"),
        column("marital_status", "string", "Married, Unmarried.", pii="personal"),
        column("household_size", "string", "1, 2, ... 5+.", pii="personal"),
        column("household_comp", "string", "Composition: 2 Adults Kids.", pii="personal"),
        column("kids_count", "string", "0, 1, 2, 3+.", pii="personal"),
    ),
)
