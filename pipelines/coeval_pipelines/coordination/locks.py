"""One process at a time for an operation of the same home."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from coeval.settings import Settings

_LOG = structlog.get_logger(service="coordinator")


@contextmanager
def only_one(settings: Settings, what: str, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of an operation: one process at a time, freed when the holder dies.

    Gives whether the lock is held: always, unless another process holds it and `wait` is false.
    """
    path = settings.home / "local" / f"{what}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                yield False
                return
            _LOG.info("another process is at it: waiting until it is done", what=what)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield True
