"""The project: one manifest, and one tenant, whose name is the first part of every online key and stream."""

from feast import Project

project = Project(
    name="grocer",
    description="Households, stores and coupons of a grocery chain.",
    owner="data-platform@grocer.example",
    tags={"coeval.io/tenant": "grocer"},
)
