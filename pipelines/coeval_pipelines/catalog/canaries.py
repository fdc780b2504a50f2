"""The canary that a source declares by its tag: what it may say, and what is worth knowing of it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from coeval.reference.oracle import seen_by
from coeval.spec.canary import canary_record
from coeval.spec.manifest import Manifest
from coeval.spec.model import Constant, EventSource, View
from coeval.spec.records import Reason, parse_record
from coeval.spec.types import parse_literal
from coeval_pipelines.catalog.errors import DefinitionError, gather
from coeval_pipelines.catalog.names import nearest

_ANY_INSTANT = 1_700_000_000_000_000


def with_canary(where: str, source: EventSource, stated: Mapping[str, str]) -> EventSource:
    """The source with the canary that is stated: literals by column; nothing stated, no canary.

    Raises:
        BrokenCatalogError: a column or a literal does not fit, or such an event would be rejected.
    """
    here = f"{where}, its canary"
    gather(lambda name: _check(here, source, name, stated[name]), sorted(stated))
    found = replace(source, canary=tuple(Constant(name, stated[name]) for name in sorted(stated)))
    outcome = parse_record(found, canary_record(found, _ANY_INSTANT)) if stated else None
    if isinstance(outcome, Reason):
        raise DefinitionError(here, f"such an event would be rejected: {outcome}", "Name more of its columns.")
    return found


def _check(where: str, source: EventSource, name: str, literal: str) -> None:
    known = {field.name: field for field in source.fields if field.name not in (source.event_id, source.event_ts)}
    if name not in known:
        raise DefinitionError(where, f"{name!r} is not a column that it can set", nearest(name, list(known)))
    try:
        parse_literal(known[name].type, literal)
    except ValueError as error:
        raise DefinitionError(f"{where}, column {name}", str(error), f"Write a {known[name].type}.") from error


def check_reserved(manifest: Manifest, source: EventSource) -> None:
    """See to it that canaries count for no key but the one that their source reserves for them.

    Raises:
        BrokenCatalogError: a view that sees them has a key of which they do not name all columns.
    """
    event = parse_record(source, canary_record(source, _ANY_INSTANT)) if source.canary else Reason.UNPARSEABLE
    if isinstance(event, Reason):
        return
    named = {item.column for item in source.canary}
    mine = [view for view in manifest.views.values() if view.source == source.name and seen_by(view, [event])]
    gather(lambda view: _check_key(view, source, named), mine)


def _check_key(view: View, source: EventSource, named: Collection[str]) -> None:
    missing = [field.name for field in view.key if field.name not in named]
    if missing:
        what = f"its key {', '.join(missing)} may be somebody's, and canaries would count for it"
        fix = f"Name {', '.join(missing)} in the canary too, or leave canaries out by the view's where."
        raise DefinitionError(f"source {source.name}, its canary in view {view.name}", what, fix)


def canary_notes(manifest: Manifest) -> Iterator[str]:
    """What everyone should know of the canaries: that they are real events."""
    for source in manifest.event_sources:
        if source.canary:
            named = ", ".join(f"{item.column}={item.literal}" for item in source.canary)
            yield f"canaries of {source.name} are real events of its log and training data, under {named}"
