"""Engines under the contract: one module each, with the tiny protocol that `Adapter` is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

from coeval.reference.oracle import is_erased, is_visible, seen_by
from coeval.spec.erasure import place_in_key
from coeval.spec.records import Event
from tests.support.contract import catalog
from tests.support.contract.cases import Case, good
from tests.support.contract.compare import Answers


class Adapter(Protocol):
    """An engine that can be asked cases. Adding an engine is adding one of these, and one line in the tests."""

    name: str

    def takes(self, case: Case) -> bool:
        """Whether the case is a question for this engine."""

    def answers(self, cases: Sequence[Case]) -> list[Answers]:
        """The engine's answers, in the order of the cases, each with every feature of its case's view."""

    def counts(self, case: Case, event: Event, hop: int) -> bool:
        """Whether an event that is visible at q may count in its tile of that hop; false for what only batch knows."""


def by_view(cases: Sequence[Case]) -> Mapping[str, list[int]]:
    """The places of cases, by the name of their view."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, case in enumerate(cases):
        places[case.view].append(place)
    return places


def visible(case: Case) -> list[Event]:
    """What may be known at the case's instant, of all of its keys, as it became available."""
    view = catalog.VIEWS[case.view]
    seen = [event for event in good(case) if is_visible(view, event, case.q)]
    return sorted(seen, key=lambda event: (event.available_at, event.partition, event.offset))


def floors_hold(case: Case) -> bool:
    """Whether every erasure of a case is of a subject that its view's key holds, so that the store has a floor."""
    view = catalog.VIEWS[case.view]
    return all(place_in_key(view, item.column) is not None for item in case.erasures)


def left(case: Case) -> list[Event]:
    """Of what the view sees, what was not erased."""
    kept = [event for event in visible(case) if not is_erased(event, case.erasures)]
    return seen_by(catalog.VIEWS[case.view], kept)


def seen(case: Case) -> list[Event]:
    """Of what is visible, what the view selects, with the columns that it computes."""
    return seen_by(catalog.VIEWS[case.view], visible(case))
