"""Names of the keys in Redis. Pure. Tenant first, so that ACL patterns fence tenants; the bucket is the hash tag.

What belongs to a bucket shares its slot: on a Redis Cluster its data, offset, marker and incarnation live, are lost and
come back together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coeval.spec.keys import bucket_of
from coeval.spec.model import View

_FEW = 64
"""Up to so many keys are hashed one by one."""


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


def ready_key(tenant: str, bucket: int) -> str:
    """Which view versions are filled in a bucket, one line each; of any other, a reader says UNAVAILABLE."""
    return f"{tenant}:{{{bucket}}}:@ready"


def ready_line(view: View) -> str:
    """What the line of a view version begins with; a note follows."""
    return f"\n{view.name}:{view.version}="


def incarnation_key(tenant: str, bucket: int) -> str:
    """The name of this life of the server that holds a bucket: gone when it was wiped."""
    return f"{tenant}:{{{bucket}}}:@incarnation"


def writers_key(tenant: str) -> str:
    """The writers of a tenant that are alive, with the instants at which they are given up."""
    return f"{tenant}:@writers"


def buckets_of(keys: Sequence[str], partitions: int) -> list[int]:
    """The buckets of entity keys: `bucket_of` each, of many at once."""
    if len(keys) <= _FEW:
        return [bucket_of(key, partitions) for key in keys]
    by_length: dict[int, list[int]] = defaultdict(list)
    encoded = [key.encode() for key in keys]
    for index, data in enumerate(encoded):
        by_length[len(data)].append(index)
    buckets = np.empty(len(keys), dtype=np.int64)
    for length, indexes in by_length.items():
        texts = np.frombuffer(b"".join([encoded[index] for index in indexes]), dtype=np.uint8)
        hashes = _murmur2(texts.reshape(len(indexes), length))
        buckets[indexes] = (hashes & np.uint32(0x7FFFFFFF)).astype(np.int64) % partitions
    found: list[int] = buckets.tolist()
    return found


def _murmur2(data: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """`coeval.spec.keys.murmur2` of texts of one length, (texts, bytes); 32-bit numbers overflow as they should."""
    count, length = data.shape
    m, whole = np.uint32(0x5BD1E995), length & ~3
    hashes = np.full(count, 0x9747B28C ^ length, dtype=np.uint32)
    words = np.ascontiguousarray(data[:, :whole]).view("<u4")
    for at in range(whole // 4):
        word = words[:, at] * m
        word = (word ^ word >> np.uint32(24)) * m
        hashes = hashes * m ^ word
    if whole != length:
        rest = np.zeros((count, 4), dtype=np.uint8)
        rest[:, : length - whole] = data[:, whole:]
        hashes = (hashes ^ rest.view("<u4")[:, 0]) * m
    hashes = (hashes ^ hashes >> np.uint32(13)) * m
    return hashes ^ hashes >> np.uint32(15)
