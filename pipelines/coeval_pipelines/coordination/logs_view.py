"""`coeval stream logs`: the logs of all components as one, by time. It knows the local stack's log directory only.

Our own processes write one JSON object a line; Flink and Redis write text, of which time, level and message are taken.
Lines without a time of their own (a stack trace, say) belong to the entry before them.
"""

from __future__ import annotations

import heapq
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coeval.errors import UsageError
from coeval.settings import Settings
from coeval.spec.types import iso, micros
from coeval_pipelines.local.components import ALL

FOLLOW_SECONDS = 0.3
"""How often a followed log is looked at."""
_FLINK = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) (\w+)\s+(\S+)\s+\[.*?\] - (.*)", re.DOTALL)
_REDIS = re.compile(r"\d+:[A-Z] (\d\d \w{3} \d{4} \d\d:\d\d:\d\d\.\d{3}) ([.\-*#]) (.*)", re.DOTALL)
_REDIS_LEVELS = {".": "debug", "-": "debug", "*": "info", "#": "warning"}
_LEVELS = {"warn": "warning", "fatal": "critical"}
_NUMBERED = re.compile(r"-\d+$")
_CHILDREN = ("load", "submit", "supervisor")
"""What writes a log beside the components, once it has run."""
_OWN = ("timestamp", "level", "event")


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that a component said. `at` is microseconds UTC; `fields` are what a structured line carries beside."""

    at: int
    component: str
    level: str
    message: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The entry as a person reads it, without its time."""
        said = " ".join(f"{name}={_shown(value)}" for name, value in self.fields.items())
        return f"{self.component:<12} {self.level:<8} {self.message}{'  ' if said else ''}{said}"

    def to_json(self) -> str:
        """The entry as one JSON object on one line."""
        said = {"component": self.component, "level": self.level, "message": self.message, "fields": dict(self.fields)}
        return json.dumps({"at": iso(self.at), **said}, default=str)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries to show; what is empty chooses nothing out. `since` is microseconds UTC, `grep` a pattern."""

    components: frozenset[str] = frozenset()
    view: str = ""
    since: int = 0
    grep: str = ""

    def names(self, component: str) -> bool:
        """Whether a component is wanted; taskmanager is every one of them: taskmanager-2 too."""
        return not self.components or bool(self.components & {component, _NUMBERED.sub("", component)})

    def takes(self, entry: Entry) -> bool:
        """Whether the entry is one of them. A view is found wherever its name stands as a word."""
        if entry.at < self.since or not self.names(entry.component):
            return False
        text = entry.text
        named = not self.view or re.search(rf"\b{re.escape(self.view)}\b", text) is not None
        return named and (not self.grep or re.search(self.grep, text) is not None)


def parse_line(component: str, line: str) -> Entry | None:
    """The entry that begins with this line; None where it has no time of its own, and so goes with the one before."""
    if line.startswith("{"):
        return _structured(component, line)
    if found := _FLINK.match(line):
        at = _local(found[1], "%Y-%m-%d %H:%M:%S,%f")
        level = found[2].lower()
        return None if at is None else Entry(at, component, _LEVELS.get(level, level), found[4], {"logger": found[3]})
    if found := _REDIS.match(line):
        at = _local(found[1], "%d %b %Y %H:%M:%S.%f")
        return None if at is None else Entry(at, component, _REDIS_LEVELS[found[2]], found[3])
    return None


def entries(path: Path) -> Iterator[Entry]:
    """The entries of a log file in their order. What stands before the first time is given the time of the next."""
    with path.open(errors="replace") as lines:
        yield from join(path.stem, lines, int(path.stat().st_mtime * 1_000_000))


def join(component: str, lines: Iterable[str], fallback: int) -> Iterator[Entry]:
    """The entries that lines come to; without any time at all they are of the instant `fallback`. Pure."""
    untimed: list[str] = []
    current: Entry | None = None
    for line in (raw.rstrip("\n") for raw in lines):
        found = parse_line(component, line)
        if found is None:
            untimed.append(line)
            continue
        yield from _closed(component, current, untimed, found.at)
        current, untimed = found, []
    yield from _closed(component, current, untimed, fallback)


def _closed(component: str, current: Entry | None, more: list[str], at: int) -> Iterator[Entry]:
    if current is not None:
        yield replace(current, message="\n".join([current.message, *more]).rstrip()) if more else current
    elif text := "\n".join(more).strip():
        yield Entry(at, component, "", text)


def read_logs(settings: Settings, wanted: Wanted) -> Iterator[Entry]:
    """The wanted entries of every log there is, oldest first; those of one instant by component."""
    found = [_entries_of(path, wanted) for path in log_files(settings)]
    return heapq.merge(*found, key=lambda entry: (entry.at, entry.component))


def _entries_of(path: Path, wanted: Wanted) -> Iterator[Entry]:
    if not wanted.names(path.stem):
        return
    yield from sorted((entry for entry in entries(path) if wanted.takes(entry)), key=lambda entry: entry.at)


def follow_logs(settings: Settings, wanted: Wanted, ended: Callable[[], bool] = lambda: False) -> Iterator[Entry]:
    """The wanted entries of every log, then those that are written, until `ended` says so.

    A log that is replaced is read from its start. What is written at once is in order; a late writer comes later.
    """
    read: dict[Path, int] = {}
    while not ended():
        found = [entry for path in log_files(settings) for entry in _grown(path, read)]
        yield from sorted(filter(wanted.takes, found), key=lambda entry: entry.at)
        if not found:
            time.sleep(FOLLOW_SECONDS)


def _grown(path: Path, read: dict[Path, int]) -> list[Entry]:
    try:
        with path.open("rb") as log:
            size, start = log.seek(0, os.SEEK_END), read.get(path, 0)
            start = log.seek(start if start <= size else 0)
            block = log.read()
    except FileNotFoundError:  # it is being replaced by a new one
        return []
    # A line that is being written is left for the next look.
    whole = block[: block.rfind(b"\n") + 1]
    read[path] = start + len(whole)
    return list(join(path.stem, whole.decode(errors="replace").splitlines(), time.time_ns() // 1000))


def log_files(settings: Settings) -> list[Path]:
    """The logs of the local stack: one per component, and those of submissions and batch loads."""
    return sorted((settings.home / "local" / "logs").glob("*.log"))


def check_components(settings: Settings, names: Iterable[str]) -> None:
    """Refuse names of which there is no log, nor will be.

    Raises:
        UsageError: naming them, and those that there are.
    """
    known = {*(path.stem for path in log_files(settings)), *ALL, *_CHILDREN}
    unknown = sorted(set(names) - known)
    if unknown:
        raise UsageError(f"No log of {', '.join(unknown)}.", f"There are: {', '.join(sorted(known))}.")


def show(found: Iterable[Entry], as_json: bool) -> None:
    """Print entries as they come: text, or a JSON object each."""
    for entry in found:
        print(entry.to_json() if as_json else f"{iso(entry.at)} {entry.text}", flush=as_json)
    sys.stdout.flush()


def _structured(component: str, line: str) -> Entry | None:
    try:
        document = json.loads(line)
        at = micros(datetime.fromisoformat(document["timestamp"]))
    except (ValueError, TypeError, KeyError):
        return None
    fields = {name: value for name, value in document.items() if name not in _OWN}
    return Entry(at, component, str(document.get("level", "")), str(document.get("event", "")), fields)


def _local(text: str, form: str) -> int | None:
    """Engines write the time of the machine's zone without saying so."""
    try:
        return micros(datetime.strptime(text, form).astimezone(UTC))
    except ValueError:
        return None


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
