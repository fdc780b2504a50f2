"""The second look: what differed is read again with all the evidence, and every difference gets its cause.

A difference that is gone was only the instant between two reads. It knows the log through `expected`, and no store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

import numpy as np

from coeval.reference.oracle import seen_by
from coeval.spec.keys import decode_key, encode_key
from coeval.spec.manifest import Manifest
from coeval.spec.model import View, WindowedView
from coeval.spec.records import Event
from coeval.spec.types import to_logical
from coeval_parity.cases import read_evidence
from coeval_parity.compare import Outcome, value_in
from coeval_parity.counterfactual import narrowed, near, oracle_value
from coeval_parity.describe import aggregate_of, entity, mismatch, symptom_of
from coeval_parity.evidence import Case, visible_of
from coeval_parity.expected import Events, Log
from coeval_parity.explain import cause_of, tiling_of
from coeval_parity.hours import Hours, Rows
from coeval_parity.omissions import Tiling
from coeval_parity.online_state import Look, stored_state
from coeval_parity.result import BENIGN, Cause, Mismatch, Suspect, Symptom
from coeval_parity.screen import Screened
from coeval_parity.verdicts import Verdict, wrong_offline
from coeval_pipelines.control import ControlPlane

MAX_MISTAKEN = 50
"""Keys that another key may be mistaken for, at most."""
MAX_SUSPECTED = 1000
"""Unexplained values of one view for which a suspect is looked for: so many tell what is wrong."""
MAX_JUDGED = 100_000
"""Keys of one view that are explained; the rest of so broken a view is unexplained, and said to be unexamined."""
KEPT_KEYS = {True: 20, False: 200}
"""Keys per view and cause whose differences are kept in full: of benign causes, and of those that fail the run."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a view's differences, per feature; `kept` describes some of them in full.

    `settled` were equal when read again, `within` differ no more than sums of the same doubles may.
    """

    causes: Mapping[str, Counter[tuple[int, Cause]]] = field(default_factory=dict)
    """By the hour that a value belongs to, as a bucket of `Screened.hours`."""
    symptoms: Mapping[str, Counter[Symptom]] = field(default_factory=dict)
    settled: Counter[str] = field(default_factory=Counter)
    within: Counter[str] = field(default_factory=Counter)
    suspects: Mapping[str, Counter[Suspect]] = field(default_factory=dict)
    kept: tuple[Mismatch, ...] = ()
    omitted: int = 0
    ready: bool = True
    """Whether readers got values at both looks."""


@dataclass(slots=True)
class Docket:
    """Verdicts as they come in, on rows that belong to these hours."""

    hours: Hours
    causes: dict[str, Counter[tuple[int, Cause]]] = field(default_factory=dict)
    symptoms: dict[str, Counter[Symptom]] = field(default_factory=dict)
    settled: Counter[str] = field(default_factory=Counter)
    within: Counter[str] = field(default_factory=Counter)
    suspects: dict[str, Counter[Suspect]] = field(default_factory=dict)
    kept: list[Mismatch] = field(default_factory=list)
    keys: dict[Cause, set[str]] = field(default_factory=dict)
    omitted: int = 0
    unexplained: int = 0
    """Values that nothing explains, so far."""

    def enter(self, case: Case, row: int, key: str, verdict: Verdict, symptom: Symptom) -> None:
        """Take down a verdict on a row."""
        if verdict.suspect:
            self.suspects.setdefault(case.feature, Counter())[verdict.suspect] += 1
        self.count(case.feature, verdict.cause, symptom, [row])
        if self._room(verdict.cause, key):
            self.kept.append(mismatch(case, verdict, symptom))
        else:
            self.omitted += 1

    def count(self, feature: str, cause: Cause, symptom: Symptom, rows: Rows) -> None:
        """Take down that the values of a feature in some rows have a cause."""
        counts, number = self.causes.setdefault(feature, Counter()), len(rows)
        for bucket, times in self.hours.count(rows).items():
            counts[bucket, cause] += times
        if cause is Cause.UNEXPLAINED:
            self.unexplained += number
        if symptom:
            self.symptoms.setdefault(feature, Counter())[symptom] += number

    def _room(self, cause: Cause, key: str) -> bool:
        keys = self.keys.setdefault(cause, set())
        if key in keys or len(keys) < KEPT_KEYS[cause in BENIGN]:
            keys.add(key)
            return True
        return False

    def close(self) -> Judged:
        """Everything that came in."""
        counts = (self.causes, self.symptoms, self.settled, self.within, self.suspects)
        return Judged(*counts, tuple(self.kept), self.omitted)


def judge(first: Log, log: Log, screened: Screened, second: Look | None, definitions: Sequence[View]) -> Judged:
    """Give every difference of a view a cause. `second` is the second look at the differing keys, with raw state.

    `first` is the log that the expected values were computed from, `log` the one that covers the second look.
    """
    docket = Docket(screened.hours)
    if not screened.served.ready or (second is not None and not second.served.ready):
        return _unavailable(screened, docket)
    if second is None:
        return docket.close()
    view, keys = second.view, second.served.keys
    rows = {key: row for row, key in enumerate(screened.served.keys)}
    earliest = earliest_of(view, screened)
    evidence = read_evidence(log, view, keys, earliest, definitions)
    candidates = _other_keys(log, view, keys, earliest, evidence.events)
    views = {field.name: narrowed(view, field.name) for field in view.features}
    everybody, named = [item[1:] for item in candidates], {other for other, _, _ in candidates}
    for index, key in enumerate(keys):
        others = [item[1:] for item in candidates if item[0] != key] if key in named else everybody
        stored = stored_state(log.manifest, view, second.blobs[key])
        again = replace(evidence.case(key, int(second.served.at[index]), stored), others=others)
        known = [event for event in again.events if first.holds(view.source, event)]
        before = replace(again, q=int(screened.served.at[rows[key]]), events=known)
        before, again = (replace(case, known=visible_of(case)) for case in (before, again))
        tiling = tiling_of(again, second.delivery, visible_of(again))
        found = _Found(second, index, rows[key], before, again, tiling)
        for name, comparison in screened.comparisons.items():
            if comparison.outcome[rows[key]] == Outcome.MISMATCH:
                _judge_value(docket, screened, found, name, views[name])
    _count_unexamined(docket, screened, set(keys))
    return docket.close()


@dataclass(frozen=True, slots=True)
class _Found:
    """A key as the first look found it (its place there is `row`), and as the second did, of no feature yet."""

    second: Look
    index: int
    row: int
    before: Case
    again: Case
    tiling: Tiling | None

    def is_alike(self, view: View) -> bool:
        """Whether a window holds the same events at both looks."""
        if not isinstance(view, WindowedView) or len(visible_of(self.before)) != len(visible_of(self.again)):
            return False
        window, hop = view.aggregates[0].window, view.aggregates[0].hop
        return (self.before.q - window) // hop == (self.again.q - window) // hop


def _other_keys(
    log: Log, view: View, keys: Sequence[str], earliest: int | None, events: Events
) -> list[tuple[str, str, Sequence[Event]]]:
    """Keys that others may be mistaken for: those that differ too, and those of the same parts in another order."""
    some = keys[:MAX_MISTAKEN]
    swapped: list[str] = []
    if len({field.type for field in view.key}) < len(view.key):
        for key in some:
            ways = permutations(range(len(view.key)))
            parts = decode_key(view.key, key)
            swapped += [encode_key(view.key, [parts[at] for at in way]) for way in ways if _fits(view, way)]
    more = log.events(view, sorted({*swapped} - {*keys}), earliest) if swapped else {}
    known = {key: events.get(key, more.get(key, [])) for key in dict.fromkeys([*swapped, *some])}
    return [(key, _named(view, key), seen_by(view, found)) for key, found in known.items() if found]


def _fits(view: View, way: Sequence[int]) -> bool:
    return all(view.key[at].type == view.key[to].type for to, at in enumerate(way))


def _named(view: View, key: str) -> str:
    return " ".join(f"{name}={value}" for name, value in entity(view, decode_key(view.key, key)).items())


def _judge_value(docket: Docket, screened: Screened, found: _Found, feature: str, view: View) -> None:
    second, index = found.second, found.index
    key = second.served.keys[index]
    served = value_in(screened.served.columns[feature], found.row)
    expected = value_in(screened.expected[feature], found.row)
    first = replace(found.before, view=view, feature=feature, served=served, expected=expected)
    if near(first, served, expected):
        docket.within[feature] += 1
        return
    reference = oracle_value(first, view)
    if not near(first, reference, expected):
        docket.enter(first, found.row, key, wrong_offline(expected, reference), _symptom(first))
        return
    served = value_in(second.served.columns[feature], index)
    reference = reference if found.is_alike(view) else oracle_value(found.again, view)
    case = replace(found.again, view=view, feature=feature, served=served, expected=reference)
    if near(case, served, reference):
        docket.settled[feature] += 1
        return
    verdict = cause_of(case, second.delivery, found.tiling, suspect=docket.unexplained < MAX_SUSPECTED)
    docket.enter(case, found.row, key, verdict, _symptom(case))


def _symptom(case: Case) -> Symptom:
    return symptom_of(case.served, case.expected)


def earliest_of(view: View, screened: Screened) -> int | None:
    """Events before this instant are in no window of any key; None for row views, which reach back without end."""
    if not isinstance(view, WindowedView) or not len(screened.served.at):
        return None
    return int(screened.served.at.min()) - view.reach


def _unavailable(screened: Screened, docket: Docket) -> Judged:
    """Readers get no value at all, at either look: one entry says so, every value counts."""
    view = screened.look.view
    for name, comparison in screened.comparisons.items():
        docket.count(name, Cause.UNEXPLAINED, Symptom.UNAVAILABLE, np.flatnonzero(comparison.outcome >= 0))
    if screened.served.keys:
        docket.kept.append(_not_ready(view, screened))
        docket.omitted = len(screened.served.keys) * len(view.features) - 1
    return replace(docket.close(), ready=False)


def _not_ready(view: View, screened: Screened) -> Mismatch:
    feature, key = view.features[0], screened.served.keys[0]
    aggregate = aggregate_of(view, feature.name)
    return Mismatch(
        view=view.name,
        feature=feature.name,
        label=aggregate.label if aggregate else f"latest {feature.name}",
        key=key,
        entity=entity(view, decode_key(view.key, key)),
        served=None,
        expected=to_logical(feature.type, value_in(screened.expected[feature.name], 0)),
        cause=Cause.UNEXPLAINED,
        symptom=Symptom.UNAVAILABLE,
        proof=f"Version {view.version} has no ready marker in the store: readers say UNAVAILABLE for every key.",
        since=None,
    )


def _count_unexamined(docket: Docket, screened: Screened, examined: set[str]) -> None:
    for name, comparison in screened.comparisons.items():
        rest = [row for row in comparison.mismatches.tolist() if screened.served.keys[row] not in examined]
        if rest:
            docket.count(name, Cause.UNEXPLAINED, Symptom.NONE, rest)
            docket.omitted += len(rest)


def other_definitions(manifest: Manifest, control: ControlPlane, view: View) -> list[View]:
    """The other versions of a view that were ever deployed with the same key."""
    found: list[View] = []
    for deployment in control.deployments():
        if deployment.view == view.name and deployment.version != view.version:
            known = control.manifest(deployment.manifest_hash)
            other = known.views.get(view.name) if known else None
            if other is not None and other.key == view.key and other.source in manifest.sources:
                found.append(other)
    return found
