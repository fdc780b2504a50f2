"""`coeval explain`: one key of a view, feature by feature: what was served, what training would use, and from what.

It knows Redis, the log through `local_log` and the control plane; Spark is never started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from coeval.client import open_redis
from coeval.errors import BrokerError, StoreError
from coeval.online.reader import wall_clock
from coeval.online.result import Status
from coeval.reference.oracle import is_late, is_visible, seen_by, value_at, visible_events
from coeval.settings import Settings
from coeval.spec.keys import decode_key, encode_key
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, View, WindowedView, columns_read
from coeval.spec.records import Event
from coeval.spec.time import duration, floor_to
from coeval.spec.types import Logical, Physical, iso, to_logical
from coeval_parity.cases import read_evidence
from coeval_parity.counterfactual import narrowed, near
from coeval_parity.describe import aggregate_of, entity, event_line, event_lines, steps, symptom_of
from coeval_parity.evidence import Case, Delivery, Stored
from coeval_parity.expected import Log
from coeval_parity.explain import explain, tiles_of
from coeval_parity.judge import other_definitions
from coeval_parity.local_log import LocalLog, open_local_log
from coeval_parity.omissions import Why
from coeval_parity.online_state import look, stored_state
from coeval_parity.past import history_of, left_out
from coeval_parity.result import BENIGN, Cause, EventLine, Step, Symptom
from coeval_parity.verdicts import Verdict
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.streaming.names import changelog_topic


@dataclass(frozen=True, slots=True)
class KeyEvent:
    """One event of the key, in the total order. Times are microseconds UTC.

    `tiles` says by granularity which tile it falls in; `notes` what is to be said of it: that it is not available yet,
    late for a granularity, left out of how many values and why.
    """

    event_id: str
    event_ts: int
    available_at: int
    partition: int
    offset: int
    values: Mapping[str, Logical]
    tiles: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FeatureStory:
    """One feature on both sides. `cause` is empty where they are equal.

    `parted` is the first event that one side has and the other has not, in the order in which they became available.
    """

    feature: str
    label: str
    window: str
    served: Logical
    status: str
    expected: Logical
    cause: str
    symptom: Symptom
    proof: str
    since: int | None
    parted: EventLine | None
    steps: tuple[Step, ...]
    events: tuple[EventLine, ...]
    events_omitted: int

    @property
    def fails(self) -> bool:
        """Whether it differs for a cause that no sound system has."""
        return bool(self.cause) and Cause(self.cause) not in BENIGN


@dataclass(frozen=True, slots=True)
class Story:
    """A key of a view at an instant (microseconds UTC), with how far its writers had got."""

    view: str
    version: str
    key: str
    entity: Mapping[str, Logical]
    at: int
    is_past: bool
    since: int | None
    load_cut: int | None
    certified: Mapping[int, int] | None
    features: tuple[FeatureStory, ...]
    events: tuple[KeyEvent, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Sides:
    """Both sides of a key, before they are explained."""

    served: Mapping[str, Physical]
    status: Mapping[str, str]
    expected: Mapping[str, Physical]
    stored: Stored
    delivery: Delivery
    events: Sequence[Event]
    q: int
    notes: tuple[str, ...]


def tell(
    settings: Settings,
    manifest: Manifest,
    view: View,
    key: tuple[Physical, ...],
    at: int | None = None,
    features: Sequence[str] = (),
    *,
    ingest: bool = True,
) -> Story:
    """Explain some features (default: all) of one key now, or as of an instant of the past (microseconds UTC).

    Now, the store is read. Of the past, what it served is computed again by what the control plane knows. With `ingest`
    what the topic holds beyond the log is read too.

    Raises:
        StoreError, BrokerError: a component does not answer.
        NeedsSparkError: only Spark reads the log.
    """
    text = encode_key(view.key, key)
    with closing(ControlPlane.open(settings)) as control:
        if at is None:
            sides, log = _now(settings, manifest, view, text, control, ingest=ingest)
        else:
            log, notes = _opened(settings, manifest, view, ingest=ingest)
            sides = _then(control, log, view, text, at, notes)
        definitions = other_definitions(manifest, control, view)
    names = list(features) or [field.name for field in view.features]
    base = replace(
        read_evidence(log, view, [text], None, definitions).case(text, sides.q, sides.stored), feature=names[0]
    )
    told = [_feature(base, name, sides, past=at is not None) for name in names]
    return Story(
        view=view.name,
        version=view.version,
        key=text,
        entity=entity(view, key),
        at=sides.q,
        is_past=at is not None,
        since=sides.delivery.since,
        load_cut=sides.delivery.load_cut,
        certified=sides.delivery.certified,
        features=tuple(story for story, _ in told),
        events=_key_events(base, {name: verdict for name, (_, verdict) in zip(names, told, strict=True)}),
        notes=sides.notes,
    )


def _opened(settings: Settings, manifest: Manifest, view: View, *, ingest: bool) -> tuple[LocalLog, tuple[str, ...]]:
    """The log, with what its topic holds beyond it where the broker answers."""
    try:
        return open_local_log(settings, manifest, [view], ingest=ingest), ()
    except BrokerError as error:
        note = f"The topic was not read: {error.reason} Events that the log lacks are not known."
        return open_local_log(settings, manifest, [view], ingest=False), (note,)


def _now(
    settings: Settings, manifest: Manifest, view: View, key: str, control: ControlPlane, *, ingest: bool
) -> tuple[_Sides, LocalLog]:
    import redis

    with closing(open_redis(settings)) as client:
        try:
            found = look(client, manifest, view, control, wall_clock, [key], keep=True)
        except redis.RedisError as error:
            raise StoreError(f"The online store does not answer: {error}.", "See coeval status.") from error
    log, notes = _opened(settings, manifest, view, ingest=ingest)
    q = int(found.served.at[0])
    columns = found.served.columns
    served = {name: None if column.null[0] else _plain(column.values[0]) for name, column in columns.items()}
    status = {name: Status(int(column.status[0])).name for name, column in columns.items()}
    stored = stored_state(manifest, view, found.blobs[key])
    events = seen_by(view, log.events(view, [key], None).get(key, []))
    return _Sides(served, status, _expected(log, view, key, q), stored, found.delivery, events, q, notes), log


def _then(control: ControlPlane, log: LocalLog, view: View, key: str, q: int, notes: tuple[str, ...]) -> _Sides:
    """What must have been served at q: everything but what the rules left out, what was in flight being there."""
    delivery = history_of(control, changelog_topic(log.manifest, view), view).at(q)
    parts, source = decode_key(view.key, key), log.manifest.source_of(view)
    events = seen_by(view, log.events(view, [key], None).get(key, []))
    served: dict[str, Physical] = {}
    status: dict[str, str] = {}
    waiting = 0
    for field in view.features:
        case = Case(narrowed(view, field.name), source, field.name, parts, q, None, None, Stored({}), events)
        out = left_out(case, delivery)
        kept = [event for event in events if event.order not in out.must]
        value = value_at(case.view, source, kept, parts, q)[field.name]
        served[field.name], status[field.name] = value.value, value.status
        waiting = max(waiting, sum(map(len, out.lanes)))
    said = [f"{waiting} events lie above what was certified by then: some of them may not have been served yet"]
    return _Sides(
        served, status, _expected(log, view, key, q), Stored({}), delivery, events, q, (*notes, *said[: waiting > 0])
    )


def _expected(log: Log, view: View, key: str, q: int) -> dict[str, Physical]:
    found = log.values(view, [key], np.array([q], dtype=np.int64))
    return {name: None if values.null[0] else _plain(values.values[0]) for name, values in found.items()}


def _plain(value: object) -> Physical:
    return value.item() if hasattr(value, "item") else value  # type: ignore[return-value]


def _feature(base: Case, name: str, sides: _Sides, *, past: bool) -> tuple[FeatureStory, Verdict]:
    case = replace(base, feature=name, served=sides.served[name], expected=sides.expected[name])
    verdict, cause = _verdict(case, sides, past=past)
    lines, omitted = event_lines(case, verdict)
    field = next(item for item in case.view.features if item.name == name)
    aggregate = aggregate_of(case.view, name)
    start = floor_to(case.q - aggregate.window, aggregate.hop) if aggregate else None
    story = FeatureStory(
        feature=name,
        label=aggregate.label if aggregate else f"latest {name}",
        window=f"{iso(start)} to {iso(case.q)}" if start is not None else "",
        served=to_logical(field.type, case.served),
        status=sides.status[name],
        expected=to_logical(field.type, case.expected),
        cause=cause,
        symptom=symptom_of(case.served, case.expected) if cause else Symptom.NONE,
        proof=verdict.proof if cause else "",
        since=verdict.since,
        parted=_parted(case, verdict) if cause else None,
        steps=() if past else steps(case, verdict),
        events=lines,
        events_omitted=omitted,
    )
    return story, verdict


def _verdict(case: Case, sides: _Sides, *, past: bool) -> tuple[Verdict, str]:
    """What is known of a value, and its cause; empty where both sides are equal."""
    visible = visible_events(case.view, case.events, case.key, case.q)
    if sides.status[case.feature] == Status.UNAVAILABLE.name:
        return Verdict(Cause.UNEXPLAINED, "The version has no ready marker: readers get no value.", None, {}), str(
            Cause.UNEXPLAINED
        )
    if near(case, case.served, case.expected):
        tiles = () if past else tuple(tiles_of(case, sides.delivery, visible))
        return Verdict(Cause.UNEXPLAINED, "", None, {}, tiles), ""
    if not past:
        verdict = explain(case, sides.delivery)
        return verdict, str(verdict.cause)
    out = left_out(replace(case, view=narrowed(case.view, case.feature)), sides.delivery)
    since = min((event.available_at for event in visible if event.order in out.must), default=None)
    proof = f"The store could not hold {len(out.must)} events: they came too late for their tiles, or were not loaded."
    cause = Cause.STALE if Why.UNDELIVERED in out.must.values() else Cause.LATE
    return Verdict(cause, proof, since, out.must), str(cause)


def _parted(case: Case, verdict: Verdict) -> EventLine | None:
    """The first event, as they became available, that the served value leaves out; else the first of a wrong tile."""
    visible = visible_events(case.view, case.events, case.key, case.q)
    telling = [event for event in visible if event.order in verdict.omitted]
    if not telling and verdict.since is not None:
        telling = [event for event in visible if event.event_ts >= verdict.since]
    first = min(telling, key=lambda event: event.order[1:], default=None)
    return event_line(case, first, verdict) if first else None


def _key_events(case: Case, verdicts: Mapping[str, Verdict]) -> tuple[KeyEvent, ...]:
    """Every event of the key that a window or row may reach, visible or not."""
    view = case.view
    start = case.q - view.reach if isinstance(view, WindowedView) else None
    mine = [event for event in case.events if start is None or event.event_ts >= start]
    return tuple(_key_event(case, event, verdicts) for event in sorted(mine, key=lambda event: event.order))


def _key_event(case: Case, event: Event, verdicts: Mapping[str, Verdict]) -> KeyEvent:
    view, source = case.view, case.source
    hops = sorted({item.hop for item in view.aggregates}) if isinstance(view, WindowedView) else []
    notes = [] if is_visible(view, event, case.q) else ["not available yet"]
    if isinstance(source, EventSource):
        late = [duration(hop) for hop in hops if is_late(event, hop, source.allowed_lateness)]
        notes += [f"late for {', '.join(late)}"] if late else []
    missing: dict[str, list[str]] = {}
    for name, verdict in verdicts.items():
        if event.order in verdict.omitted:
            missing.setdefault(str(verdict.omitted[event.order]), []).append(name)
    notes += [f"{why}: not in {len(names)} values" for why, names in missing.items()]
    read = [item for item in source.fields if item.name in columns_read(view)]
    fields = {item.name: item.type for item in (*read, *(item.field for item in view.columns))}
    return KeyEvent(
        event.event_id,
        event.event_ts,
        event.available_at,
        event.partition,
        event.offset,
        {name: to_logical(kind, event.values[name]) for name, kind in fields.items()},
        {duration(hop): iso(floor_to(event.event_ts, hop)) for hop in hops},
        tuple(notes),
    )
