"""The erasures of a tenant: a table beside its event log, one small file each. It knows the file system.

Every engine reads it: what it names does not exist. A table's version is the number of its entries; entries are only
ever added, so a version stays what it was.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from coeval.files import write_whole
from coeval.settings import Settings
from coeval.spec.erasure import Erasure

UNDATED = 2**32 - 1
"""The epoch of an entry whose writer has not yet looked which batch runs there are."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An entry of the table: its number (from 1), the erasure, and when it was asked for (microseconds UTC)."""

    number: int
    erasure: Erasure
    recorded_at: int

    @property
    def is_dated(self) -> bool:
        """Whether it is whole; else whoever looks next makes it so."""
        return self.erasure.epoch != UNDATED


class ErasureTable:
    """The erasures of one tenant. An entry that was recorded is on disk, whole, before anything acts on it."""

    def __init__(self, settings: Settings, tenant: str) -> None:
        self._directory = settings.delta / tenant / "erasures"

    @property
    def version(self) -> int:
        """How many entries there are."""
        return len(self._paths())

    def entries(self, version: int | None = None) -> tuple[Recorded, ...]:
        """The entries of a version (None: all), in the order in which they were recorded."""
        return tuple(_read(path) for path in self._paths()[:version])

    def erasures(self, version: int | None = None) -> tuple[Erasure, ...]:
        """The erasures of a version (None: all)."""
        return tuple(entry.erasure for entry in self.entries(version))

    def record(self, erasure: Erasure, now: int, epoch: Callable[[], int]) -> tuple[Recorded, bool]:
        """Add an erasure, unless an earlier one covers it; gives the entry that holds, and whether it is new.

        `epoch` tells the greatest number of a batch run so far. It is asked once the entry can be read: every later
        run reads it.
        """
        with self._locked():
            entries = self._dated(epoch)
            known = next((entry for entry in entries if _covers(entry.erasure, erasure)), None)
            if known:
                return known, False
            entry = Recorded(len(entries) + 1, replace(erasure, epoch=UNDATED), now)
            self._write(entry)
            return self._date(entry, epoch), True

    def dated(self, epoch: Callable[[], int]) -> tuple[Erasure, ...]:
        """Every erasure; those whose writers died before they had asked for the epoch get it now."""
        with self._locked():
            return tuple(entry.erasure for entry in self._dated(epoch))

    def _dated(self, epoch: Callable[[], int]) -> list[Recorded]:
        return [entry if entry.is_dated else self._date(entry, epoch) for entry in self.entries()]

    def _date(self, entry: Recorded, epoch: Callable[[], int]) -> Recorded:
        entry = replace(entry, erasure=replace(entry.erasure, epoch=epoch()))
        self._write(entry)
        return entry

    def _paths(self) -> list[Path]:
        return sorted(self._directory.glob("*.json"))

    def _write(self, entry: Recorded) -> None:
        write_whole(self._directory / f"{entry.number:09d}.json", json.dumps(asdict(entry)) + "\n")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / "lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _covers(known: Erasure, erasure: Erasure) -> bool:
    return (known.column, known.value) == (erasure.column, erasure.value) and known.at >= erasure.at


def _read(path: Path) -> Recorded:
    document = json.loads(path.read_text())
    return Recorded(document["number"], Erasure(**document["erasure"]), document["recorded_at"])
