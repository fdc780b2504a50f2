"""`coeval schedule`: run commands when they are due, see what became of them."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from coeval_pipelines.schedule.book import RunEntry

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def register(app: typer.Typer) -> None:
    """Add the command group to the root."""
    group = typer.Typer(help="Run commands when they are due, and tell who is to be told.", no_args_is_help=True)
    group.command("run")(run)
    group.command("list")(show)
    group.command("history")(history)
    group.command("metrics")(metrics)
    app.add_typer(group, name="schedule")


def run(
    job: Annotated[str | None, typer.Argument(help="Run this one now, once, and end as it ends.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run every job when it is due, until SIGTERM; or one job once, as cron, Kubernetes or Airflow would.

    Jobs are in coeval.toml, over those that are there without:

        [schedule.parity]
        command = "parity run card_spend"
        every = "30m"

    A run that comes due while the one before is not over is refused. What was due while no scheduler ran is reported
    as missed, and made up for once. A job that fails is told to [notify] webhooks and Alertmanager.
    """
    import threading

    from coeval.logs import configure_logging
    from coeval.settings import load_settings
    from coeval_pipelines.schedule.jobs import jobs, named
    from coeval_pipelines.schedule.scheduler import serve, until_told

    settings, stop = load_settings(), threading.Event()
    until_told(stop)
    if job is None:
        configure_logging("info")
        serve(settings, jobs(settings.schedule), stop)
        return
    from coeval_pipelines.schedule.runner import check, run_job

    entry = run_job(settings, named(settings.schedule, job), stop)
    if as_json:
        print(json.dumps(_document(entry), indent=2))
    else:
        print(f"{entry.job}: {entry.outcome}   {entry.log}")
    check(entry)


def show(as_json: AsJson = False) -> None:
    """Show the jobs: when each is due, what became of its last run, what is wrong with it since when."""
    from datetime import UTC, datetime

    from coeval.settings import load_settings
    from coeval.spec.types import micros
    from coeval_pipelines.schedule.book import ScheduleBook
    from coeval_pipelines.schedule.jobs import jobs

    settings = load_settings()
    rows: list[dict[str, Any]] = []
    with closing(ScheduleBook.open(settings)) as book:
        problems = book.problems()
        for name, job in jobs(settings.schedule).items():
            last = next(iter(book.runs(name, limit=1)), None)
            due, problem = job.after(datetime.now(UTC)), problems.get(name)
            rows.append(
                {
                    "job": name,
                    "command": " ".join(job.command),
                    "when": job.when,
                    "next": _iso(micros(due)) if due else None,
                    "last": _document(last) if last else None,
                    "wrong_since": _iso(problem.since) if problem else None,
                }
            )
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    columns = ("job", "command", "when", "next (UTC)", "last run (UTC)", "outcome", "wrong since (UTC)")
    _table(columns, [_line(row) for row in rows])


def history(
    job: Annotated[str | None, typer.Argument(help="Of this job alone.")] = None,
    limit: Annotated[int, typer.Option(help="So many of the newest runs.", min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the newest runs: what became of each, how long it took, its last words, where its output is."""
    from coeval.settings import load_settings
    from coeval_pipelines.schedule.book import ScheduleBook

    with closing(ScheduleBook.open(load_settings())) as book:
        found = [_document(entry) for entry in book.runs(job, limit)]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    lines = [_run_line(item) for item in found]
    _table(("run", "job", "began (UTC)", "took", "outcome", "last words"), lines)


def metrics() -> None:
    """Print what checks found last as Prometheus reads it: for the textfile collector, where nothing serves metrics.

    Example: coeval schedule metrics > checks.prom.new && mv checks.prom.new /var/lib/node_exporter/checks.prom
    """
    from prometheus_client import CollectorRegistry, generate_latest

    from coeval.settings import load_settings
    from coeval_pipelines.control import ControlPlane
    from coeval_pipelines.coordination.check_metrics import CheckMetrics

    settings, registry = load_settings(), CollectorRegistry()
    with closing(ControlPlane.open(settings)) as control:
        registry.register(CheckMetrics(settings, control))
        print(generate_latest(registry).decode(), end="")


def _document(entry: RunEntry) -> dict[str, Any]:
    from dataclasses import asdict

    times = {name: _iso(getattr(entry, name)) for name in ("due_at", "started_at", "ended_at")}
    return {**asdict(entry), **times, "seconds": ((entry.ended_at or entry.started_at) - entry.started_at) / 1e6}


def _line(row: dict[str, Any]) -> list[str]:
    last = row["last"] or {"started_at": None, "outcome": "-"}
    times = (_short(last["started_at"]), last["outcome"], _short(row["wrong_since"]))
    return [row["job"], row["command"], row["when"], _short(row["next"]), *times]


def _run_line(item: dict[str, Any]) -> list[str]:
    last_words = item["summary"].splitlines()[-1:] or [""]
    number, took = str(item["number"]), f"{item['seconds']:.0f} s"
    return [number, item["job"], _short(item["started_at"]), took, item["outcome"], *last_words]


def _iso(at: int | None) -> str | None:
    from coeval.spec.types import iso

    return None if at is None else iso(at)


def _short(text: str | None) -> str:
    return f"{text[:19]}Z" if text else "-"


def _table(columns: tuple[str, ...], lines: list[list[str]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns, box=None, header_style="bold")
    for line in lines:
        table.add_row(*map(escape, line))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
