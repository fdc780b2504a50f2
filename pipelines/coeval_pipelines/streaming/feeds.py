"""What the online writer reads: the changelogs of deployed view versions, and what a poll of one comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coeval.online.layout import Update
from coeval.spec.model import EventSource, View
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.streaming.certificates import deployed_manifests
from coeval_pipelines.streaming.changelog import available_at, coalesce, encode, parse
from coeval_pipelines.streaming.names import changelog_topic, stream_sources, stream_views
from coeval_pipelines.streaming.sql import state_ttl

MESSAGES_PER_CALL = 1000
"""One call holds the store up for some 30 ms at most: readers come in between."""


@dataclass(frozen=True, slots=True)
class Feed:
    """The changelog of a deployed view version."""

    topic: str
    tenant: str
    view: View
    source: EventSource

    @property
    def labels(self) -> tuple[str, str, str]:
        """What metrics call it: the tenant, the view, and its version."""
        return self.tenant, self.view.name, self.view.version


@dataclass(frozen=True, slots=True)
class Range:
    """A contiguous stretch of a changelog partition, and the updates that it comes to.

    `first` is its first offset and `following` the one after its last; `newest` is the greatest available_at of its
    updates (microseconds UTC), None without any.
    """

    bucket: int
    first: int
    following: int
    updates: Sequence[Update]
    newest: int | None


def feeds(control: ControlPlane) -> dict[str, Feed]:
    """The changelogs to read, by topic: those of every deployed view version that a stream fills."""
    deployed = {(item.view, item.version) for item in control.deployments()}
    found: dict[str, Feed] = {}
    for manifest in deployed_manifests(control):
        for source in stream_sources(manifest):
            for view in stream_views(manifest, source.name):
                if (view.name, view.version) in deployed:
                    topic = changelog_topic(manifest, view)
                    found[topic] = Feed(topic, manifest.tenant, view, source)
    return found


def replay_from(control: ControlPlane, feed: Feed) -> int | None:
    """From which instant (microseconds UTC) on an empty store needs the messages; None: from the first one on.

    A message carries its sink's clock, and what it says was available by then: its tile starts before, and is over by
    the largest hop later. With the lateness, the skew and the slack of clocks taken off the cut of the last batch load,
    an older message speaks of a tile that was final at the cut, or of a row that was in the log: the load holds it.
    An empty store is believed only after `coordination.fill` has loaded it again, at that cut or a later one.
    """
    load = control.last_load(feed.view.name, feed.view.version)
    return None if load is None else load.cut - state_ttl(feed.source, (feed.view,))


def ranges(feed: Feed, polled: Mapping[int, Sequence[Any]], size: int = MESSAGES_PER_CALL) -> list[Range]:
    """What the messages of a poll, by partition, come to: stretches of at most `size` messages, in their order. Pure.

    Only within a stretch does one message stand for another: the offset after it then says what the store holds.
    """
    stretches = [mine[start : start + size] for mine in polled.values() for start in range(0, len(mine), size)]
    # Flink takes an old value back (an empty message) before it writes the new one; the new one is absolute.
    said = [[record for record in stretch if record.value is not None] for stretch in stretches]
    stretch_of = np.repeat(np.arange(len(said)), [len(records) for records in said])
    keys = [record.key for records in said for record in records]
    values = [record.value for records in said for record in records]
    updates: list[list[Update]] = [[] for _ in stretches]
    newest: list[int | None] = [None] * len(stretches)
    for changes in parse(feed.view, feed.source, keys, values):
        kept = coalesce(changes, stretch_of)
        encoded = encode(feed.view, feed.source, kept)
        for at, update, available in zip(
            stretch_of[kept.index].tolist(), encoded, available_at(kept).tolist(), strict=True
        ):
            updates[at].append(update)
            newest[at] = max(available, newest[at] or available)
    return [
        Range(stretch[0].partition, stretch[0].offset, stretch[-1].offset + 1, mine, instant)
        for stretch, mine, instant in zip(stretches, updates, newest, strict=True)
    ]


def readable(feed: Feed, records: Sequence[Any]) -> tuple[int, Exception | None]:
    """How many messages of a partition, from the first on, can be read, and what the next one does. Pure."""
    good, bad, failure = 0, len(records) + 1, None
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            ranges(feed, {0: records[:middle]})
            good = middle
        except Exception as error:  # noqa: BLE001 - whatever a message does to its parser
            bad, failure = middle, error
    return good, failure
