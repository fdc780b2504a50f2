"""Erasing a subject: recorded beside the log, then gone online at once, in every version that may be served.

It knows the table of erasures, the control plane and the online store. The offline engine reads the table by itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

from coeval.client import open_redis
from coeval.engines import engine
from coeval.errors import StoreError, UsageError
from coeval.online.erase import Erased, OnlineEraser
from coeval.settings import Settings
from coeval.spec.erasure import Erasure, place_in_key, subject_field
from coeval.spec.manifest import Manifest
from coeval.spec.model import View, WindowedView
from coeval.spec.types import iso, parse_literal
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.parity import ParityBook
from coeval_pipelines.coordination.floors import Served, bring_up, served
from coeval_pipelines.erasures import ErasureTable, Recorded


@dataclass(frozen=True, slots=True)
class Affected:
    """The views that an erasure changes: `keyed` ones hold the subject in their key and lose its values at once.

    `fed` are keyed by something else, and hold events of the subject among others: batch writes them anew.
    """

    keyed: tuple[View, ...]
    fed: tuple[View, ...]

    def anew(self, *, past: bool) -> tuple[View, ...]:
        """What the next batch run has to write; `past`: the erasure ends before now.

        Tiles of the erased time come back without what was erased. So do rows of events that happened in it and became
        available after it; up to now there are none.
        """
        return tuple(view for view in self.keyed if past or isinstance(view, WindowedView)) + self.fed


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of the subject in a view's store: keys that hold it, and the tiles or rows taken away."""

    view: str
    keys: int
    taken: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an erasure did, or would do where `entry` is None; `anew` are the views that batch has to write anew."""

    erasure: Erasure
    entry: Recorded | None
    is_new: bool
    found: tuple[Found, ...]
    affected: Affected
    anew: tuple[View, ...]


def subject(manifests: Sequence[Manifest], text: str, at: int, now: int) -> Erasure:
    """The erasure that `card_id=4711` asks for, of what was available at or before `at` (microseconds UTC).

    Raises:
        UsageError: no entity has such a key, the value is not of its type, or `at` is still to come. It does not
            repeat the value.
    """
    column, equals, literal = text.partition("=")
    keys = {entity.key.name: entity.key for manifest in reversed(manifests) for entity in manifest.entities}
    if column not in keys or not equals:
        raise UsageError("That names no subject.", f"Write KEY=VALUE with one of: {', '.join(keys) or 'none'}.")
    if at > now:
        raise UsageError(f"{iso(at)} is still to come.", "Erase what is there; erase again what comes later.")
    try:
        return Erasure(column, parse_literal(keys[column].type, literal), at)
    except ValueError:
        raise UsageError(f"The value is not a {keys[column].type}.", f"Give a {column}.") from None


def affected(manifest: Manifest, erasure: Erasure) -> Affected:
    """The views of a manifest that an erasure changes."""
    holding = [view for view in manifest.views.values() if subject_field(manifest.sources[view.source], erasure.column)]
    return Affected(
        tuple(view for view in holding if place_in_key(view, erasure.column) is not None),
        tuple(view for view in holding if place_in_key(view, erasure.column) is None),
    )


def erase(settings: Settings, manifest: Manifest, control: ControlPlane, erasure: Erasure, now: int) -> Outcome:
    """Record an erasure and take its values away online, in every version that may be served. It may be repeated.

    What was logged of what is served goes too, once no ingest of it is under way.

    Raises:
        StoreError: the online store does not answer; the erasure is recorded, and offline it holds already.
    """
    entry, is_new = ErasureTable(settings, manifest.tenant).record(erasure, now, control.last_epoch)
    _forget_reports(settings, manifest, control, erasure)
    try:
        with _answering():
            versions = _keyed(settings, manifest, control, erasure)
            done = bring_up(settings, control, manifest.tenant, lambda: served(settings, control, manifest))
            found = tuple(_found(manifest, item, done.get(item.name, Erased())) for item in versions)
    finally:
        engine("forget_served", "offline|notebook")(settings, manifest)
    touched = affected(manifest, entry.erasure)
    return Outcome(entry.erasure, entry, is_new, found, touched, touched.anew(past=entry.erasure.at < now))


def _forget_reports(settings: Settings, manifest: Manifest, control: ControlPlane, erasure: Erasure) -> None:
    """Parity kept single differences of the views: values and events, those of the subject perhaps among them."""
    touched = [affected(item.manifest, erasure) for item in served(settings, control, manifest)]
    ParityBook(control).forget_differences({view.name for found in touched for view in (*found.keyed, *found.fed)})
    forget_outputs(settings)


def forget_outputs(settings: Settings) -> None:
    """Delete the pages of parity, and drafts of pages, and empty what scheduled jobs printed."""
    folder = settings.home / "reports"
    # The newest page, that of every run that is kept, and what who was killed had begun.
    for page in (folder / "replay.html", *folder.glob("parity*.html"), *folder.glob("*.html.*")):
        page.unlink(missing_ok=True)
    for log in (settings.home / "local" / "schedule").glob("*.log"):
        with suppress(FileNotFoundError):  # its run was forgotten
            os.truncate(log, 0)


def preview(settings: Settings, manifest: Manifest, control: ControlPlane, erasure: Erasure, now: int) -> Outcome:
    """What an erasure would find online; nothing is recorded or written."""
    with _answering(), closing(open_redis(settings)) as client:
        eraser = OnlineEraser(client, manifest.tenant)
        versions = _keyed(settings, manifest, control, erasure)
        found = tuple(_found(manifest, item, Erased(eraser.count(item.view, erasure))) for item in versions)
    touched = affected(manifest, erasure)
    return Outcome(erasure, None, False, found, touched, touched.anew(past=erasure.at < now))


def _keyed(settings: Settings, manifest: Manifest, control: ControlPlane, erasure: Erasure) -> list[Served]:
    versions = served(settings, control, manifest)
    return [item for item in versions if item.view in affected(item.manifest, erasure).keyed]


def _found(manifest: Manifest, item: Served, done: Erased) -> Found:
    """What was found in a version; one that the manifest does not name is called by its version too."""
    mine = manifest.views.get(item.view.name)
    is_mine = mine is not None and mine.version == item.view.version
    return Found(item.view.name if is_mine else " ".join(item.name), done.keys, done.taken)


@contextmanager
def _answering() -> Iterator[None]:
    import redis

    try:
        yield
    except redis.RedisError as error:
        raise StoreError(
            f"The online store does not answer: {error}.", "Run the same command again when it does: coeval status"
        ) from error
