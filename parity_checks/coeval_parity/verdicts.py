"""What is said of a difference: its cause with the proof in words, or why nothing explains it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coeval.reference.oracle import visible_events
from coeval.spec.model import Aggregate, WindowedView
from coeval.spec.records import Event
from coeval.spec.time import duration
from coeval.spec.types import Physical
from coeval_parity.counterfactual import reproduces, sorted_by_order
from coeval_parity.evidence import Case, Delivery, Order
from coeval_parity.omissions import TileEvidence, Why
from coeval_parity.result import Cause, Suspect


@dataclass(frozen=True, slots=True)
class Verdict:
    """The cause of a difference, its proof in words, and what the served value leaves out (by position).

    `also` are other causes that it takes beside `cause` to give the served value, in their order; `suspect` is what is
    probably behind a difference that is unexplained.
    """

    cause: Cause
    proof: str
    since: int | None
    omitted: Mapping[Order, Why]
    tiles: tuple[TileEvidence, ...] = ()
    also: tuple[Cause, ...] = ()
    suspect: Suspect = Suspect.NONE


def wrong_offline(expected: Physical, reference: Physical) -> Verdict:
    """The verdict where the engine computed something else than the oracle."""
    said = f"The offline engine computed {expected!r}, the reference {reference!r}, from the same log"
    return Verdict(Cause.UNEXPLAINED, f"{said}: the offline side is wrong.", None, {}, suspect=Suspect.OFFLINE_SIDE)


def with_delivery(
    case: Case, delivery: Delivery, visible: Sequence[Event], omitted: Mapping[Order, Why]
) -> tuple[Cause, ...]:
    """The causes of what is left out beside another cause."""
    if not omitted:
        return ()
    verdict = delivery_verdict(case, delivery, visible, omitted, ())
    return tuple(sorted({verdict.cause, *verdict.also}, key=list(Cause).index))


def delivery_verdict(
    case: Case,
    delivery: Delivery,
    visible: Sequence[Event],
    omitted: Mapping[Order, Why],
    tiles: tuple[TileEvidence, ...],
) -> Verdict:
    """The verdict where what was not delivered gives the served value."""
    gone = [event for event in visible if event.order in omitted]
    since = min(event.available_at for event in gone)
    waiting = [event.available_at for event in gone if omitted[event.order] not in (Why.LATE, Why.ERASED)]
    proof = f"Leaving out {_omitted(omitted)} gives exactly the served value."
    found = {CAUSES[why] for why in omitted.values()}
    if Why.UNDELIVERED in omitted.values():
        proof += " No writer owns their tiles: the batch load is behind the stream's start."
    elif waiting and case.q - min(waiting) > delivery.freshness:
        proof += f" The oldest has waited longer than the promised {duration(delivery.freshness)}."
        found = {Cause.STALE if cause is Cause.IN_FLIGHT else cause for cause in found}
    # What a sound system does not do comes first, then what is over soonest.
    first, *others = sorted(found, key=_DELIVERY.index)
    return Verdict(first, proof, since, omitted, tiles, tuple(sorted(others, key=list(Cause).index)))


CAUSES = {
    Why.LATE: Cause.LATE,
    Why.IN_FLIGHT: Cause.IN_FLIGHT,
    Why.UNDELIVERED: Cause.STALE,
    Why.ERASED: Cause.ERASED,
}
_DELIVERY = (Cause.STALE, Cause.ERASED, Cause.IN_FLIGHT, Cause.LATE)

_REASONS = {
    Why.LATE: "that came too late for a tile",
    Why.IN_FLIGHT: "above the offsets that the store is certified to cover",
    Why.UNDELIVERED: "that nobody has delivered",
    Why.ERASED: "of an erased time that batch has not written anew",
}


def plural(number: int, what: str = "event") -> str:
    """How many there are: 1 event, 2 events."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _omitted(omitted: Mapping[Order, Why]) -> str:
    counts = {why: sum(found is why for found in omitted.values()) for why in Why}
    parts = [f"{plural(n)} {_REASONS[why]}" for why, n in counts.items() if n]
    return " and ".join(parts)


def why_not(case: Case, visible: Sequence[Event], tiles: Sequence[TileEvidence]) -> str:
    """What stands against every cause, in words."""
    duplicated = _with_duplicates(case, visible)
    if duplicated:
        return f"No allowed omission gives the served value; counting {duplicated} duplicate deliveries twice does."
    if isinstance(case.view, WindowedView):
        return _tile_at_fault(case.view.aggregates[0], tiles)
    return _row_at_fault(case.stored.row, visible)


def _tile_at_fault(aggregate: Aggregate, tiles: Sequence[TileEvidence]) -> str:
    wrong = [tile for tile in tiles if not tile.sound]
    if not wrong:
        return "Every stored tile agrees with the log, and still their merge does not: the reader is wrong."
    return (
        f"{len(wrong)} stored {duration(aggregate.hop)} tile{'s hold' if len(wrong) > 1 else ' holds'} what no late or "
        "in-flight event accounts for: written by something else, or events are gone from the log."
    )


def _row_at_fault(stored: Order | None, visible: Sequence[Event]) -> str:
    if stored is None:
        return "The log has a row that is certified to be in the store, and the store has none: it was lost."
    if stored not in {event.order for event in visible}:
        return (
            f"The stored row claims partition {stored[2]}, offset {stored[3]}: the log has no such event of this key."
        )
    if visible[-1].order == stored:
        return "The stored row claims the right event, but not its values: it was changed."
    return "The stored row is older than one that is certified to be in the store: an update was lost."


def _with_duplicates(case: Case, visible: Sequence[Event]) -> int:
    """How many duplicates, counted again, give the served value; 0 where none do."""
    seen = visible_events(case.view, case.duplicates, case.key, case.q) if case.duplicates else []
    for count in range(1, len(seen) + 1):
        if reproduces(case, sorted_by_order([*visible, *seen[:count]])):
            return count
    return 0


def parted(case: Case, visible: Sequence[Event], tiles: Sequence[TileEvidence]) -> int | None:
    """The instant at which the two sides part."""
    if isinstance(case.view, WindowedView):
        aggregate = case.view.aggregates[0]
        return next((tile.index * aggregate.hop for tile in tiles if not tile.sound), None)
    found = [visible[-1].event_ts] if visible else []
    if case.stored.row is not None:
        found.append(case.stored.row[0])
    return min(found, default=None)
