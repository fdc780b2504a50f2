"""`coeval log`: ingest, status, and upkeep: compact, retain, erase."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from coeval.settings import Settings
    from coeval.spec.manifest import Manifest
    from coeval.spec.model import EventSource

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Source = Annotated[str, typer.Argument(help="An event source (default: every one).")]
Keep = Annotated[str, typer.Option(help="How long a reader may go on reading files that were replaced: 7d, 24h, 0h.")]


def register(app: typer.Typer) -> None:
    """Add the command group to the root."""
    log = typer.Typer(help="The event log: what was ingested, and what became of every record.", no_args_is_help=True)
    for command in (ingest, status, compact, retain, erase):
        log.command(command.__name__)(command)
    app.add_typer(log, name="log")


def ingest(source: Source = "", as_json: AsJson = False) -> None:
    """Load history files, once, and what is new in the topics into the event log. It may be repeated."""
    from coeval_pipelines.offline.event_log import ingest_history, ingest_topic
    from coeval_pipelines.offline.session import spark_session

    settings, manifest, chosen = _chosen(source)
    reports = []
    with spark_session(settings) as spark:
        for item in chosen:
            _say(f"Ingesting {item.name} ...")
            history = ingest_history(spark, settings, manifest, item)
            reports.append(history.plus(ingest_topic(spark, settings, manifest, item)))
    _print_reports(reports, as_json)


def status(source: Source = "", as_json: AsJson = False) -> None:
    """Print what became of every record, and the size, files, versions and age of the tables. Needs no Spark."""
    from coeval_pipelines.offline.log_status import log_state, state_lines

    settings, manifest, chosen = _chosen(source)
    now = time.time_ns() // 1000
    states = [log_state(settings, manifest, item) for item in chosen]
    if as_json:
        print(json.dumps({"sources": [state.to_dict(now) for state in states]}, indent=2))
        return
    for state in states:
        print("\n".join(state_lines(state, now)))


def compact(
    source: Source = "",
    by_key: Annotated[
        bool, typer.Option("--by-key", help="Write the whole log anew by key and time: pays where few keys are read.")
    ] = False,
    keep: Keep = "7d",
    as_json: AsJson = False,
) -> None:
    """Join small files, and remove replaced ones that are older than --keep. An ingest may run beside it.

    Versions of the log that training sets were made of stay readable.
    """
    from coeval_pipelines.offline.compaction import compact as run
    from coeval_pipelines.offline.session import spark_session

    settings, manifest, chosen = _chosen(source)
    hours, tables = _hours(keep), []
    with spark_session(settings) as spark:
        for item in chosen:
            _say(f"Compacting {item.name} ...")
            tables += run(spark, settings, manifest, item, by_key, hours)
    if as_json:
        print(json.dumps({"tables": [asdict(table) for table in tables]}, indent=2))
        return
    for table in tables:
        print(
            f"{table.source:<24} {table.table:<11} {table.before.files:>6,} -> {table.after.files:,} files"
            f"   {table.removed_files:,} old ones removed"
        )


def retain(
    older_than: Annotated[str, typer.Option(help="Let go what happened longer ago than this, e.g. 400d.")],
    source: Source = "",
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without, it is only counted.")] = False,
    keep: Keep = "7d",
    as_json: AsJson = False,
) -> None:
    """Let old events go, never one that a view of the applied or the released catalog still needs.

    Spines may not ask for values from before then any more: they are refused with the earliest instant that can be
    asked for. Versions of the log that training sets were made of stay readable.
    """
    from coeval_pipelines.offline.retention import check_retain
    from coeval_pipelines.offline.retention import retain as run
    from coeval_pipelines.offline.session import spark_session

    settings, manifest, chosen = _chosen(source)
    now = time.time_ns() // 1000
    manifests, hours = _served(settings, manifest), _hours(keep)
    before = now - _microseconds(older_than)
    for item in chosen:  # Of several none is touched if one is refused.
        check_retain(settings, manifests, item, before, now)
    with spark_session(settings) as spark:
        done = [run(spark, settings, manifests, item, before, now, hours, not apply) for item in chosen]
    if as_json:
        print(json.dumps({"applied": apply, "sources": [asdict(item) for item in done]}, indent=2))
        return
    for let_go in done:
        rows = ", ".join(f"{kind} {count:,}" for kind, count in let_go.rows.items()) or "nothing"
        print(f"{let_go.source:<24} {'let go' if apply else 'would let go'}: {rows}")
        if let_go.kept_for:
            print(f"{'':<24} training sets keep their versions: {', '.join(let_go.kept_for)}")
    if not apply:
        print("Nothing was changed. Do it: --apply")


def erase(
    source: Source = "",
    keep: Keep = "24h",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what is there; change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove from every file what was erased (coeval erase), and prove it by reading them all.

    Exit code 1 while files that are younger than --keep still hold some of it: run it again then, or with --keep 0h
    where nothing reads the log.
    """
    from coeval_pipelines.offline.removal import remove_erased
    from coeval_pipelines.offline.session import spark_session

    settings, manifest, chosen = _chosen(source)
    hours, done = _hours(keep), []
    with spark_session(settings) as spark:
        for item in chosen:
            _say(f"Removing what was erased of {item.name} ...")
            done += remove_erased(spark, settings, manifest, item, hours, dry_run)
    left = sum(item.left for item in done)
    if as_json:
        print(json.dumps({"gone": not left, "tables": [asdict(item) for item in done]}, indent=2))
    else:
        _print_removals(done, dry_run)
    if left and not dry_run:
        raise typer.Exit(1)


def _print_removals(done: list[Any], dry_run: bool) -> None:
    for item in done:
        print(
            f"{item.source:<24} {item.table:<11} {item.found:>8,} rows of erased subjects in all files"
            f" ({item.live:,} in the table){'' if dry_run else f' -> {item.left:,}'}"
            f"   {item.removed_files:,} files removed"
        )
        if item.waiting and not dry_run:
            print(f"{'':<24} {len(item.waiting):,} replaced files still hold them: something may be reading these")
        if item.broken:
            print(f"{'':<24} cannot be built again from its version of the log: {', '.join(item.broken)}")
    if not done:
        print("Nothing of these sources was erased.")


def _chosen(name: str) -> tuple[Settings, Manifest, list[EventSource]]:
    from coeval.client import read_manifest
    from coeval.errors import UsageError
    from coeval.settings import load_settings

    settings = load_settings()
    manifest = read_manifest(settings.manifest_path)
    known = {item.name: item for item in manifest.event_sources}
    if name and name not in known:
        raise UsageError(f"There is no event source {name!r}.", f"Known: {', '.join(known) or 'none'}.")
    return settings, manifest, [known[name]] if name else list(known.values())


def _served(settings: Settings, manifest: Manifest) -> list[Manifest]:
    """The applied manifest, and the one that readers follow."""
    from coeval_pipelines.control import ControlPlane

    with closing(ControlPlane.open(settings)) as control:
        released = control.released()
    return [manifest] if released is None else [manifest, released]


def _microseconds(text: str) -> int:
    from coeval.errors import UsageError
    from coeval.spec.time import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{error}.", "Give a duration such as 24h or 400d.") from error


def _hours(text: str) -> int:
    return -(-_microseconds(text) // 3_600_000_000)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


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
