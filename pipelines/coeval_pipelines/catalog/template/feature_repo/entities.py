"""What features are about. A view of two entities is keyed by both, in their order."""

from feast import Entity, ValueType

from coeval_pipelines.catalog.authoring import entity_tags

customer = Entity(
    name="customer",
    join_keys=["customer_id"],
    value_type=ValueType.INT64,
    description="Somebody who has ordered at least once.",
    tags=entity_tags(pii="pseudonymous"),
)
