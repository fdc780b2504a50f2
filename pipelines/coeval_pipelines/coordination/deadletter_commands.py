"""`coeval deadletter`: the records that the log rejected: count them, look at them, repair and replay them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from coeval.settings import Settings
    from coeval.spec.manifest import Manifest
    from coeval.spec.model import EventSource
    from coeval_pipelines.control.deadletters import Place
    from coeval_pipelines.coordination.deadletter import Replayed
    from coeval_pipelines.offline.deadletters import Reject, Summary
    from coeval_pipelines.offline.repairs import Repair, Repaired

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Why = Annotated[str, typer.Option("--reason", help="Only rejects of this reason, e.g. bad_literal.")]
_SHOWN = 20
"""Repairs that a dry run shows in full."""
_PAGE = 5_000
"""Rejects that are read, repaired and sent together."""


def register(app: typer.Typer) -> None:
    """Add the command group to the root."""
    group = typer.Typer(help="Rejected records: list, show, repair and replay them.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("show")(show)
    group.command("replay")(replay)
    app.add_typer(group, name="deadletter")


def list_(
    source: Annotated[str, typer.Option(help="Only of this event source.")] = "",
    reason: Why = "",
    since: Annotated[str, typer.Option(help="Only what became available at or after this RFC 3339 instant.")] = "",
    as_json: AsJson = False,
) -> None:
    """Count the rejects that were ingested, by source and reason."""
    from coeval.client import read_manifest
    from coeval.settings import load_settings
    from coeval_pipelines.coordination.arguments import parse_instant
    from coeval_pipelines.offline.deadletters import known_reason, summaries
    from coeval_pipelines.offline.session import spark_session

    settings = load_settings()
    manifest = read_manifest(settings.manifest_path)
    sources = [_source(manifest.event_sources, source)] if source else list(manifest.event_sources)
    wanted, start = known_reason(reason), parse_instant(since, "--since") if since else None
    with spark_session(settings) as spark:
        found = summaries(spark, settings, manifest, sources, wanted, start)
    if as_json:
        print(json.dumps([_summary(item) for item in found], indent=2))
    else:
        _print_summaries(found)


def show(
    source: Annotated[str, typer.Argument(help="The event source.")],
    at: Annotated[
        list[str] | None, typer.Argument(help="PARTITION:OFFSET of rejects; h:NUMBER in history files.")
    ] = None,
    reason: Why = "",
    limit: Annotated[int, typer.Option(help="At most so many.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Print rejects: their raw bytes, where and when they came in, and what is wrong with them."""
    from coeval.client import read_manifest
    from coeval.settings import load_settings
    from coeval_pipelines.offline.deadletters import known_reason, parse_position, rejects
    from coeval_pipelines.offline.session import spark_session

    settings = load_settings()
    manifest = read_manifest(settings.manifest_path)
    chosen = _source(manifest.event_sources, source)
    positions, wanted = [parse_position(text) for text in at or ()], known_reason(reason)
    with spark_session(settings) as spark:
        found = rejects(spark, settings, manifest, chosen, wanted, positions, limit)
        documents = [_reject(chosen, item) for item in found]
    if as_json:
        print(json.dumps(documents, indent=2))
        return
    for document in documents:
        print(f"{document['at']}  {document['available_at']}  {document['reason']}")
        print(f"  {document['value']}")
        for problem in document["why"] or ["valid by the source as it is now: replay it"]:  # type: ignore[attr-defined]
            print(f"  {problem}")


def replay(
    source: Annotated[str, typer.Argument(help="The event source.")],
    reason: Why = "",
    at: Annotated[
        list[str] | None, typer.Option("--at", help="PARTITION:OFFSET of a reject, or h:NUMBER; repeatable.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="FIELD=VALUE in the documents at --at; repeatable.")
    ] = None,
    repair: Annotated[str, typer.Option(help="MODULE:FUNCTION from the raw bytes to bytes, or None to skip.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Replay all of them; needed without --at.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent; send nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Repair rejects and send them to the topic again, each once. Without a repair: those that are valid by now.

    Without --at, it is said how many there are of each reason, and --yes is needed; future_dated only by --reason.
    """
    from coeval.client import read_manifest
    from coeval.settings import load_settings
    from coeval_pipelines.coordination.runs import now
    from coeval_pipelines.erasures import ErasureTable
    from coeval_pipelines.offline import deadletters as room
    from coeval_pipelines.offline.repairs import repair as repaired_of
    from coeval_pipelines.offline.session import spark_session

    settings = load_settings()
    manifest = read_manifest(settings.manifest_path)
    chosen, change = _source(manifest.event_sources, source), _change(manifest, source, set_ or (), repair, at or ())
    positions, wanted = [room.parse_position(text) for text in at or ()], room.known_reason(reason)
    without = room.not_in_bulk(wanted, positions)
    with spark_session(settings) as spark:
        total = 0
        if not positions and not dry_run:
            counted = room.summaries(spark, settings, manifest, [chosen], wanted)
            total = _confirmed([item for item in counted if item.reason not in without], yes)
        found = room.rejects(spark, settings, manifest, chosen, wanted, positions, without=without)
        erasures = ErasureTable(settings, manifest.tenant).erasures()
        repaired = (repaired_of(chosen, item, change, now(), erasures) for item in found)
        if dry_run:
            _print_dry_run(repaired, as_json)
        else:
            _print_replayed(_replayed(settings, chosen, repaired, total), as_json)


def _change(
    manifest: Manifest, source: str, assignments: Sequence[str], function: str, at: Sequence[str]
) -> Repair | None:
    from coeval.errors import UsageError
    from coeval_pipelines.offline.repairs import imported, setting

    if assignments and function:
        raise UsageError("--set and --repair exclude each other.", "Do in the function what --set would do.")
    if assignments and not at:
        raise UsageError(
            "--set says what one record is, not what all of them are.", "Name it with --at; for many, use --repair."
        )
    chosen = _source(manifest.event_sources, source)
    return setting(chosen, assignments) if assignments else imported(function) if function else None


def _confirmed(found: Sequence[Summary], yes: bool) -> int:
    """How many there are, once that is said and agreed to."""
    from coeval.errors import UsageError

    for item in found:
        print(f"{item.reason:<16} {item.count:>10,}", file=sys.stderr)
    total = sum(item.count for item in found)
    if total and not yes:
        raise UsageError(
            f"{total:,} rejects would be judged, and sent where they are valid.",
            "Look with --dry-run; then add --yes, --reason or --at.",
        )
    return total


def _replayed(settings: Settings, source: EventSource, repaired: Iterator[Repaired], total: int) -> Replayed:
    from coeval_pipelines.control import ControlPlane
    from coeval_pipelines.coordination import deadletter
    from coeval_pipelines.coordination.runs import now

    done = deadletter.Replayed()
    with closing(ControlPlane.open(settings)) as control, _progress(total) as advance:
        while page := list(islice(repaired, _PAGE)):
            done = done.plus(deadletter.replay(settings, control, source, page, now, advance))
    return done


def _source(sources: Sequence[EventSource], name: str) -> EventSource:
    from coeval.errors import UsageError

    for source in sources:
        if source.name == name:
            return source
    raise UsageError(f"There is no event source {name!r}.", f"Known: {', '.join(item.name for item in sources)}.")


def _summary(item: Summary) -> dict[str, object]:
    from coeval_pipelines.offline.deadletters import position_text

    times = {"first": _instant(item.first), "last": _instant(item.last)}
    return {
        "source": item.source,
        "reason": item.reason,
        "count": item.count,
        **times,
        "example": position_text(item.example),
    }


def _instant(at: int | None) -> str:
    from coeval.spec.types import iso

    return iso(at) if at else "-"


def _print_summaries(found: Sequence[Summary]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for name in ("source", "reason", "count", "first", "last", "example"):
        table.add_column(name, justify="right" if name == "count" else "left")
    for item in found:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in _summary(item).values()))
    Console(width=None if sys.stdout.isatty() else 160).print(table if found else "Nothing was rejected.")


def _reject(source: EventSource, item: Reject) -> dict[str, object]:
    from coeval_pipelines.offline.deadletters import escaped
    from coeval_pipelines.offline.repairs import why

    return {
        "at": _at(item.place),
        "available_at": _instant(item.record.available_at),
        "reason": item.reason,
        "value": "(erased)" if item.erased else escaped(item.record.value),
        "why": why(source, item),
    }


def _at(place: Place) -> str:
    from coeval_pipelines.offline.deadletters import position_text

    return position_text((place.partition, place.offset))


def _repaired(item: Repaired) -> dict[str, object]:
    from coeval_pipelines.offline.deadletters import escaped

    before = "(erased)" if item.reject.erased else escaped(item.reject.record.value)
    after = escaped(item.value) if item.value is not None else None
    return {
        "at": _at(item.reject.place),
        "before": before,
        "after": after,
        "problems": list(item.problems),
    }


def _print_dry_run(repaired: Iterator[Repaired], as_json: bool) -> None:
    if as_json:
        print(json.dumps([_repaired(item) for item in repaired], indent=2))
        return
    count = valid = 0
    for item in repaired:
        count, valid = count + 1, valid + (not item.problems)
        if count <= _SHOWN:
            _print_repaired(_repaired(item))
    print(f"{valid:,} of {count:,} would be sent")


def _print_repaired(document: dict[str, object]) -> None:
    print(f"{document['at']}\n- {document['before']}")
    if document["after"] != document["before"] and document["after"] is not None:
        print(f"+ {document['after']}")
    for problem in document["problems"]:  # type: ignore[attr-defined]
        print(f"  not sent: {problem}")


def _print_replayed(done: Replayed, as_json: bool) -> None:
    from coeval_pipelines.offline.repairs import ERASED

    before = {_at(place): _instant(at) for place, at in done.before.items()}
    erased = sum(item.problems == (ERASED,) for item in done.refused)
    if as_json:
        document = {
            "sent": [_at(place) for place in done.sent],
            "recovered": [_at(place) for place in done.recovered],
            "before": before,
            "refused": [_repaired(item) for item in done.refused],
            "erased": erased,
        }
        print(json.dumps(document, indent=2))
        return
    print(f"{len(done.sent):,} sent, {len(done.refused):,} not sent, of which {erased:,} of erased subjects")
    if done.recovered:
        print(f"{len(done.recovered):,} had been sent by a replay that was interrupted")
    for position, at in before.items():
        print(f"{position} already replayed at {at}")
    for item in done.refused[:_SHOWN]:
        print(f"{_at(item.reject.place)} not sent: " + "; ".join(item.problems))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where somebody watches."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("replaying", total=total)
        yield lambda number: bar.advance(task, number)
