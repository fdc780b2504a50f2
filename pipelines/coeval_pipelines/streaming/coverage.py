"""When the online store was seen to cover what of a source: for whoever asks later what it can have held at an instant.

A certificate says what the store covers once it has reached some ends; this says when it had. It knows the control
plane.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import chain

from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.coverage import Coverage, CoverageBook
from coeval_pipelines.streaming.feeds import Feed

_NEWEST = 5
"""Certificates among which the one that was reached last mostly is."""


class CoverageWatch:
    """Notes what the store covers whenever that changes; also where it has gone back."""

    def __init__(self, control: ControlPlane) -> None:
        self._control, self._book = control, CoverageBook(control)
        self._noted: dict[str, Mapping[int, int]] = {}

    def note(self, feed: Feed, written: Mapping[int, int | None]) -> None:
        """Take down how far the store is, whose changelog offsets (next to read, by partition) were read just now."""
        at, source = time.time_ns() // 1000, feed.source.name
        known = chain(self._control.certificates(source, limit=_NEWEST), self._control.every_certificate(source))
        offsets = next((item.offsets for item in known if item.is_reached(feed.topic, written)), {})
        if self._noted.get(feed.topic) != offsets:
            self._book.record(Coverage(feed.topic, offsets, at))
            self._noted[feed.topic] = offsets
