"""What features are about. A view of two entities, such as a household in a store, is keyed by both, in their order."""

from feast import Entity, ValueType

from coeval_pipelines.catalog.authoring import entity_tags

household = Entity(
    name="household",
    join_keys=["household_id"],
    value_type=ValueType.INT64,
    description="A household that shops with a loyalty card.",
    owner="customer-data@grocer.example",
    tags=entity_tags(pii="pseudonymous"),
)

store = Entity(
    name="store",
    join_keys=["store_id"],
    value_type=ValueType.INT64,
    description="A store of the chain.",
    owner="store-operations@grocer.example",
    tags=entity_tags(pii="none"),
)
