"""What a case should give, whether an engine gave it, and a report that shows the smallest difference as data. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from coeval.aggregations.tiles import aggregate_column
from coeval.reference.aggregate import agree, tolerance
from coeval.reference.explain import explain
from coeval.reference.oracle import in_window, is_late, value_at, values_of, visible_events
from coeval.spec.model import WindowedView
from coeval.spec.records import Event
from coeval.spec.time import floor_to
from coeval.spec.types import Physical
from tests.support.contract import catalog
from tests.support.contract.cases import Case, as_json, good, ingested, rfc3339

Answer: TypeAlias = tuple[Physical, str | None]
"""A physical value, and its status where the engine has one."""
Answers: TypeAlias = dict[str, Answer]
Counts: TypeAlias = Callable[[Case, Event, int], bool]
"""Whether an event counts in its tile of that hop, for an engine that may not have it there yet."""
ROW = 0
"""Instead of a hop: whether it counts as a row."""


def everything(case: Case, event: Event, hop: int) -> bool:
    """What training sees: late events count as well."""
    return True


def in_time(case: Case, event: Event, hop: int) -> bool:
    """What the stream alone sees: late events are left out of their tile."""
    return hop == ROW or not is_late(event, hop, catalog.EVENTS.allowed_lateness)


def truth(case: Case, counts: Counts = everything) -> Answers:
    """What the oracle says: every feature of the case's view."""
    view, events = catalog.VIEWS[case.view], good(case)
    source = catalog.source_of(view)
    if not isinstance(view, WindowedView):
        seen = [event for event in events if counts(case, event, ROW)]
        return {
            name: (item.value, item.status)
            for name, item in value_at(view, source, seen, case.key, case.q, case.erasures).items()
        }
    found: Answers = {}
    stored = False
    for hop in sorted({aggregate.hop for aggregate in view.aggregates}):
        seen = [event for event in events if counts(case, event, hop)]
        values = value_at(view, source, seen, case.key, case.q, case.erasures)
        stored = stored or bool(visible_events(view, seen, case.key, case.q, case.erasures))
        found |= {
            item.feature: (values[item.feature].value, values[item.feature].status)
            for item in view.aggregates
            if item.hop == hop
        }
    # A key is found if a tile of any granularity is there, also for the features that have none.
    return {name: (value, _status(value, status, stored=stored)) for name, (value, status) in found.items()}


def _status(value: Physical, status: str, *, stored: bool) -> str:
    if status != "NOT_FOUND" or not stored:
        return status
    return "NULL" if value is None else "PRESENT"


def awaits_batch(case: Case, event: Event, hop: int) -> bool:
    """Whether the event's tile of that hop, or its row, is of a time up to an erasure: the stream's is refused."""
    if catalog.is_batch(catalog.VIEWS[case.view]):
        return False
    return case.erased_until is not None and floor_to(event.event_ts, hop or 1) <= case.erased_until


@dataclass(frozen=True, slots=True)
class Difference:
    """A case that an engine answers otherwise: by feature, what it should be and what was found."""

    case: Case
    features: Mapping[str, tuple[Answer, Answer | None]]


def differences(cases: Sequence[Case], found: Sequence[Answers], counts: Counts = everything) -> list[Difference]:
    """The cases that were answered otherwise, the smallest first."""
    assert len(found) == len(cases), f"{len(found)} answers to {len(cases)} cases"
    wrong: list[Difference] = []
    for case, answers in zip(cases, found, strict=True):
        expected = truth(case, counts)
        features = {
            name: (answer, answers.get(name))
            for name, answer in expected.items()
            if not _equal(case, name, answer, answers.get(name))
        }
        if features or answers.keys() != expected.keys():
            wrong.append(Difference(case, features))
    return sorted(wrong, key=lambda item: (len(item.case.events), len(as_json(item.case)), item.case.name))


def _equal(case: Case, feature: str, expected: Answer, found: Answer | None) -> bool:
    if found is None:
        return False
    (value, status), (got, got_status) = expected, found
    same_status = got_status is None or status == got_status
    return same_status and (_same(value, got) or _near(case, feature, value, got))


def _same(value: Physical, got: Physical) -> bool:
    # A boolean or an integer is no float: a value keeps its type.
    return value == got and (value is None or type(value) is type(got))


def _near(case: Case, feature: str, value: Physical, got: Physical) -> bool:
    """Whether two floats made of floats are equal within the contract's tolerance."""
    view = catalog.VIEWS[case.view]
    if not isinstance(view, WindowedView) or not isinstance(value, float) or not isinstance(got, float):
        return False
    aggregate = next(item for item in view.aggregates if item.feature == feature)
    column = aggregate_column(aggregate, catalog.stream_of(view))
    inside = in_window(aggregate, visible_events(view, good(case), case.key, case.q, case.erasures), case.q)
    bound = tolerance(aggregate.function, values_of(aggregate, inside), column.type if column else None)
    return agree(aggregate.function, value, got, bound)


def report(engine: str, wrong: Sequence[Difference], cases: int) -> str:
    """The smallest difference as data, and what the oracle makes of its events; the others by name."""
    if not wrong:
        return f"{engine}: {cases} cases, 0 differences"
    first = wrong[0]
    lines = [f"{engine}: {len(wrong)} of {cases} cases differ; the smallest:", as_json(first.case)]
    for name, (expected, found) in list(first.features.items())[:8]:
        lines.append(f"  {name}: the contract says {expected}, {engine} says {found}")
    lines += _explained(first)
    lines.append("others: " + ", ".join(item.case.name for item in wrong[1:12]))
    return "\n".join(lines)


def _explained(difference: Difference) -> list[str]:
    case = difference.case
    view = catalog.VIEWS[case.view]
    feature = next(iter(difference.features))
    found = explain(view, catalog.source_of(view), good(case), case.key, case.q, feature, case.erasures)
    window = "" if found.start is None else f", its window begins at {rfc3339(found.start)}"
    lines = [f"  {feature} is {found.value}{window}"]
    for item in found.contributions:
        event = item.event
        notes = [str(item.part), *(["late for its tile"] if item.late else [])]
        notes += ["clamped"] if event.declared_ts > event.event_ts else []
        lines.append(f"  {event.event_id or event.offset} of {rfc3339(event.event_ts)}: {', '.join(notes)}")
    outcome = ingested(case)
    lines += [f"  {event.event_id}: duplicate" for event in outcome.duplicates]
    return lines + [f"  offset {item.partition}/{item.offset}: rejected, {reason}" for item, reason in outcome.rejected]
