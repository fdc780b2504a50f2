"""Which writer reads which changelog partition: those that are alive share them, by a rule. It knows Redis.

Kafka's consumer groups would do it too, and were tried: with them every join, leave and new topic stops all writers
until all have answered, a dead one holds the others up until its session ends (3 of 6 seconds, measured), and one that
waits for a slow store is thrown out and comes back, each time at the cost of everybody. A group would also have to be
named after the store, which has as many addresses as there are ways to it. Here a writer that comes or goes touches
only the partitions that change hands, few more than its own. Nothing depends on the members agreeing: two that read one
partition fence each other, and one that nobody reads waits for the next look.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from coeval.online.keys import writers_key
from coeval.online.store import Script

if TYPE_CHECKING:
    import redis

LIFE_SECONDS = 3.0
"""A writer that was not heard of for so long is given up, and its partitions are taken over."""

# One clock for all of them: the store's own.
_RENEW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""


def own_name() -> str:
    """A name for this process that no other one has, here or elsewhere."""
    return f"{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}"


class Members:
    """This writer among those that write to the same store."""

    def __init__(self, client: redis.Redis, name: str) -> None:
        self.name = name
        self._client = client
        self._renew = Script(client, _RENEW)

    def renew(self, tenant: str) -> tuple[str, ...]:
        """Say that this writer is alive and writes for a tenant; the names of all that do, sorted.

        Raises:
            redis.RedisError: the store refused or did not answer.
        """
        found = self._renew.run([writers_key(tenant)], [self.name, str(int(LIFE_SECONDS * 1000))])
        return tuple(sorted(name.decode() for name in found))

    def leave(self, tenants: Iterable[str]) -> None:
        """Let the others take over at once.

        Raises:
            redis.RedisError: the store refused or did not answer; they will take over without.
        """
        for tenant in tenants:
            self._client.zrem(writers_key(tenant), self.name)


@lru_cache(maxsize=1024)
def owners(topic: str, partitions: int, members: tuple[str, ...]) -> tuple[str, ...]:
    """The member that reads each partition of a topic. Pure.

    Each pair of a partition and a member has a weight by hash, whoever else there is, and the heaviest pairs are made
    first (rendezvous); a member that has its share of the topic takes no more, so that shares differ by one at most. Of
    80 partitions, the fourth member of a store takes 20, and some ten more change hands between the others.
    """
    share, spare = divmod(partitions, len(members))
    loads, found = Counter[str](), dict[int, str]()
    pairs = ((_weight(member, topic, at), at, member) for at in range(partitions) for member in members)
    for _, partition, member in sorted(pairs, reverse=True):
        has_room = loads[member] < share or (loads[member] == share and spare > 0)
        if partition not in found and has_room:
            spare -= loads[member] == share
            loads[member] += 1
            found[partition] = member
    return tuple(found[partition] for partition in range(partitions))


def _weight(member: str, topic: str, partition: int) -> bytes:
    return blake2b(f"{member} {partition} {topic}".encode(), digest_size=8).digest()
