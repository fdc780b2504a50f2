"""Pictures of a report: every count is to be seen and in its place, and colour is never the only difference."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise

import pytest

from coeval.spec.time import HOUR
from coeval_parity import pictures
from coeval_parity.pictures import DOWN, METER, UP
from coeval_parity.result import BENIGN, Cause, FeatureParity, Hour
from coeval_parity.trends import ALL_VIEWS, PastRun, by_run, run_bars, trends
from tests.support import parity_pages
from tests.support.parity_pages import feature, view

NOW = 500_000 * HOUR


def _feature(*hours: Hour) -> FeatureParity:
    return replace(feature("v", "count_1h", {}, 10), hours=hours)


def _hour(start: int | None, causes: dict[Cause, int] | None = None, *, earlier: bool = False) -> Hour:
    wrong = causes or {}
    return Hour(start, 1000, 1000 - sum(wrong.values()), wrong, earlier)


def test_what_fails_the_run_stands_above_the_line_and_what_is_benign_hangs_below() -> None:
    causes = {Cause.UNEXPLAINED: 1, Cause.STALE: 900, Cause.LATE: 5}
    drawn = pictures.timeline(view("v", (_feature(_hour(NOW, causes), _hour(NOW + HOUR)),), 10))
    assert drawn is not None
    assert (drawn.most_failing, drawn.most_benign) == (901, 5)
    above = [box for box in drawn.boxes if box.cause not in {*BENIGN}]
    below = [box for box in drawn.boxes if box.cause in {*BENIGN}]
    assert {box.cause for box in above} == {"unexplained", "stale"}
    assert all(box.y >= 0 and box.y + box.height <= UP for box in above)
    assert all(box.y > UP and box.y + box.height <= UP + 1 + DOWN for box in below)
    assert min(box.height for box in drawn.boxes) > 2
    assert all(box.title.endswith("5 late, 900 stale, 1 unexplained of 1,000") for box in drawn.boxes)


def test_a_view_in_which_nothing_differs_has_no_timeline() -> None:
    assert pictures.timeline(view("v", (_feature(_hour(NOW)),), 10)) is None
    assert pictures.timeline(view("v", (feature("v", "count_1h", {Cause.LATE: {1: 2}}, 10, 0),), 10)) is None


def test_hours_that_do_not_follow_each_other_are_drawn_apart() -> None:
    wrong = {Cause.LATE: 1}
    starts = [_hour(None, wrong), _hour(NOW, wrong, earlier=True), *(_hour(NOW + n * HOUR, wrong) for n in (1, 2, 4))]
    drawn = pictures.timeline(view("v", (_feature(*starts),), 10))
    assert drawn is not None
    gaps = [right.x - left.x - left.width for left, right in pairwise(drawn.boxes)]
    assert [round(gap) for gap in gaps] == [9, 9, 2, 9]
    assert [mark.text for mark in drawn.marks] == ["no event", "01-15 12:00"]


def test_words_below_never_overlap() -> None:
    for shown in parity_pages.big(2, 3).views:
        drawn = pictures.timeline(shown)
        assert drawn is not None and drawn.marks
        assert all(left.x + 6 * len(left.text) < right.x for left, right in pairwise(drawn.marks))
        assert drawn.marks[-1].x + 6 * len(drawn.marks[-1].text) <= drawn.width + 1


def test_a_strip_tells_failing_benign_and_equal_hours_apart_by_shape() -> None:
    causes: list[dict[Cause, int]] = [{}, {}, {}, {Cause.LATE: 1}, {Cause.LATE: 9, Cause.TTL: 1}, {}]
    hours = [_hour(NOW + number * HOUR, wrong) for number, wrong in enumerate(causes)]
    drawn = pictures.strip(_feature(*hours), hours)
    assert [(box.cause, box.height) for box in drawn.boxes] == [("", 2.0), ("late", 7.0), ("ttl", 12.0), ("", 2.0)]
    assert drawn.boxes[0].width == pytest.approx(11)
    assert drawn.label.startswith("Differences in 2 of 6 hours, in 1 of them failing ones; most in the hour of")
    assert [box.x for box in pictures.strip(_feature(hours[3]), hours).boxes] == [drawn.boxes[1].x]


def test_a_meter_shows_every_cause_and_never_more_than_all() -> None:
    causes = {cause: {1: 1} for cause in Cause}
    boxes = pictures.meter([feature("v", "count_1h", causes, 10_000)])
    assert [box.cause for box in boxes] == ["", *Cause]
    assert sum(box.width for box in boxes) == pytest.approx(METER, abs=0.1)
    assert min(box.width for box in boxes) >= 3
    all_wrong = pictures.meter([feature("v", "count_1h", causes | {Cause.TTL: {0: 9, 1: 1}}, 9, 2)])
    assert sum(box.width for box in all_wrong) == pytest.approx(METER, abs=0.1)


def _run(number: int, view: str, unexplained: int, late: int = 0, compared: int = 100) -> PastRun:
    causes = {cause: count for cause, count in ((Cause.UNEXPLAINED, unexplained), (Cause.LATE, late)) if count}
    return PastRun(number, NOW + number, not unexplained, compared, causes, view)


def test_runs_of_several_views_are_added_up() -> None:
    runs = by_run([_run(2, "b", 1), _run(1, "a", 0, 3), _run(2, "a", 0, 5), _run(1, "b", 0)])
    assert [(run.run, run.passed, run.compared, dict(run.causes)) for run in runs] == [
        (1, True, 200, {Cause.LATE: 3}),
        (2, False, 200, {Cause.UNEXPLAINED: 1, Cause.LATE: 5}),
    ]
    assert {run.view for run in runs} == {ALL_VIEWS}
    benign, both = run_bars(runs)
    assert [box.cause for box in benign] == ["benign"]
    assert [box.cause for box in both] == ["failing", "benign"]
    assert both[1].y + both[1].height == pytest.approx(both[0].y)
    assert [box.height for box in run_bars([_run(1, "a", 90, 10)])[0]] == [40.0]


def test_every_view_has_a_line_per_cause_over_the_runs_and_failing_ones_come_first() -> None:
    runs = [_run(1, "a", 0, 4), _run(2, "a", 0, 8), _run(3, "a", 0, 2), _run(2, "b", 5), _run(3, "b", 10)]
    drawn = trends(runs)
    assert [(line.view, line.cause, line.now, line.highest, line.highest_run) for line in drawn] == [
        ("b", Cause.UNEXPLAINED, 0.1, 0.1, 3),
        ("a", Cause.LATE, 0.02, 0.08, 2),
    ]
    assert drawn[1].points == "4.0,14.0 80.0,3.0 156.0,19.5"
    assert trends(runs[:1]) == []


def _css(name: str) -> str:
    return (files("coeval_parity") / "templates" / name).read_text()


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    bright, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_text_has_the_contrast_that_wcag_aa_asks_for(scheme: int) -> None:
    block = re.findall(r":root \{(.*?)\}", _css("_base.css.j2"), re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([\w]+(?:-\w+)?): (#[0-9a-f]{6});", block))
    texts = ("ink", "quiet", "bad", "ok", "focus", *Cause)
    behind = ("paper", "card", "bad-wash", "ok-wash", "code")
    poor = {
        (text, ground): round(_contrast(colours[text], colours[ground]), 2)
        for text in texts
        for ground in behind
        if _contrast(colours[text], colours[ground]) < 4.5
    }
    assert not poor
    assert all(_contrast(colours[name], colours["card"]) >= 3 for name in ("before", "now"))


def test_every_cause_has_a_pattern_of_its_own() -> None:
    patterns = re.findall(r"(solid|hatched)\('(\w+)', '(.*?)'\)", _css("_patterns.html.j2"))
    assert {name for _, name, _ in patterns} == {*Cause}
    assert {name for kind, name, _ in patterns if kind == "hatched"} == {*BENIGN}
    assert len({(kind, marks) for kind, _, marks in patterns}) == len(Cause)
