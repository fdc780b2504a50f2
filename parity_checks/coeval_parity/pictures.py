"""What the pictures of a report are drawn from: places and sizes in pixels, from counts. Pure; templates draw them.

Causes that fail a run and benign ones are told apart by where and how they are drawn, not by colour alone: above and
below a line, whole and half as high, each cause with a pattern of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from coeval.spec.time import HOUR
from coeval.spec.types import iso
from coeval_parity.result import BENIGN, Cause, FeatureParity, Hour, ViewParity

UP, DOWN = 64.0, 40.0
"""The heights of the differences that fail a run, above the line, and of the benign ones below it."""
_COLUMN, _GAP, _ROOM = 11.0, 7.0, 1000.0
"""The least width of an hour, the gap between two that do not follow each other, and what all may fill."""
_LETTER = 6.5
"""The width of a letter below."""
_CELL, _CELL_GAP = 4.0, 2.0
SEEN = 3.0
"""What occurs is drawn at least so high or wide."""
METER = 150.0
"""The width of the bar that shows what became of all values."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle that stands for a cause; "" for what is equal."""

    x: float
    y: float
    width: float
    height: float
    cause: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """Words at a place."""

    x: float
    text: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """The differences of a view by hour; the line between failing and benign ones is at `UP`."""

    width: float
    boxes: tuple[Box, ...]
    marks: tuple[Mark, ...]
    most_failing: int
    most_benign: int
    label: str


@dataclass(frozen=True, slots=True)
class Strip:
    """The hours of one feature as a row of cells, 12 high."""

    width: float
    boxes: tuple[Box, ...]
    label: str


def meter(features: Sequence[FeatureParity]) -> list[Box]:
    """What became of all values: a bar of `METER` by 9, in which every cause that occurs is to be seen."""
    compared = sum(item.compared for item in features)
    counts = {cause: sum(item.causes.get(cause, 0) for item in features) for cause in Cause}
    wide = [(cause, max(SEEN, METER * count / compared)) for cause, count in counts.items() if count]
    total = sum(width for _, width in wide)
    x = max(0.0, METER - total)
    boxes = [Box(0.0, 0.0, round(x, 2), 9.0, "")] if compared else []
    for cause, width in wide:
        boxes.append(Box(round(x, 2), 0.0, round(width * min(1.0, METER / total), 2), 9.0, str(cause)))
        x += boxes[-1].width
    return boxes


def timeline(view: ViewParity) -> Timeline | None:
    """The differences of all features of a view, hour by hour; None where there are none, or no hours are known."""
    hours = merged(view.features)
    up, down = _most(hours, failing=True), _most(hours, failing=False)
    if not up and not down:
        return None
    column = round(min(max(_ROOM / len(hours), _COLUMN), 2 * _COLUMN), 1)
    places, width = _places(hours, column, _GAP)
    boxes: list[Box] = []
    for hour, x in zip(hours, places, strict=True):
        title = f"{when(hour)}: {told(hour)}"
        top = UP
        for cause, height in _heights(hour, up, UP, failing=True):
            top -= height
            boxes.append(Box(x, round(top, 2), column - 2, round(height, 2), str(cause), title))
        bottom = UP + 1
        for cause, height in _heights(hour, down, DOWN, failing=False):
            boxes.append(Box(x, round(bottom, 2), column - 2, round(height, 2), str(cause), title))
            bottom += height
    marks = _marks(hours, places)
    width = max(width, *(mark.x + _LETTER * len(mark.text) for mark in marks))
    return Timeline(width, tuple(boxes), marks, up, down, _label(hours))


def strip(feature: FeatureParity, hours: Sequence[Hour]) -> Strip:
    """One feature over the hours of its view: failing cells stand up, benign ones hang half as high, equal ones lie."""
    mine = {(hour.start, hour.earlier): hour for hour in feature.hours}
    places, width = _places(hours, _CELL, _CELL_GAP)
    boxes: list[Box] = []
    for slot, x in zip(hours, places, strict=True):
        hour = mine.get((slot.start, slot.earlier))
        if hour is None:
            continue
        if hour.causes:
            boxes.append(_cell(hour, x))
        elif boxes and not boxes[-1].cause and x - boxes[-1].x - boxes[-1].width <= 1:
            boxes[-1] = replace(boxes[-1], width=x + _CELL - 1 - boxes[-1].x)
        else:
            boxes.append(Box(x, 5.0, _CELL - 1, 2.0, ""))
    return Strip(width, tuple(boxes), _label(feature.hours))


def _cell(hour: Hour, x: float) -> Box:
    """An hour in which values differ: by the cause that counts most."""
    worst = max(hour.causes, key=lambda cause: (cause not in BENIGN, hour.causes[cause]))
    top, height = (5.0, 7.0) if worst in BENIGN else (0.0, 12.0)
    return Box(x, top, _CELL - 1, height, str(worst), f"{when(hour)}: {told(hour)}")


def merged(features: Iterable[FeatureParity]) -> list[Hour]:
    """The hours of several features of a view as one, oldest first; values without an event before all."""
    found: dict[tuple[int | None, bool], list[Hour]] = {}
    for hour in (hour for feature in features for hour in feature.hours):
        found.setdefault((hour.start, hour.earlier), []).append(hour)
    order = sorted(found, key=lambda slot: (slot[0] is not None, slot[0] or 0))
    return [_sum(found[slot]) for slot in order]


def _sum(hours: Sequence[Hour]) -> Hour:
    causes: Counter[Cause] = Counter()
    for hour in hours:
        causes.update(hour.causes)
    compared, matched = sum(hour.compared for hour in hours), sum(hour.matched for hour in hours)
    return Hour(hours[0].start, compared, matched, dict(causes), hours[0].earlier)


def _most(hours: Iterable[Hour], *, failing: bool) -> int:
    return max((sum(_side(hour, failing=failing).values()) for hour in hours), default=0)


def _side(hour: Hour, *, failing: bool) -> dict[Cause, int]:
    return {cause: hour.causes[cause] for cause in Cause if hour.causes.get(cause) and (cause not in BENIGN) is failing}


def _heights(hour: Hour, most: int, room: float, *, failing: bool) -> list[tuple[Cause, float]]:
    """The heights of one side of an hour; all together no more than there is room for."""
    found = [(cause, max(SEEN, room * count / most)) for cause, count in _side(hour, failing=failing).items()]
    total = sum(height for _, height in found)
    return [(cause, height * min(1.0, room / total)) for cause, height in found]


def _places(hours: Sequence[Hour], step: float, gap: float) -> tuple[list[float], float]:
    """Where each hour begins, with a gap where it does not follow the one before; and how wide all are."""
    places: list[float] = []
    x = 0.0
    for number, hour in enumerate(hours):
        if number and not _follows(hours[number - 1], hour):
            x += gap
        places.append(x)
        x += step
    return places, x


def _follows(before: Hour, hour: Hour) -> bool:
    if before.start is None or hour.start is None or before.earlier:
        return False
    return hour.start - before.start == HOUR


def _marks(hours: Sequence[Hour], places: Sequence[float]) -> tuple[Mark, ...]:
    """The words below, where there is room: of every sixth hour, and of an hour that does not follow the one before."""
    found: list[Mark] = []
    free, day = 0.0, ""
    for number, (hour, x) in enumerate(zip(hours, places, strict=True)):
        text, today = _short(hour)
        is_first = not number or not _follows(hours[number - 1], hour)
        if x >= free and (is_first or (hour.start or 0) // HOUR % 6 == 0):
            words = f"{today} {text}" if today != day else text
            found.append(Mark(x, words.strip()))
            free, day = x + _LETTER * (len(words) + 1), today
    return tuple(found)


def _short(hour: Hour) -> tuple[str, str]:
    """An hour in few letters, and its day."""
    if hour.start is None:
        return "no event", ""
    if hour.earlier:
        return "earlier", ""
    at = _EPOCH + timedelta(microseconds=hour.start)
    return f"{at:%H:%M}", f"{at:%m-%d}"


def when(hour: Hour) -> str:
    """An hour in words."""
    if hour.start is None:
        return "keys without an event in the log"
    begins = iso(hour.start).replace(":00:00Z", ":00Z")
    return f"the hour of {begins} and before" if hour.earlier else f"the hour of {begins}"


def told(hour: Hour) -> str:
    """What became of an hour's values, in words."""
    causes = [f"{hour.causes[cause]:,} {cause.replace('_', ' ')}" for cause in Cause if hour.causes.get(cause)]
    return f"{', '.join(causes) or 'all equal'} of {hour.compared:,}"


def _label(hours: Sequence[Hour]) -> str:
    """A picture for those who do not see it."""
    differing = [hour for hour in hours if hour.causes]
    if not differing:
        return f"All equal in {len(hours)} hours"
    failing = sum(bool(_side(hour, failing=True)) for hour in differing)
    worst = max(differing, key=lambda hour: hour.compared - hour.matched)
    return (
        f"Differences in {len(differing)} of {len(hours)} hours, in {failing} of them failing ones; "
        f"most in {when(worst)}: {told(worst)}"
    )
