"""`coeval drift`: do values still look like what the model was trained on? The exit code is the result."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from coeval_parity.drift.result import DriftResult

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Every = Annotated[bool, typer.Option("--all", help="List every feature, not only those that drifted.")]


def register(app: typer.Typer) -> None:
    """Add the command group to the root."""
    group = typer.Typer(help="Do values still look like their baseline?", no_args_is_help=True)
    group.command("run")(run)
    group.command("show")(show)
    app.add_typer(group, name="drift")


def run(
    table: Annotated[str, typer.Argument(help="served:SERVICE, training:NAME, log:SOURCE, or a path.")],
    against: Annotated[str | None, typer.Option(help="The baseline, named likewise (default: weeks before).")] = None,
    last: Annotated[str | None, typer.Option(help="The window's length: 1d, 7d (default: 1d, or all rows).")] = None,
    until: Annotated[str | None, typer.Option(help="Where the window ends: 2026-11-20T00:00:00Z.")] = None,
    weeks: Annotated[int, typer.Option(min=1, help="Weeks before the window that say what is usual.")] = 8,
    time: Annotated[str | None, typer.Option(help="The column of instants (default: found by name).")] = None,
    feature: Annotated[list[str] | None, typer.Option(help="Compare only this one; may be repeated.")] = None,
    rules: Annotated[Path | None, typer.Option(help="Limits and kinds by feature, JSON: see docs/drift.md.")] = None,
    html: Annotated[Path | None, typer.Option(help="Where to write the page.")] = None,
    ingest: Annotated[bool, typer.Option(help="Of served:SERVICE, first take in what is new in its log.")] = True,
    every: Every = False,
    as_json: AsJson = False,
) -> None:
    """Compare a window of a table with its baseline; exit 1 if a feature drifted.

    Alone, the last whole day is compared with the same weekday of the weeks before, and may be as far off as such days
    usually are. With --against, a sample is compared with another table, such as what a model was trained on.
    A distance is drift if it exceeds its threshold, what chance reaches at so few rows, and what is usual.

    Example: coeval drift run log:purchases

    Example: coeval drift run served:coupon_propensity --last 1d --against training:coupon_propensity
    """
    from coeval.errors import CheckFailedError
    from coeval.settings import load_settings
    from coeval_parity.drift.rules import read_rules
    from coeval_parity.drift.run import Ask, run_drift

    ask = Ask(
        window=table,
        against=against,
        time=time,
        length=None if last is None else duration(last),
        until=None if until is None else _instant(until),
        weeks=weeks,
        features=tuple(feature or ()),
        ingest=ingest,
    )
    result = run_drift(load_settings(), ask, read_rules(rules), _say, html)
    _print(result, as_json, every)
    _say(f"report {result.report}")
    if not result.passed:
        names = ", ".join(item.feature for item in result.drifted)
        raise CheckFailedError(f"Drift: {names}.", f"Open {result.report}, or: coeval drift show {result.run}")


def show(
    number: Annotated[int | None, typer.Argument(metavar="[RUN]", help="A run's number (default: the latest).")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the run's page there.")] = None,
    every: Every = False,
    as_json: AsJson = False,
) -> None:
    """Show an earlier run again.

    Example: coeval drift show 12 --html /tmp/drift.html
    """
    from contextlib import closing
    from dataclasses import replace

    from coeval.errors import UsageError
    from coeval.settings import load_settings
    from coeval_parity.drift.report import write_page
    from coeval_parity.drift.result import from_document
    from coeval_pipelines.control import ControlPlane
    from coeval_pipelines.control.checks import DRIFT, CheckBook

    with closing(ControlPlane.open(load_settings())) as control:
        book = CheckBook(control)
        found = book.run(DRIFT, number)
        if found is None:
            what = "no drift run yet" if number is None else f"no drift run {number}"
            raise UsageError(f"There is {what}.", "Make one: coeval drift run TABLE")
        result = replace(from_document(found[1]), run=found[0])
        if html is not None:
            write_page(result, book.history(DRIFT, result.window), html)
            _say(f"report {html}")
    _print(result, as_json, every)


def _print(result: DriftResult, as_json: bool, every: bool) -> None:
    from rich.console import Console

    from coeval_parity.drift.text import print_result

    if as_json:
        json.dump(result.to_document(), sys.stdout, indent=2)
        print()
    else:
        print_result(result, Console(width=None if sys.stdout.isatty() else 180), every=every)


def duration(text: str) -> int:
    """Microseconds of a duration such as 7d.

    Raises:
        UsageError: it is none.
    """
    from coeval.errors import UsageError
    from coeval.spec.time import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{error}.", "Give a duration such as 24h or 7d.") from error


def _instant(text: str) -> int:
    from coeval.errors import UsageError
    from coeval.spec.types import TIMESTAMP, parse_literal

    try:
        return int(parse_literal(TIMESTAMP, text))  # type: ignore[arg-type]
    except ValueError as error:
        raise UsageError(f"{error}.", "Give an instant such as 2026-11-20T00:00:00Z.") from error


def _say(message: str) -> None:
    print(f"drift: {message}", file=sys.stderr, flush=True)
