"""`coeval log` and `coeval training-set`: ingest, see what became of every record, build training sets."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def register(app: typer.Typer) -> None:
    """Add the command groups to the root."""
    log = typer.Typer(help="The event log: what was ingested, and what became of every record.", no_args_is_help=True)
    log.command("ingest")(ingest)
    log.command("status")(status)
    training_set = typer.Typer(help="Point-in-time-correct training sets.", no_args_is_help=True)
    training_set.command("build")(build)
    app.add_typer(log, name="log")
    app.add_typer(training_set, name="training-set")


def ingest(
    source: Annotated[str, typer.Argument(help="An event source (default: every one).")] = "",
    as_json: AsJson = False,
) -> None:
    """Load history files, once, and what is new in the topics into the event log. It may be repeated."""
    from coeval.client import read_manifest
    from coeval.settings import load_settings
    from coeval_pipelines.offline.event_log import ingest_history, ingest_topic
    from coeval_pipelines.offline.session import spark_session

    settings = load_settings()
    manifest = read_manifest(settings.manifest_path)
    chosen = _sources(manifest, source)
    reports = []
    with spark_session(settings) as spark:
        for item in chosen:
            print(f"Ingesting {item.name} ...", file=sys.stderr)
            history = ingest_history(spark, settings, manifest, item)
            reports.append(history.plus(ingest_topic(spark, settings, manifest, item)))
    _print_reports(reports, as_json)


def status(as_json: AsJson = False) -> None:
    """Print what became of every record so far: read = good + rejected + duplicate."""
    from coeval.client import read_manifest
    from coeval.settings import load_settings
    from coeval_pipelines.offline.event_log import totals

    settings = load_settings()
    manifest = read_manifest(settings.manifest_path)
    _print_reports([totals(settings, manifest, item) for item in _sources(manifest, "")], as_json)


def build(
    service: Annotated[str, typer.Argument(help="The feature service, e.g. coupon_propensity.")],
    spine: Annotated[str, typer.Option(help="Parquet files or a Delta table, or a SELECT, with event_timestamp.")],
    name: Annotated[str, typer.Option(help="The name of the training set.")],
    knowledge: Annotated[str, typer.Option(help="available (what could be known then) or final.")] = "available",
    as_json: AsJson = False,
) -> None:
    """Build a training set: every spine row with the features that were visible at its event_timestamp."""
    from coeval.client import read_manifest
    from coeval.settings import load_settings
    from coeval_pipelines.offline.session import spark_session
    from coeval_pipelines.offline.training_set import build_training_set

    settings = load_settings()
    manifest = read_manifest(settings.manifest_path)
    with spark_session(settings) as spark:
        built = build_training_set(spark, settings, manifest, service, spine, name, knowledge)
    if as_json:
        document = {"path": str(built.path), "rows_in": built.rows_in, "rows_out": built.rows_out}
        print(json.dumps({**document, "lineage": dict(built.lineage)}, indent=2))
    else:
        print(f"{built.rows_out:,} rows of {built.rows_in:,}   {built.path}")
        print(f"content {built.lineage['content_hash'][:16]}   manifest {built.lineage['manifest'][:12]}")


def _sources(manifest: Any, name: str) -> list[Any]:
    from coeval.errors import UsageError

    known = {item.name: item for item in manifest.event_sources}
    if name and name not in known:
        raise UsageError(f"There is no event source {name!r}.", f"Known: {', '.join(known) or 'none'}.")
    return [known[name]] if name else list(known.values())


def _print_reports(reports: list[Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"sources": [report.to_dict() for report in reports]}, indent=2))
        return
    for report in reports:
        reasons = ", ".join(f"{name} {number:,}" for name, number in report.rejected.items())
        late = ", ".join(f"{name} {number:,}" for name, number in report.late.items())
        rejected = sum(report.rejected.values())
        parts = f"good {report.good:,} + rejected {rejected:,} + duplicate {report.duplicates:,}"
        print(f"{report.source:<24} read {report.read:,} = {parts}")
        print(f"{'':<24} rejected: {reasons or 'none'}   conflicts {report.conflicts:,}   late: {late or 'none'}")
