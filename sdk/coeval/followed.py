"""A file that is followed as it changes, without being read anew each time. It takes its clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from coeval.errors import UsageError

_LOOK_SECONDS = 1.0
_log = structlog.get_logger()
_T = TypeVar("_T")


class Followed(Generic[_T]):
    """What a file says, looked at once a second. One that cannot be read is logged, and what was known is kept.

    `where` gives the path each time, `read` what is in it. Safe to share between threads.
    """

    def __init__(
        self, where: Callable[[], Path], read: Callable[[Path], _T], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._where = where
        self._read_file = read
        self._clock = clock
        self._lock = threading.Lock()
        self._looked = clock()
        self._stamp, self._value = self._read()

    def now(self) -> _T:
        """What it says now: the same object as long as the file is the same."""
        if self._clock() - self._looked >= _LOOK_SECONDS and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._lock.release()
        return self._value

    def _look(self) -> None:
        self._looked = self._clock()
        path = self._where()
        if _stamp(path) == self._stamp:
            return
        try:
            self._stamp, self._value = self._read()
        except UsageError as error:
            _log.warning("keeps what it has", file=str(path), reason=error.reason)
        else:
            _log.info("follows a file that changed", file=str(path))

    def _read(self) -> tuple[object, _T]:
        path = self._where()
        # The stamp before the content: what changes in between is read again.
        return _stamp(path), self._read_file(path)


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return path, found.st_mtime_ns, found.st_ino, found.st_size
