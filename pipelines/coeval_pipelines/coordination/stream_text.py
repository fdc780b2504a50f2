"""The status of the streams as text and as JSON: what is printed, and nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from coeval.spec.types import iso
from coeval_pipelines.coordination.stream_model import (
    FRESHNESS,
    LAG,
    Problem,
    RunStatus,
    StreamStatus,
    ViewStatus,
    seconds,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_RUN_COLUMNS = ("source", "run", "state", "tasks", "lag", "slowest", "events/s", "rejected", "late", "checkpoint")
_VIEW_COLUMNS = ("view", "version", "stream from", "batch cut", "ready", "p50", "slowest", "promised")


def as_document(status: StreamStatus) -> dict[str, Any]:
    """The status as JSON-ready values: instants in RFC 3339, durations in seconds; null is not known."""
    views = [
        {**asdict(view), "stream_from": _instant(view.stream_from), "batch_cut": _instant(view.batch_cut)}
        for view in status.views
    ]
    problems = [asdict(problem) for problem in status.problems]
    return {**asdict(status), "at": _instant(status.at), "views": views, "problems": problems}


def render(status: StreamStatus, as_json: bool = False) -> None:
    """Print the status: streams, views, and what is wrong with them."""
    if as_json:
        print(json.dumps(as_document(status), indent=2))
        return
    console = new_console()
    if not status.runs and not status.views:
        console.print("Nothing is deployed. coeval stream deploy")
    if status.runs:
        console.print(runs_table(status))
    if status.views:
        console.print(table(_VIEW_COLUMNS, (view_row(view, status.problems) for view in status.views)))
    print_problems(console, status.problems)


def new_console() -> Console:
    """Where tables are printed: as wide as the terminal, or as a line of a log may be."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)


def print_problems(console: Console, problems: Iterable[Problem]) -> None:
    """Print what is wrong, a line each, with where to read on or what to type."""
    for problem in problems:
        console.print(f"! {problem.subject}: {problem.what}  -> {problem.then}", markup=False, soft_wrap=True)


def runs_table(status: StreamStatus) -> Table:
    """The runs, each in a row."""
    return table(_RUN_COLUMNS, (run_row(run, status) for run in status.runs))


def run_row(run: RunStatus, status: StreamStatus) -> tuple[str, ...]:
    """The cells of a run."""
    about = {problem.then for problem in status.problems if problem.subject == run.source}
    fresh = [item.slowest for item in status.views if item.source == run.source and item.slowest is not None]
    rejected = "-" if run.read is None else f"{sum(run.rejected.values()):,}"
    return (
        run.source,
        str(run.run),
        run.state if run.intent == "running" else run.intent,
        f"{run.running_tasks}/{run.tasks}",
        marked(seconds(run.lag_seconds), LAG in about),
        seconds(max(fresh, default=None)),
        _rate(run),
        rejected,
        " ".join(f"{hop} {share:.1%}" for hop, share in run.late_shares.items()) or "-",
        f"{seconds(run.checkpoint_age)} ago" if run.checkpoint_age is not None else "-",
    )


def _rate(run: RunStatus) -> str:
    """Events a second, and how many the source's owner expects where that is said."""
    expected = "" if run.expected_rate is None else f" of {run.expected_rate:,.0f}"
    return "-" if run.events_per_second is None else f"{run.events_per_second:,.0f}{expected}"


def view_row(view: ViewStatus, problems: Iterable[Problem]) -> tuple[str, ...]:
    """The cells of a view."""
    stale = any(problem.subject == view.view and problem.then == FRESHNESS for problem in problems)
    ready = {True: "yes", False: "no !" if view.released else "no", None: "?"}[view.ready]
    return (
        view.view,
        view.version if view.released else f"{view.version} (next)",
        _instant(view.stream_from) or "-",
        _instant(view.batch_cut) or "-",
        ready,
        seconds(view.p50),
        marked(seconds(view.slowest), stale),
        seconds(view.promise),
    )


def marked(text: str, wrong: bool) -> str:
    """The text, with a mark where it breaks a promise."""
    return f"{text} !" if wrong else text


def table(columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> Table:
    """A table without lines."""
    from rich.table import Table

    found = Table(box=None, header_style="bold")
    for name in columns:
        found.add_column(name)
    for row in rows:
        found.add_row(*row)
    return found


def _instant(at: int | None) -> str | None:
    return None if at is None else iso(at)
