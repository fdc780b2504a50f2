"""Where events come from. Columns are declared here, once: name, type, what it is, PII class."""

from datetime import timedelta

from feast import FileSource, KafkaSource

from coeval_pipelines.catalog.authoring import column, event_tags, json_events

orders = KafkaSource(
    name="orders",
    topic="orders",
    description="One JSON event per order.",
    timestamp_field="ordered_at",
    message_format=json_events(
        column("event_id", "string", "Names the event, so that a second delivery is seen.", pii="none", required=True),
        column("ordered_at", "timestamp", "When it was ordered.", pii="none", required=True),
        column("customer_id", "int64", "Who ordered.", pii="pseudonymous", required=True),
        column("amount", "decimal(9,2)", "What it cost.", pii="pseudonymous", low="0.00"),
        column("items", "int64", "How many things.", pii="none", low=1),
        column("channel", "string", "Where it was ordered.", pii="none", allowed=("web", "app", "shop")),
    ),
    # An order that comes more than this after its tile ended is left to the next batch run.
    watermark_delay_threshold=timedelta(minutes=10),
    tags=event_tags(event_id="event_id", max_future_skew="5m"),
    # Orders from before the topic began: Parquet files, relative to the state directory. They need not exist yet.
    batch_source=FileSource(name="orders_history", path="history/orders", timestamp_field="ordered_at"),
)
