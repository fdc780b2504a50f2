"""The first look: every key of store and log, served and expected side by side. Pure beside what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from coeval_parity.compare import Comparison, Values, compare
from coeval_parity.expected import Log
from coeval_parity.hours import Hours
from coeval_parity.online_state import Chosen, Clock, Look, Served, every_key, joined, serve


@dataclass(frozen=True, slots=True)
class Screened:
    """A view compared once: what was served for all keys, what was expected, and how each feature came out."""

    look: Look
    served: Served
    keys_online: int
    expected: Mapping[str, Values]
    comparisons: Mapping[str, Comparison]
    hours: Hours
    """To which hour each row belongs."""

    def differing(self) -> list[str]:
        """The keys that differ in any feature, in their order."""
        rows: set[int] = set()
        for comparison in self.comparisons.values():
            rows.update(comparison.mismatches.tolist())
        return [self.served.keys[row] for row in sorted(rows)]


def screen(log: Log, first: Look, clock: Clock, chosen: Chosen = every_key) -> Screened:
    """Compare what was read with what the log says. A key of the log that was not found in the store is not stored.

    `chosen` says of a key whether it is looked at.
    """
    view = first.view
    online = set(first.served.keys)
    newest = log.newest(view)
    absent = [key for key in newest if key not in online and chosen(key)]
    # The log was read after the store: a key that is missing there is judged at the instant its read ended.
    ended = int(first.served.at.max()) if len(first.served.at) else clock()
    missing = serve(log.manifest, view, absent, [None] * len(absent), ended, ready=first.served.ready)
    served = joined(log.manifest, view, [first.served, missing], ended, ready=first.served.ready)
    expected = log.values(view, served.keys, served.at) if served.keys else _nothing(first)
    comparisons = {name: compare(served.columns[name], expected[name]) for name in expected}
    return Screened(first, served, len(online), expected, comparisons, Hours.of_keys(served.keys, newest))


def _nothing(first: Look) -> dict[str, Values]:
    empty = Values(np.empty(0, dtype=np.int64), np.empty(0, dtype=bool))
    return {field.name: empty for field in first.view.features}
