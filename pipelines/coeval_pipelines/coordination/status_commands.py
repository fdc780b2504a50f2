"""`coeval status`: how everything is, at a glance."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from coeval.settings import Settings
    from coeval_pipelines.coordination.check_status import CheckStatus
    from coeval_pipelines.coordination.stream_model import Problem, StreamStatus
    from coeval_pipelines.local.state import StackStatus

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("status")(status)


@dataclass(frozen=True, slots=True)
class _Glance:
    """Components, streams (None: none was ever released), what checks found, and what failed in them."""

    local: StackStatus
    streams: StreamStatus | None
    checks: tuple[CheckStatus, ...] = ()
    failed: tuple[Problem, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether all that has to run does; where streams are watched from afar, there is no local stack."""
        runs = self.local.healthy or (self.streams is not None and not self.local.components)
        return runs and not (self.streams and self.streams.problems)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong, the most basic first."""
        return (*(self.streams.problems if self.streams else ()), *self.failed)


def status(as_json: AsJson = False) -> None:
    """How everything is: local stack, streams, what checks found last; and what to type about what is wrong.

    Exit code 3 where a component or a stream is not well, else 1 where a check failed or never was.
    """
    from coeval.settings import load_settings

    found = _look(load_settings())
    (_print_json if as_json else _print)(found)
    if not found.healthy or found.failed:
        raise typer.Exit(1 if found.healthy else 3)


def _look(settings: Settings) -> _Glance:
    from coeval.errors import ManifestError
    from coeval_pipelines.control import ALIVE, ControlPlane
    from coeval_pipelines.coordination.check_metrics import newest
    from coeval_pipelines.coordination.check_status import check_problems, check_status
    from coeval_pipelines.coordination.stream_status import stream_status
    from coeval_pipelines.local import stack

    local, now = stack.status(settings), time.time_ns() // 1000
    with closing(ControlPlane.open(settings)) as control:
        has_streams = control.released() is not None or control.runs(statuses=ALIVE)
        streams = stream_status(settings, control) if has_streams else None
        try:
            found = newest(settings, control)
        except ManifestError:  # no catalog is applied, so there is nothing to check
            return _Glance(local, streams)
    return _Glance(local, streams, check_status(found, now), tuple(check_problems(found, now)))


def _print_json(found: _Glance) -> None:
    from coeval_pipelines.coordination.stream_text import as_document

    document: dict[str, Any] = {
        "healthy": found.healthy,
        **asdict(found.local),
        "streams": None if found.streams is None else as_document(found.streams),
        "checks": [asdict(item) for item in found.checks],
        "problems": [asdict(item) for item in found.problems],
    }
    json.dump(document, sys.stdout, indent=2)
    print()


def _print(found: _Glance) -> None:
    from rich.console import Console

    from coeval_pipelines.coordination.check_status import CHECK_COLUMNS, check_row
    from coeval_pipelines.coordination.stream_text import print_problems, runs_table, table
    from coeval_pipelines.local.text import components_table

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    if found.local.components:
        console.print(components_table(found.local))
    else:
        console.print("The local stack is not running. Start it: coeval up")
    if found.streams is not None and found.streams.runs:
        console.print()
        console.print(runs_table(found.streams))
    if found.checks:
        console.print()
        console.print(table(CHECK_COLUMNS, map(check_row, found.checks)))
    if found.problems:
        console.print()
        print_problems(console, found.problems)
