"""One process at a time for an operation of the same home."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from coeval.settings import Settings

_LOG = structlog.get_logger(service="coordinator")
_LOOK_SECONDS = 0.05
"""Longer than `is_held` holds a lock for."""


@contextmanager
def only_one(settings: Settings, what: str, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of an operation: one process at a time, freed when the holder dies.

    Gives whether the lock is held: always, unless another process holds it and `wait` is false.
    """
    path = _path(settings, what)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        if not _taken(handle.fileno()):
            # Perhaps somebody was only looking.
            time.sleep(_LOOK_SECONDS)
            if not _taken(handle.fileno()):
                if not wait:
                    yield False
                    return
                _LOG.info("another process is at it: waiting until it is done", what=what)
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield True


def is_held(settings: Settings, what: str) -> bool:
    """Whether a process is at an operation now: one that died is not."""
    path = _path(settings, what)
    if not path.exists():
        return False
    with path.open() as handle:
        return not _taken(handle.fileno())


def _path(settings: Settings, what: str) -> Path:
    return settings.home / "local" / f"{what}.lock"


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
