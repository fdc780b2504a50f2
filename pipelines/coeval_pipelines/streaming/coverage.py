"""When the online store was seen to cover what of a source: for whoever asks later what it can have held at an instant.

A certificate says what the store covers once it has reached some ends; this says when it had. It knows the control
plane.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import islice

from coeval.spec.time import HOUR, MINUTE
from coeval_pipelines.control import Certificate, ControlPlane
from coeval_pipelines.control.coverage import Coverage, CoverageBook
from coeval_pipelines.streaming.feeds import Feed

_NEWEST = 5
"""Certificates among which the one that was reached last mostly is."""
_AT_ONCE = 100
"""Older ones that are looked at in one note, some 10 ms: the writer must be heard of in between."""

Offsets = Mapping[int, int | None]


class CoverageWatch:
    """Notes what the store covers whenever that changes; also where it has gone back."""

    def __init__(self, control: ControlPlane) -> None:
        self._control, self._book = control, CoverageBook(control)
        self._noted: dict[str, Mapping[int, int]] = {}
        self._reached: dict[str, Certificate] = {}
        self._scans: dict[str, Iterator[Certificate]] = {}
        self._scanned: dict[str, Offsets] = {}
        """What was written when the newest scan began."""
        self._began = time.time_ns() // 1000
        self._fell: dict[str, int] = {}
        self._thinned = 0

    def note(self, feed: Feed, written: Offsets, *, mine: bool = True, fell: bool = False) -> None:
        """Take down how far the store is, whose changelog offsets (next to read, by partition) were read just now.

        Of several writers, the one that calls the feed `mine` takes note. Another one does for a minute after it began
        or saw that the store `fell` back: it may have written all anew before the first one looks.
        """
        at, topic = time.time_ns() // 1000, feed.topic
        if fell:
            # What is in the book may be another writer's by now.
            self._fell[topic] = at
            self._noted.pop(topic, None)
        if not mine and at - self._fell.get(topic, self._began) > MINUTE:
            return
        found = self._newest(feed, written)
        offsets = found.offsets if found else {}
        if self._noted.get(topic) != offsets:
            self._book.record(Coverage(topic, offsets, at))
            self._noted[topic] = offsets
        if at - self._thinned > HOUR:
            self._book.thin(at)
            self._thinned = at

    def _newest(self, feed: Feed, written: Offsets) -> Certificate | None:
        """The newest certificate that is known to be reached."""
        newest = self._control.certificates(feed.source.name, limit=_NEWEST)
        found = next((item for item in newest if item.is_reached(feed.topic, written)), None)
        if found is None:
            return self._older(feed, written)
        self._scans.pop(feed.topic, None)
        self._reached[feed.topic] = found
        return found

    def _older(self, feed: Feed, written: Offsets) -> Certificate | None:
        """The same of older ones, of which so many are looked at in each call; meanwhile, the one known before."""
        topic = feed.topic
        known = self._reached.get(topic)
        if known is not None and not known.is_reached(topic, written):
            known = None
            for memory in (self._reached, self._scans, self._scanned):
                memory.pop(topic, None)
        if not any(written.values()):
            return None
        if topic not in self._scans:
            if self._scanned.get(topic) == written:
                return known
            self._scans[topic] = self._control.every_certificate(feed.source.name)
            self._scanned[topic] = dict(written)
        page = list(islice(self._scans[topic], _AT_ONCE))
        found = next((item for item in page if item == known or item.is_reached(topic, written)), None)
        if found is not None:
            self._reached[topic] = found
        if found is not None or len(page) < _AT_ONCE:
            del self._scans[topic]
        return found or known
