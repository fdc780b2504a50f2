"""`coeval quality`: is the data what the catalog says it is? The exit code is the result."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from coeval.settings import Settings
    from coeval.spec.manifest import Manifest
    from coeval.spec.model import EventSource
    from coeval_parity.quality.result import QualityResult
    from coeval_parity.quality.run import RowsAtFault

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Source = Annotated[str, typer.Argument(help="The event source.")]
Batch = Annotated[int, typer.Argument(help="The batch's number.")]
Why = Annotated[str, typer.Option(help="The reason, which is kept.")]
Suites = Annotated[Path | None, typer.Option(help="Your own suites (default: feature_repo/quality).")]


def register(app: typer.Typer) -> None:
    """Add the command group to the root."""
    group = typer.Typer(help="Is the data what the catalog says? What is not is quarantined.", no_args_is_help=True)
    for command in (run, show, suggest, release, drop):
        group.command(command.__name__)(command)
    app.add_typer(group, name="quality")


def run(
    subjects: Annotated[
        list[str] | None,
        typer.Argument(help="log:SOURCE, training:NAME, served:SERVICE, or a path (default: every log)."),
    ] = None,
    batch: Annotated[int | None, typer.Option(help="One batch of a log (default: those not checked yet).")] = None,
    last: Annotated[str | None, typer.Option(help="Of a table, only what is that new: 1d, 7d (default: all).")] = None,
    rows: Annotated[int, typer.Option(min=0, help="Name so many rows of each broken rule; they are kept nowhere.")] = 0,
    ingest: Annotated[bool, typer.Option(help="Of served:SERVICE, first take in what is new in its log.")] = True,
    engine: Annotated[str, typer.Option(help="pandas, spark, or auto: by the number of rows.")] = "auto",
    suites: Suites = None,
    as_json: AsJson = False,
) -> None:
    """Check batches of logs and tables of features; exit 1 if a rule is broken.

    Rules follow from the manifest, and from suites of your own. A batch of a log that breaks one is quarantined:
    training sets and loads that need the log are refused until somebody says release or drop.

    Example: coeval quality run

    Example: coeval quality run training:coupon_propensity --rows 10

    Example: coeval quality run served:coupon_propensity --last 1d
    """
    from dataclasses import replace

    from coeval.errors import CheckFailedError, UsageError
    from coeval.settings import load_settings
    from coeval_parity.drift.commands import duration
    from coeval_parity.quality.run import run_quality

    if engine not in ("auto", "pandas", "spark"):
        raise UsageError(f"There is no engine {engine!r}.", "Choose one of: auto, pandas, spark.")
    settings = load_settings()
    at_fault: list[RowsAtFault] = []
    result = run_quality(
        settings,
        subjects or [],
        _suites(suites),
        batch=batch,
        engine=engine,
        last=None if last is None else duration(last),
        ingest=ingest,
        say=_say,
        on_rows=at_fault.append,
    )
    _print(settings, result, as_json, [replace(item, rows=item.rows[:rows]) for item in at_fault if rows])
    if result.docs:
        _say(f"pages {result.docs}")
    if not result.passed:
        names = ", ".join(item.name for item in result.checks if not item.passed)
        raise CheckFailedError(f"Quality: {names}.", f"Look: coeval quality show {result.run}")


def show(
    number: Annotated[int | None, typer.Argument(metavar="[RUN]", help="A run's number (default: the latest).")] = None,
    as_json: AsJson = False,
) -> None:
    """Show an earlier run again, and the batches that are quarantined now.

    Example: coeval quality show 12
    """
    from contextlib import closing
    from dataclasses import replace

    from coeval.errors import UsageError
    from coeval.settings import load_settings
    from coeval_parity.quality.result import from_document
    from coeval_pipelines.control import ControlPlane
    from coeval_pipelines.control.checks import QUALITY, CheckBook

    settings = load_settings()
    with closing(ControlPlane.open(settings)) as control:
        found = CheckBook(control).run(QUALITY, number)
    if found is None:
        what = "no quality run yet" if number is None else f"no quality run {number}"
        raise UsageError(f"There is {what}.", "Make one: coeval quality run")
    _print(settings, replace(from_document(found[1]), run=found[0]), as_json)


def suggest(
    subject: Annotated[str, typer.Argument(help="log:SOURCE, training:NAME, served:SERVICE, or a path.")],
    column: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
) -> None:
    """Print a suite that holds of the data as it is, with room: to be looked at, changed, and kept.

    Example: coeval quality suggest log:purchases > feature_repo/quality/purchases.json
    """
    from coeval.client import read_manifest
    from coeval.errors import UsageError
    from coeval.settings import load_settings
    from coeval_parity.drift.tables import open_drift_table
    from coeval_parity.quality.suggest import suggest as suggested

    settings = load_settings()
    table = open_drift_table(settings, read_manifest(settings.manifest_path), subject)
    unknown = sorted(set(column or ()) - set(table.files.types))
    if unknown:
        raise UsageError(f"{subject} has no column {unknown[0]}.", f"It has: {', '.join(table.features)}.")
    names = list(column or (name for name in table.features if name not in table.private))
    rules = [rule for name in names for rule in suggested(table.rows([name]), [name])]
    print(json.dumps({"expectations": [rule.to_document() for rule in rules]}, indent=2))


def release(source: Source, batch: Batch, why: Why) -> None:
    """Let a quarantined batch through as it is.

    Example: coeval quality release purchases 12 --why "a sale: the amounts are right"
    """
    from coeval_parity.quality.decide import release as let_through

    settings, manifest, chosen = _source(source)
    let_through(settings, manifest, chosen, batch, why)
    print(f"{source} batch {batch} released")


def drop(source: Source, batch: Batch, why: Why) -> None:
    """Take the rows that break rules out of the log, and let the rest of a quarantined batch through.

    They are kept in the table dropped/SOURCE. What the stream made of them is still online: mend it with
    coeval backfill run --correct.

    Example: coeval quality drop purchases 12 --why "the till of store 367 sent cents"
    """
    from coeval_parity.quality.decide import drop as take_out
    from coeval_pipelines.offline.session import spark_session

    settings, manifest, chosen = _source(source)
    with spark_session(settings) as spark:
        _, rows = take_out(spark, settings, manifest, chosen, batch, why)
    print(f"{source} batch {batch}: {rows:,} rows dropped. Mend what is online: coeval backfill run --correct")


def _source(name: str) -> tuple[Settings, Manifest, EventSource]:
    from coeval.client import read_manifest
    from coeval.errors import UsageError
    from coeval.settings import load_settings

    settings = load_settings()
    manifest = read_manifest(settings.manifest_path)
    known = {item.name: item for item in manifest.event_sources}
    if name not in known:
        raise UsageError(f"There is no event source {name!r}.", f"Known: {', '.join(known) or 'none'}.")
    return settings, manifest, known[name]


def _suites(given: Path | None) -> Path:
    here = [Path("quality")] if Path("feature_store.yaml").exists() else []
    return given or next((path for path in here if path.is_dir()), Path("feature_repo/quality"))


def _print(settings: Settings, result: QualityResult, as_json: bool, at_fault: Sequence[RowsAtFault] = ()) -> None:
    from dataclasses import asdict

    from rich.console import Console

    from coeval.client import read_manifest
    from coeval_parity.quality.text import print_quarantined, print_result, print_rows
    from coeval_pipelines.quarantine import Quarantine

    manifest = read_manifest(settings.manifest_path)
    waiting = [
        item for source in manifest.event_sources for item in Quarantine(settings, manifest.tenant, source.name).open()
    ]
    if as_json:
        quarantined: list[dict[str, Any]] = [{"source": item.source, "batch": item.batch} for item in waiting]
        document = result.to_document() | {"quarantined": quarantined, "rows_at_fault": [asdict(i) for i in at_fault]}
        json.dump(document, sys.stdout, indent=2, default=str)
        print()
        return
    console = Console(width=None if sys.stdout.isatty() else 160)
    print_result(result, console)
    print_rows(at_fault, console)
    print_quarantined(waiting, console)


def _say(message: str) -> None:
    print(f"quality: {message}", file=sys.stderr, flush=True)
