"""The project: one manifest, and one tenant, whose name is the first part of every online key and stream."""

from feast import Project

project = Project(
    name="coeval_project",
    description="A new catalog.",
    # Who is asked about whatever names no owner of its own.
    owner="team@company.example",
    tags={"coeval.io/tenant": "coeval_project"},
)
