"""`coeval parity`: compare what is served with what training would use; the exit code is the result."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coeval_parity.freshness.commands import freshness
from coeval_parity.history import gate, history
from coeval_parity.rebuild.commands import rebuild
from coeval_parity.served_command import forget
from coeval_parity.story_command import explain

if TYPE_CHECKING:
    from coeval_parity.result import ParityResult
    from coeval_pipelines.control import ControlPlane

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table, with single values.")]
Values = Annotated[bool, typer.Option("--values", help="Print single values that differ, with their keys.")]


def register(app: typer.Typer) -> None:
    """Add the command group to the root."""
    group = typer.Typer(help="Does the store serve what training would use? If not: exactly why?", no_args_is_help=True)
    group.command("run")(run)
    group.command("show")(show)
    group.command("replay")(replay)
    group.command("gate")(gate)
    group.command("history")(history)
    group.command("rebuild")(rebuild)
    group.command("forget")(forget)
    app.add_typer(group, name="parity")
    app.command("explain")(explain)
    app.command("freshness")(freshness)


def run(
    views: Annotated[list[str] | None, typer.Argument(help="Views to compare (default: all).")] = None,
    as_json: AsJson = False,
    html: Annotated[Path | None, typer.Option(help="Where to write the report.")] = None,
    ingest: Annotated[bool, typer.Option(help="Read what is new in the topics, too.")] = True,
    engine: Annotated[str, typer.Option(help="auto, local (this process) or spark.")] = "auto",
    sample: Annotated[float, typer.Option(min=0.0, max=1.0, help="The share of keys to compare.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Which keys are in the sample.")] = 0,
    values: Values = False,
) -> None:
    """Compare stored values with the log; exit 1 if one differs without a benign cause, or too many are late.

    What takes up to 4 GB of memory is computed in this process, with what the topics hold beyond the log; more than
    that by Spark, which reads the topics into the log first.

    Example: coeval parity run household_spend --sample 0.1
    """
    from coeval.client import read_manifest
    from coeval.errors import CheckFailedError
    from coeval.settings import load_settings
    from coeval_parity.run import Sample, run_parity

    settings = load_settings()
    manifest = read_manifest(settings.manifest_path)
    result = run_parity(
        settings,
        manifest,
        views=views,
        on_progress=_progress,
        ingest=ingest,
        html=html,
        wanted=engine,
        sample=Sample(sample, seed),
    )
    _print(result, as_json, values=values)
    _progress(f"report {result.report}")
    if not result.passed:
        raise CheckFailedError(
            f"Parity failed: {'; '.join(result.breaches)}.",
            f"Open {result.report}, or: coeval parity show {result.run}",
        )


def replay(
    views: Annotated[list[str] | None, typer.Argument(help="Views to compare (default: all).")] = None,
    since: Annotated[str, typer.Option(help="Responses from this instant on: 2026-11-20T00:00:00Z.")] = "",
    until: Annotated[str, typer.Option(help="Responses before this instant.")] = "",
    as_json: AsJson = False,
    html: Annotated[Path | None, typer.Option(help="Where to write the report.")] = None,
    ingest: Annotated[bool, typer.Option(help="First read the serving log, and what is new in the topics.")] = True,
    engine: Annotated[str, typer.Option(help="auto, local (this process) or spark.")] = "auto",
    values: Values = False,
) -> None:
    """Compute what was served again, each response as of its instant; exit 1 if a difference is not benign.

    What the feature server logs (COEVAL_SERVER__SERVING_LOG) is taken into a table, exactly once, and compared value by
    value with what the log of events says that training would have used.

    Example: coeval parity replay card_spend --since 2026-11-20T00:00:00Z
    """
    from coeval.client import read_manifest
    from coeval.errors import CheckFailedError
    from coeval.settings import load_settings
    from coeval_parity.replay import Span, run_replay
    from coeval_parity.story_command import instant

    settings = load_settings()
    manifest = read_manifest(settings.manifest_path)
    span = Span(instant(since, "--since"), instant(until, "--until"))
    result = run_replay(settings, manifest, span, views, _progress, ingest=ingest, wanted=engine, html=html)
    _print(result, as_json, values=values)
    _progress(f"report {result.report}")
    if not result.passed:
        raise CheckFailedError(f"Replay failed: {'; '.join(result.breaches)}.", f"Open {result.report}")


def show(
    number: Annotated[int | None, typer.Argument(metavar="[RUN]", help="A run's number (default: the latest).")] = None,
    as_json: AsJson = False,
    html: Annotated[Path | None, typer.Option(help="Write the run's report there.")] = None,
) -> None:
    """Show an earlier run again, with the first values that differ.

    Example: coeval parity show 12 --html /tmp/parity.html
    """
    from contextlib import closing

    from coeval.settings import load_settings
    from coeval_parity.report import write_report
    from coeval_pipelines.control import ControlPlane

    settings = load_settings()
    with closing(ControlPlane.open(settings)) as control:
        result = _load(control, number, settings.home / "reports")
        if html is not None:
            write_report(control, result, html)
            _progress(f"report {html}")
    _print(result, as_json)


def _load(control: ControlPlane, number: int | None, folder: Path) -> ParityResult:
    from dataclasses import replace

    from coeval.errors import UsageError
    from coeval_parity.document import from_document
    from coeval_parity.pages import page_of
    from coeval_pipelines.control.parity import ParityBook

    found = ParityBook(control).run(number)
    if found is None:
        what = "no parity run yet" if number is None else f"no parity run {number}"
        raise UsageError(f"There is {what}.", "Make one: coeval parity run")
    result, page = from_document(found[1]), page_of(folder, found[0])
    return replace(result, run=found[0], report=str(page) if page.is_file() else result.report)


def _print(result: ParityResult, as_json: bool, *, values: bool = True) -> None:
    from rich.console import Console

    from coeval_parity.document import to_document
    from coeval_parity.text import print_result

    if as_json:
        json.dump(to_document(result), sys.stdout, indent=2)
        print()
    else:
        print_result(result, Console(width=None if sys.stdout.isatty() else 180), values=values)


def _progress(message: str) -> None:
    print(f"parity: {message}", file=sys.stderr, flush=True)
