"""How long a small read of the online store takes while it is written to. It knows Redis.

A read of a bucket's list of ready views, as every reader makes one, ten times a second over a connection of its own.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import redis

from coeval.client import open_redis
from coeval.online import keys
from coeval.settings import Settings
from coeval.spec.model import View
from coeval_pipelines.offline.throttle import Reads

EVERY_SECONDS = 0.1
_SWITCH_SECONDS = 0.0005
"""How long a thread of Python's keeps the others waiting. The usual 5 ms would be measured as the store's."""


@contextmanager
def probing(settings: Settings, tenant: str, view: View) -> Iterator[Reads]:
    """Measure reads of the servers that hold a view, until the context ends."""
    reads, stop, switch = Reads(), threading.Event(), sys.getswitchinterval()
    with closing(open_redis(settings)) as client:
        worker = threading.Thread(target=_measure, args=(client, tenant, view.partitions, reads, stop), daemon=True)
        sys.setswitchinterval(_SWITCH_SECONDS)
        worker.start()
        try:
            yield reads
        finally:
            sys.setswitchinterval(switch)
            stop.set()
            worker.join()


def _measure(client: redis.Redis, tenant: str, buckets: int, reads: Reads, stop: threading.Event) -> None:
    turn = 0
    while not stop.wait(EVERY_SECONDS):
        began = time.perf_counter()
        # A store that does not answer in time is as slow as it gets; the write will say what is wrong with it.
        with suppress(redis.RedisError):
            client.get(keys.ready_key(tenant, turn % buckets))
        reads.add((time.perf_counter() - began) * 1000)
        turn += 1
