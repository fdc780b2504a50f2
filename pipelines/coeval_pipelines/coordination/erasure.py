"""Erasing a subject: recorded beside the log, then gone online at once; and floors set again in a store that was lost.

It knows the table of erasures, the control plane and the online store. The offline engine reads the table by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coeval.aggregations.tiles import tile_plan
from coeval.client import open_redis
from coeval.errors import StoreError, UsageError
from coeval.online.erase import OnlineEraser
from coeval.settings import Settings
from coeval.spec.erasure import Erasure, place_in_key, subject_field
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, View, WindowedView
from coeval.spec.types import instant, parse_literal
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.erasures import ErasureTable, Recorded

if TYPE_CHECKING:
    import redis


NEWEST = 5
"""Erasures that the coordinator looks after: what a store may lose of its last second."""


@dataclass(frozen=True, slots=True)
class Affected:
    """The views that an erasure changes: `keyed` ones hold the subject in their key and lose its values at once.

    `tiles_anew` are the windowed ones among them: tiles of the erased time come back by batch, without what was erased.
    `fed` are keyed by something else, and hold events of the subject among others: batch writes them anew.
    """

    keyed: tuple[View, ...]
    fed: tuple[View, ...]

    @property
    def tiles_anew(self) -> tuple[View, ...]:
        """What the next batch run has to write."""
        return tuple(view for view in self.keyed if isinstance(view, WindowedView)) + self.fed


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of the subject in a view's store: keys that hold it, and the tiles or rows taken away."""

    view: str
    keys: int
    taken: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an erasure did, or would do where `entry` is None."""

    erasure: Erasure
    entry: Recorded | None
    is_new: bool
    found: tuple[Found, ...]
    affected: Affected


def subject(manifest: Manifest, text: str, at: int, now: int) -> Erasure:
    """The erasure that `card_id=4711` asks for, of what was available at or before `at` (microseconds UTC).

    Raises:
        UsageError: no entity has such a key, the value is not of its type, or `at` is still to come.
    """
    column, equals, literal = text.partition("=")
    keys = {entity.key.name: entity.key for entity in manifest.entities}
    if column not in keys or not equals:
        raise UsageError(f"{text!r} names no subject.", f"Write KEY=VALUE with one of: {', '.join(keys) or 'none'}.")
    if at > now:
        raise UsageError(f"{instant(at)} is still to come.", "Erase what is there; erase again what comes later.")
    try:
        return Erasure(column, parse_literal(keys[column].type, literal), at)
    except ValueError as error:
        raise UsageError(f"{literal!r} is not a {keys[column].type}: {error}.", f"Give a {column}.") from error


def affected(manifest: Manifest, erasure: Erasure) -> Affected:
    """The views that an erasure changes."""
    holding = [view for view in manifest.views.values() if subject_field(manifest.sources[view.source], erasure.column)]
    return Affected(
        tuple(view for view in holding if place_in_key(view, erasure.column) is not None),
        tuple(view for view in holding if place_in_key(view, erasure.column) is None),
    )


def erase(settings: Settings, manifest: Manifest, control: ControlPlane, erasure: Erasure, now: int) -> Outcome:
    """Record an erasure and take its values away online. It may be repeated: what is recorded is done again.

    Raises:
        StoreError: the online store does not answer; the erasure is recorded, and offline it holds already.
    """
    entry, is_new = ErasureTable(settings, manifest.tenant).record(erasure, now, control.last_epoch)
    touched = affected(manifest, entry.erasure)
    with _store(settings) as client:
        found = tuple(_apply(client, manifest, view, [entry.erasure]) for view in touched.keyed)
    return Outcome(entry.erasure, entry, is_new, found, touched)


def preview(settings: Settings, manifest: Manifest, erasure: Erasure) -> Outcome:
    """What an erasure would find online; nothing is recorded or written."""
    touched = affected(manifest, erasure)
    with _store(settings) as client:
        eraser = OnlineEraser(client, manifest.tenant)
        found = tuple(Found(view.name, eraser.count(view, erasure), 0) for view in touched.keyed)
    return Outcome(erasure, None, False, found, touched)


def restore_floors(client: redis.Redis, settings: Settings, manifest: Manifest, views: Iterable[View]) -> int:
    """Set the floors of every recorded erasure, in a store that may have lost them; returns how many there are.

    What a replay wrote before its floor was there is taken away.
    """
    entries = [entry for entry in ErasureTable(settings, manifest.tenant).entries() if entry.is_dated]
    if entries:
        for view in views:
            _apply(client, manifest, view, [entry.erasure for entry in entries])
    return len(entries)


def floors_stand(client: redis.Redis, settings: Settings, manifest: Manifest) -> bool:
    """Whether the store has the floors of the newest erasures: not after a snapshot, nor if it was away back then."""
    eraser = OnlineEraser(client, manifest.tenant)
    newest = [entry.erasure for entry in ErasureTable(settings, manifest.tenant).entries()[-NEWEST:] if entry.is_dated]
    return all(eraser.has_floor(view, item) for item in newest for view in affected(manifest, item).keyed)


def _apply(client: redis.Redis, manifest: Manifest, view: View, erasures: Sequence[Erasure]) -> Found:
    source = manifest.sources[view.source]
    plan = tile_plan(view, source) if isinstance(view, WindowedView) and isinstance(source, EventSource) else None
    eraser = OnlineEraser(client, manifest.tenant)
    found = Found(view.name, 0, 0)
    for erasure in erasures:
        if place_in_key(view, erasure.column) is not None:
            done = eraser.erase(view, plan, erasure)
            found = replace(found, keys=found.keys + done.keys, taken=found.taken + done.taken)
    return found


@contextmanager
def _store(settings: Settings) -> Iterator[redis.Redis]:
    import redis

    try:
        with closing(open_redis(settings)) as client:
            yield client
    except redis.RedisError as error:
        raise StoreError(
            f"The online store does not answer: {error}.", "Run the same command again when it does: coeval status"
        ) from error
