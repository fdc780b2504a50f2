"""`coeval deadletter`: the records that the log rejected: count them, look at them, repair and replay them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from coeval.spec.model import EventSource
    from coeval_pipelines.coordination.deadletter import Replayed
    from coeval_pipelines.offline.deadletters import Reject, Repaired, Summary

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Why = Annotated[str, typer.Option("--reason", help="Only rejects of this reason, e.g. bad_literal.")]
_SHOWN = 20
"""Repairs that a dry run shows in full."""


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
    from coeval_pipelines.offline.deadletters import known_reason, summaries
    from coeval_pipelines.offline.session import spark_session

    settings = load_settings()
    manifest = read_manifest(settings.manifest_path)
    sources = [_source(manifest.event_sources, source)] if source else list(manifest.event_sources)
    wanted, start = known_reason(reason), _instant(since) if since else None
    with spark_session(settings) as spark:
        found = summaries(spark, settings, manifest, sources, wanted, start)
    if as_json:
        print(json.dumps([_summary(item) for item in found], indent=2))
    else:
        _print_summaries(found)


def show(
    source: Annotated[str, typer.Argument(help="The event source.")],
    at: Annotated[list[str] | None, typer.Argument(help="PARTITION:OFFSET of rejects.")] = None,
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
    at: Annotated[list[str] | None, typer.Option("--at", help="PARTITION:OFFSET of a reject; repeatable.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="FIELD=VALUE in the document; repeatable.")] = None,
    repair: Annotated[str, typer.Option(help="MODULE:FUNCTION from the raw bytes to bytes, or None to skip.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent; send nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Repair rejects and send them to the topic again, each once. Without a repair: those that are valid by now."""
    from coeval.client import read_manifest
    from coeval.errors import UsageError
    from coeval.settings import load_settings
    from coeval_pipelines.control import ControlPlane
    from coeval_pipelines.coordination import deadletter
    from coeval_pipelines.coordination.deploy import now
    from coeval_pipelines.offline import deadletters as room
    from coeval_pipelines.offline.session import spark_session

    settings = load_settings()
    manifest = read_manifest(settings.manifest_path)
    chosen = _source(manifest.event_sources, source)
    if set_ and repair:
        raise UsageError("--set and --repair exclude each other.", "Do in the function what --set would do.")
    change = room.setting(chosen, set_) if set_ else room.imported(repair) if repair else None
    positions, wanted = [room.parse_position(text) for text in at or ()], room.known_reason(reason)
    with spark_session(settings) as spark:
        found = room.rejects(spark, settings, manifest, chosen, wanted, positions)
    repaired = [room.repair(chosen, item, change, now()) for item in found]
    if dry_run:
        _print_dry_run(repaired, as_json)
        return
    with closing(ControlPlane.open(settings)) as control, _progress(len(repaired)) as advance:
        done = deadletter.replay(settings, control, chosen, repaired, now, advance)
    _print_replayed(done, as_json)


def _source(sources: Sequence[EventSource], name: str) -> EventSource:
    from coeval.errors import UsageError

    for source in sources:
        if source.name == name:
            return source
    raise UsageError(f"There is no event source {name!r}.", f"Known: {', '.join(item.name for item in sources)}.")


def _instant(text: str) -> int:
    from coeval.errors import UsageError
    from coeval.spec.types import TIMESTAMP, parse_literal

    try:
        return int(parse_literal(TIMESTAMP, text) or 0)
    except ValueError as error:
        raise UsageError(f"--since {text!r} is not an instant.", "Write 2026-11-20T00:00:00Z.") from error


def _summary(item: Summary) -> dict[str, object]:
    from coeval.spec.types import instant

    times = {"first": instant(item.first).isoformat(), "last": instant(item.last).isoformat()}
    return {
        "source": item.source,
        "reason": item.reason,
        "count": item.count,
        **times,
        "example": "{}:{}".format(*item.example),
    }


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
    from coeval.spec.types import instant
    from coeval_pipelines.offline.deadletters import escaped, why

    return {
        "at": "{}:{}".format(*item.position),
        "available_at": instant(item.record.available_at).isoformat(),
        "reason": item.reason,
        "value": escaped(item.record.value),
        "why": why(source, item),
    }


def _repaired(item: Repaired) -> dict[str, object]:
    from coeval_pipelines.offline.deadletters import escaped

    before, after = escaped(item.reject.record.value), escaped(item.value) if item.value is not None else None
    return {
        "at": "{}:{}".format(*item.reject.position),
        "before": before,
        "after": after,
        "problems": list(item.problems),
    }


def _print_dry_run(repaired: Sequence[Repaired], as_json: bool) -> None:
    documents = [_repaired(item) for item in repaired]
    if as_json:
        print(json.dumps(documents, indent=2))
        return
    for document in documents[:_SHOWN]:
        print(f"{document['at']}\n- {document['before']}")
        if document["after"] != document["before"] and document["after"] is not None:
            print(f"+ {document['after']}")
        for problem in document["problems"]:  # type: ignore[attr-defined]
            print(f"  not sent: {problem}")
    valid = sum(not item.problems for item in repaired)
    print(f"{valid:,} of {len(repaired):,} would be sent")


def _print_replayed(done: Replayed, as_json: bool) -> None:
    from coeval.spec.types import instant

    before = {"{}:{}".format(*position): instant(at).isoformat() for position, at in done.before.items()}
    if as_json:
        document = {
            "sent": ["{}:{}".format(*position) for position in done.sent],
            "recovered": ["{}:{}".format(*position) for position in done.recovered],
            "before": before,
            "refused": [_repaired(item) for item in done.refused],
        }
        print(json.dumps(document, indent=2))
        return
    print(f"{len(done.sent):,} sent, {len(done.refused):,} not valid and not sent")
    if done.recovered:
        print(f"{len(done.recovered):,} had been sent by a replay that was interrupted")
    for position, at in before.items():
        print(f"{position} already replayed at {at}")
    for item in done.refused[:_SHOWN]:
        print("{}:{} not sent: ".format(*item.reject.position) + "; ".join(item.problems))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where somebody watches."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("replaying", total=total)
        yield lambda number: bar.advance(task, number)
