"""What the log says of some keys, as the cases that are to be explained: the same for every check. Pure beside the log.

It is read once for all keys of a view, whatever was served of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coeval.reference.oracle import seen_by
from coeval.spec.keys import decode_key
from coeval.spec.model import EventSource, View
from coeval_parity.evidence import Case, Stored
from coeval_parity.expected import Events, Log, floors_of
from coeval_parity.refused import refused_events


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the log says of some keys of a view, by encoded key."""

    log: Log
    view: View
    definitions: Sequence[View]
    events: Events
    duplicates: Events
    erased: Events
    refused: Events

    def case(self, key: str, q: int, stored: Stored | None = None) -> Case:
        """A key at an instant (microseconds UTC), of no feature yet; `stored` is its state, where it is known."""
        view, parts = self.view, decode_key(self.view.key, key)
        every, erased = self.events.get(key, []), self.erased.get(key, [])
        return Case(
            view=view,
            source=self.log.manifest.source_of(view),
            feature="",
            key=parts,
            q=q,
            served=None,
            expected=None,
            stored=stored or Stored({}),
            events=seen_by(view, every),
            every=every,
            duplicates=seen_by(view, self.duplicates.get(key, [])),
            definitions=self.definitions,
            floors=floors_of(self.log.erasures, view, parts, erased),
            erased=seen_by(view, erased),
            erasures=self.log.erasures,
            rejected=seen_by(view, self.refused.get(key, [])),
        )


def read_evidence(
    log: Log, view: View, keys: Sequence[str], earliest: int | None, definitions: Sequence[View]
) -> Evidence:
    """Read what the log says of some keys; events before `earliest` (microseconds UTC; None: no bound) do not matter.

    `definitions` are other versions of the view that were ever deployed.
    """
    source = log.manifest.source_of(view)
    return Evidence(
        log,
        view,
        definitions,
        events=log.events(view, keys, earliest),
        duplicates=log.duplicates(view, keys, earliest),
        erased=log.erased(view, keys, earliest),
        refused=refused_events(view, source, log.rejects(view)) if isinstance(source, EventSource) else {},
    )
