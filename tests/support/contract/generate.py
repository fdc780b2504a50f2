"""Generated cases that hunt for edges: the same seed gives the same cases, and a case depends on its number alone.

Instants are drawn beside what a rule turns on: tile boundaries, window starts, lateness bounds, time to live, the
available time of the case's own events. Values are drawn beside the limits of their types.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from coeval.spec.erasure import Erasure
from coeval.spec.model import Field, RowView, View
from coeval.spec.time import DAY, HOUR, MINUTE, SECOND, floor_to
from coeval.spec.types import INT64_MAX, INT64_MIN, Kind, parse_literal
from tests.support.contract import catalog
from tests.support.contract.cases import Case, RawEvent, parse_instant, rfc3339

SEED = int(os.environ.get("COEVAL_CONTRACT_SEED", "20260320"))
COUNT = int(os.environ.get("COEVAL_CONTRACT_CASES", "1700"))
FIRST_NUMBER = 1_000_000
"""Written cases have lower numbers."""
ERASED_SHARE = 0.12
"""Of generated cases, those whose subject was erased."""
FILE = -1
"""The partition of events that came from files."""

_MS = 1000
_LEAST, _GREATEST = parse_instant("0001-02-15T00:00:00Z"), parse_instant("9999-12-01T00:00:00Z")
_USUAL = ("2026-03-20T10:30:00Z", "2026-11-20T23:58:01.5Z", "2025-07-01T00:00:00Z")
_EDGES = (
    "2026-03-29T01:00:00Z",  # clocks go forward in Europe
    "2026-10-25T01:00:00Z",  # and back
    "2026-03-08T07:00:00Z",  # and forward in New York
    "2024-02-29T00:00:00Z",
    "2028-03-01T00:00:00Z",
    "1970-01-01T00:00:00Z",
    "1970-01-01T00:00:00Z",
    "1969-12-31T23:00:00Z",
    "1900-03-01T00:00:00Z",
    "2038-01-19T03:14:08Z",
)
_FAR = ("1582-10-15T00:00:00Z", "0001-03-01T00:00:00Z", "9999-11-01T00:00:00Z", "2262-04-11T23:47:16Z")
_TEXTS = (
    "",
    "x",
    "a|b",
    "a%7Cb",
    "%",
    "%25",
    "|",
    "'",
    '"',
    "a\nb",
    "\\",
    "null",
    "NULL",
    "ü",
    "日本",
    "😀",
    " ",
    "i1|s2",
    ",;\t",
)
_PAIRS = (
    (("1", "23"), ("12", "3")),
    (("a|b", "c"), ("a", "b|c")),
    (("a%7C", "b"), ("a|", "b")),
    (("x|sy", "z"), ("x", "y|sz")),
    (("|s", ""), ("", "|s")),
    (("", "x"), ("x", "")),
    (("%", "25"), ("%25", "")),
    (("s1|s2", ""), ("s1", "s2")),
    (("'", '"'), ('"', "'")),
    (("a\n", "b"), ("a", "\nb")),
    (("ü", "u"), ("u", "ü")),
    (("1", "1"), ("1", "2")),
)
_BAD = ("1.", "+1", "1e400", "x", "")


def cases(count: int = COUNT, seed: int = SEED, views: Sequence[View] = tuple(catalog.VIEWS.values())) -> list[Case]:
    """Cases numbered from `FIRST_NUMBER`, the views taken in turn."""
    return [
        _Maker(random.Random(f"{seed}/{number}"), number, views[number % len(views)]).case() for number in range(count)
    ]


@dataclass(slots=True)
class _Maker:
    """Makes one case of a view."""

    rng: random.Random
    number: int
    view: View
    key: dict[str, str] = field(init=False)
    other: dict[str, str] = field(init=False)

    def case(self) -> Case:
        """The case."""
        self.key, self.other = self._keys()
        window, hop = self._span()
        near = self._anchor()
        events = sorted(self._events(near, window, hop), key=lambda event: event.available_at)
        events = _with_offsets(self.rng, events, batch=catalog.is_batch(self.view))
        key = tuple(parse_literal(item.type, self.key[item.name]) for item in self.view.key)
        q = self._q(near, events, window, hop)
        case = Case(f"g{self.number}", self.view.name, key, q, tuple(events), f"generated, seed {SEED}")
        return replace(case, erasures=self._erasures(events, hop))

    def _erasures(self, events: Sequence[RawEvent], hop: int) -> tuple[Erasure, ...]:
        """Now and then the case's own subject was erased, beside what the rule turns on."""
        rng = self.rng
        if not events or rng.random() > ERASED_SHARE:
            return ()
        event = rng.choice(events)
        at = rng.choice((event.available_at, event.available_at, event.at, floor_to(event.at, hop)))
        column = self.view.key[0].name if len(self.view.key) == 1 else catalog.CASE.name
        value = parse_literal(catalog.EVENTS.field(column).type, self.key[column])
        return (Erasure(column, value, at + rng.choice((-_MS, -1, 0, 0, 0, 1, _MS))),)

    def _keys(self) -> tuple[dict[str, str], dict[str, str]]:
        """The key that is asked for, and one that is easily taken for it."""
        rng, number = self.rng, FIRST_NUMBER + self.number
        plain = {"c": str(number), "a": "", "b": "", "text": f"case {number}", "flag": "false", "day": "1970-01-01"}
        names = {item.name for item in self.view.key}
        if names >= {"a", "b"}:
            (a, b), (other_a, other_b) = rng.choice(_PAIRS) if rng.random() < 0.6 else self._random_pairs()
            return plain | {"a": a, "b": b}, plain | {"a": other_a, "b": other_b}
        if "flag" in names:
            day = rng.choice(("1970-01-01", "1969-12-31", "2024-02-29", "0001-01-01", "9999-12-31"))
            mine = plain | {"flag": rng.choice(("true", "false")), "day": day}
            return mine, mine | rng.choice(
                ({"flag": "true" if mine["flag"] == "false" else "false"}, {"day": "1970-01-02"})
            )
        if "text" in names:
            text = rng.choice(_TEXTS)
            mine, other = f"{text}{number}|", f"{text}{number}%7C"
            if rng.random() < 0.5:
                mine, other = other, mine
            return plain | {"text": mine}, plain | {"text": other}
        return plain, plain | {"c": str(-number)}

    def _random_pairs(self) -> tuple[tuple[str, str], tuple[str, str]]:
        one, other = self.rng.choice(_TEXTS), self.rng.choice(_TEXTS)
        return (one, other), (other + "|", one)

    def _span(self) -> tuple[int, int]:
        """A window and its hop; of a row view its time to live, with nothing to floor to."""
        if isinstance(self.view, RowView):
            return self.view.ttl or HOUR, 1
        aggregate = self.rng.choice(self.view.aggregates)
        return aggregate.window, aggregate.hop

    def _anchor(self) -> int:
        """An instant that the case plays around: q, more or less."""
        rng = self.rng
        pool = rng.choices((_USUAL, _EDGES, _FAR), (60, 36, 4))[0]
        near = parse_instant(rng.choice(pool)) + rng.choice((0, 0, rng.randrange(-2 * DAY, 2 * DAY)))
        if rng.random() < 0.4:
            near = floor_to(near, rng.choice((SECOND, 5 * MINUTE, HOUR, DAY))) + rng.choice((-1, 0, 1, _MS))
        return min(max(near, _LEAST + 32 * DAY), _GREATEST - DAY)

    # -- events ----------------------------------------------------------------------------------------------------

    def _events(self, near: int, window: int, hop: int) -> Iterator[RawEvent]:
        rng = self.rng
        times: list[int] = []
        for index in range(rng.choice((0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 7, 9))):
            at = rng.choice(times) if times and rng.random() < 0.25 else self._event_time(near, window, hop)
            at = min(max(at, _LEAST), _GREATEST)
            times.append(at)
            available = self._available(at, near, hop)
            event = self._event(index, at, available, self.other if rng.random() < 0.12 else self.key)
            yield event
            if not catalog.is_batch(self.view) and rng.random() < 0.08:
                later = available + rng.choice((0, _MS, MINUTE))
                yield self._event(index, at, later, event.values, event.partition)

    def _event_time(self, near: int, window: int, hop: int) -> int:
        rng = self.rng
        start = floor_to(near - window, hop)
        jitter = rng.choice((-1, 0, 0, 1, _MS, -_MS))
        return rng.choice(
            (
                start + jitter,
                near - window + jitter,
                floor_to(near - rng.randrange(window + 1), hop) + jitter,
                near - rng.randrange(window + 1),
                near - rng.randrange(1, min(window, MINUTE) + 1),
                floor_to(near, hop) + jitter,
                near - rng.choice((1, _MS, SECOND, MINUTE)),
                start - rng.randrange(1, 2 * hop + 1),
                near + rng.choice((1, _MS, SECOND)),
            )
        )

    def _available(self, at: int, near: int, hop: int) -> int:
        """When it was available: whole milliseconds, as Kafka's."""
        rng = self.rng
        final = floor_to(at, hop) + hop + catalog.EVENTS.allowed_lateness
        skew = catalog.EVENTS.max_future_skew
        draw = rng.random()
        if draw < 0.45:
            chosen = at + rng.choice((0, 1, _MS - 1, SECOND, MINUTE))
        elif draw < 0.65 and hop > 1:
            chosen = final + rng.choice((-_MS, 0, _MS, MINUTE))
        elif draw < 0.8:
            chosen = at - rng.choice((_MS, SECOND, skew - _MS, skew, skew + _MS))
        elif draw < 0.9:
            chosen = near - rng.choice((0, 1, _MS))
        else:
            chosen = at + rng.randrange(0, 3 * DAY)
        if draw < 0.65 or draw >= 0.9:
            chosen = max(chosen, at)
        return -(-chosen // _MS) * _MS

    def _event(
        self, index: int, at: int, available: int, key: Mapping[str, str | None], partition: int | None = None
    ) -> RawEvent:
        rng = self.rng
        keys = {name: key[name] for name in self.key}
        values = {item.name: self._literal(item) for item in catalog.read_by(self.view)}
        if not catalog.is_batch(self.view) and rng.random() < 0.02:
            values["whole"] = rng.choice(_BAD)
        return RawEvent(
            event_id=f"g{self.number}-{index}",
            at=at,
            available_at=available,
            partition=self._partition() if partition is None else partition,
            offset=0,
            values=keys | values,
        )

    def _partition(self) -> int:
        """Of the topic; now and then of a history file."""
        return FILE if self.rng.random() < 0.03 else self.rng.randrange(catalog.PARTITIONS)

    def _literal(self, column: Field) -> str | None:
        rng = self.rng
        if rng.random() < 0.15:
            return None
        extreme = rng.random() < 0.3
        match column.type.kind:
            case Kind.INT64:
                return str(rng.choice((INT64_MAX, INT64_MIN, 2**53 + 1, 0, -1)) if extreme else rng.randrange(-50, 50))
            case Kind.DECIMAL:
                most = 10**column.type.precision - 1
                return _decimal(
                    rng.choice((most, -most, 0)) if extreme else rng.randrange(-9999, 9999), column.type.scale
                )
            case Kind.FLOAT64:
                return json.dumps(_float(rng, extreme=extreme))
            case Kind.BOOL:
                return rng.choice(("true", "false"))
            case Kind.TIMESTAMP:
                return rfc3339(rng.choice((_LEAST, _GREATEST, -1, 0)) if extreme else rng.randrange(2**50))
            case Kind.DATE:
                return rng.choice(("0001-01-01", "9999-12-31", "1969-12-31", "1970-01-01", "2024-02-29"))
            case _:
                return rng.choice(_TEXTS)

    # -- q ---------------------------------------------------------------------------------------------------------

    def _q(self, near: int, events: Sequence[RawEvent], window: int, hop: int) -> int:
        """An instant at which something turns; else the anchor."""
        rng = self.rng
        if not events or rng.random() < 0.25:
            return near
        event = rng.choice(events)
        at = min(event.at, event.available_at)
        leaves = floor_to(at, hop) + hop + window if hop > 1 else at + window
        q = rng.choice(
            (event.available_at, at, leaves, leaves, max(item.available_at for item in events))
        ) + rng.choice((-1, 0, 1, 1))
        return min(max(q, _LEAST), _GREATEST)


def _with_offsets(rng: random.Random, events: Sequence[RawEvent], *, batch: bool) -> list[RawEvent]:
    """Positions in the log: offsets count up with availability, but for rows of files, which have an ordinal."""
    ordered = list(events)
    if batch:
        ordered.sort(key=lambda event: event.at)
    start = rng.randrange(5)
    return [replace(event, offset=start + index) for index, event in enumerate(ordered)]


def _decimal(unscaled: int, scale: int) -> str:
    digits = str(abs(unscaled)).rjust(scale + 1, "0")
    text = f"{digits[:-scale]}.{digits[-scale:]}" if scale else digits
    return f"-{text}" if unscaled < 0 else text


def _float(rng: random.Random, *, extreme: bool) -> float:
    if extreme:
        return rng.choice((1e16, -1e16, 1e-300, 0.1, -0.0, 1.0, 1e100, -1e100, 1.7976931348623157e308))
    return rng.choice((rng.uniform(-1000, 1000), float(rng.randrange(-5, 6)), rng.random()))
