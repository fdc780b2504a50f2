"""What the demo shows while it works: a line per step with its time, progress bars on stderr, and a summary file."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from coeval.files import write_whole

FIRST_STEP, STEPS = 3, 8
"""Steps 1 and 2, environment and Java artefacts, are make's."""


@dataclass(slots=True)
class Report:
    """The summary as it grows; saved after each step, so that a run that stops early says how far it came."""

    path: Path
    document: dict[str, Any] = field(default_factory=lambda: {"steps": {}})
    step: int = FIRST_STEP - 1

    def save(self) -> None:
        """Write it, at once or not at all."""
        write_whole(self.path, json.dumps(self.document, indent=2, default=str) + "\n")

    @contextmanager
    def timed(self, name: str) -> Iterator[list[str]]:
        """Run a step: the texts put in the list become its line; its seconds go to the summary."""
        self.step += 1
        head = f"[{self.step}/{STEPS}] {name:<16}"
        print(f"{head} ...", file=sys.stderr, flush=True)
        said: list[str] = []
        start = time.monotonic()
        yield said
        seconds = time.monotonic() - start
        self.document["steps"][name] = {"seconds": round(seconds, 1)}
        self.save()
        print(f"{head} {'  '.join(said):<78} {clock(seconds):>8}", flush=True)


def clock(seconds: float) -> str:
    """24s, 1m 22s."""
    whole = round(seconds)
    return f"{whole // 60}m {whole % 60:02d}s" if whole >= 60 else f"{whole}s"


@contextmanager
def bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr; call what it gives with the number of things done."""
    columns = (TextColumn(f"      {title:<16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=sys.stderr.isatty()) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)
