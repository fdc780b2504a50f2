"""Names of the keys in Redis. Pure. Tenant first, so that ACL patterns fence tenants; the bucket is the hash tag.

What belongs to a bucket shares its slot: on a Redis Cluster its data, offset, marker and incarnation live, are lost and
come back together.
"""

from __future__ import annotations

from coeval.spec.keys import bucket_of
from coeval.spec.model import View


def data_key(tenant: str, view: View, entity_key: str) -> str:
    """Where the state of one entity key of a view version is kept: grocer:{5}:household_spend:3f2a91bc:i718."""
    bucket = bucket_of(entity_key, view.partitions)
    return f"{bucket_prefix(tenant, view, bucket)}:{entity_key}"


def bucket_prefix(tenant: str, view: View, bucket: int) -> str:
    """What all data keys of a bucket of a view version begin with."""
    return f"{tenant}:{{{bucket}}}:{view.name}:{view.version}"


def offset_key(tenant: str, view: View, bucket: int) -> str:
    """Where the writer's changelog offset of a bucket is kept."""
    return f"{tenant}:{{{bucket}}}:@offset:{view.name}:{view.version}"


def ready_key(tenant: str, view: View, bucket: int) -> str:
    """The marker that a bucket of a view version is filled; absent means UNAVAILABLE."""
    return f"{tenant}:{{{bucket}}}:@ready:{view.name}:{view.version}"


def incarnation_key(tenant: str, bucket: int) -> str:
    """The name of this life of the server that holds a bucket: gone when it was wiped."""
    return f"{tenant}:{{{bucket}}}:@incarnation"


def writers_key(tenant: str) -> str:
    """The writers of a tenant that are alive, with the instants at which they are given up."""
    return f"{tenant}:@writers"
