"""Claims about what a deployment does to the runs that are there: no released view may lose what fills it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coeval.errors import UsageError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import Field
from coeval.spec.types import INT64
from coeval_pipelines.control import STOPPED, ControlPlane, Run
from coeval_pipelines.coordination.changes import (
    BESIDE,
    KEEP,
    REPLACE,
    RESUME,
    START,
    Standing,
    Step,
    Version,
    decide,
    judging,
)
from coeval_pipelines.coordination.requests import cancel, rewind
from coeval_pipelines.coordination.runs import sweep
from coeval_pipelines.streaming.names import group_id, job_name
from coeval_pipelines.streaming.options import checkpoints_of
from tests.chaos.campaign import changed
from tests.support import catalog

OLD, NEW, OTHER = ("card_spend", "v1"), ("card_spend", "v2"), ("latest", "v1")


def _run(number: int, status: str = "running", **more: object) -> Run:
    return Run(number, "payments", "hash", (), {}, {}, status=status, **more)  # type: ignore[arg-type]


def _standing(number: int, *fills: Version, status: str = "running", alike: bool = True, lost: str = "") -> Standing:
    return Standing(_run(number, status), frozenset(fills), alike, lost)


def _decided(standing: list[Standing], wanted: set[Version], released: set[Version] | None = None) -> list[Step]:
    return decide(standing, frozenset(wanted), frozenset(released or ()))


def _said(steps: list[Step]) -> list[tuple[str, int | tuple[str, ...]]]:
    return [(step.action, step.run.number if step.run else step.views) for step in steps]


def test_the_first_deployment_starts_everything() -> None:
    assert _said(_decided([], {OLD, OTHER})) == [(START, ("card_spend", "latest"))]


def test_a_new_version_fills_beside_the_one_that_readers_have() -> None:
    steps = _decided([_standing(1, OLD, OTHER)], {NEW, OTHER}, {OLD, OTHER})
    assert _said(steps) == [(KEEP, 1), (BESIDE, ("card_spend",))]


def test_what_was_stopped_goes_on_beside_a_new_version_too() -> None:
    steps = _decided([_standing(1, OLD, OTHER, status=STOPPED)], {NEW, OTHER}, {OLD, OTHER})
    assert _said(steps) == [(RESUME, 1), (BESIDE, ("card_spend",))]


def test_what_cannot_be_resumed_begins_again_as_itself() -> None:
    stopped = _standing(1, OLD, OTHER, status=STOPPED, lost="it left no savepoint")
    steps = _decided([stopped, _standing(2, NEW)], {NEW, OTHER}, {OLD, OTHER})
    assert _said(steps) == [(REPLACE, 1), (KEEP, 2)]


def test_a_source_that_judges_otherwise_has_its_views_filled_anew() -> None:
    steps = _decided([_standing(1, OLD, OTHER, alike=False)], {OLD, OTHER}, {OLD, OTHER})
    assert steps == [replace(steps[0], action=REPLACE, views=("card_spend", "latest"), replaces=(1,))]


def test_a_run_that_judges_otherwise_goes_on_while_readers_have_an_older_version_of_it() -> None:
    steps = _decided([_standing(1, OLD, OTHER, alike=False)], {NEW, OTHER}, {OLD, OTHER})
    assert _said(steps) == [(KEEP, 1), (BESIDE, ("card_spend", "latest"))]


def test_a_stopped_run_that_nobody_needs_stays_stopped() -> None:
    assert _said(_decided([_standing(1, OLD, status=STOPPED), _standing(2, NEW)], {NEW}, {NEW})) == [(KEEP, 2)]


_VERSIONS = st.frozensets(st.tuples(st.sampled_from("abc"), st.sampled_from(("v1", "v2"))))


@given(
    st.lists(st.builds(lambda fills, alike, stopped: (fills, alike, stopped), _VERSIONS, st.booleans(), st.booleans())),
    _VERSIONS,
    _VERSIONS,
)
def test_whatever_is_decided_every_version_that_is_wanted_or_read_has_somebody_to_fill_it(
    runs: list[tuple[frozenset[Version], bool, bool]], wanted: frozenset[Version], released: frozenset[Version]
) -> None:
    standing = [
        _standing(number, *fills, status=STOPPED if stopped else "running", alike=alike)
        for number, (fills, alike, stopped) in enumerate(runs)
    ]
    steps = decide(standing, wanted, released)
    ended = {number for step in steps for number in step.replaces}
    begun = {item for item in wanted for step in steps if step.run is None and item[0] in step.views}
    kept = [item for item in standing if any(step.run == item.run for step in steps)]
    after = begun.union(*(item.fills for item in kept if item.run.number not in ended))
    before = frozenset[Version]().union(*(item.fills for item in standing))
    assert wanted <= after
    assert released & before <= after


def test_any_column_decides_what_becomes_of_a_record() -> None:
    source = catalog.PAYMENTS
    more = replace(source, fields=(*source.fields, Field("instalments", INT64)))
    assert judging(more) != judging(source)
    assert judging(replace(source, description="other words", expected_rate=5.0)) == judging(source)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlPlane]:
    with closing(ControlPlane.open(Settings(home=tmp_path))) as opened:
        yield opened


def _begun(control: ControlPlane, manifest: Manifest, *views: str) -> Run:
    control.save_manifest(manifest, 1)
    return control.begin_run(Run(0, "payments", manifest.hash, views, dict.fromkeys(views, 0), {}), 1)


def test_a_run_that_readers_need_is_not_given_up(control: ControlPlane) -> None:
    manifest = catalog.manifest()
    names = tuple(view.name for view in manifest.views.values() if view.source == "payments")
    blue = _begun(control, manifest, *names)
    control.release(manifest.hash, 2)
    green = _begun(control, changed(manifest), "card_spend")
    assert cancel(control, green.number) == green
    with pytest.raises(UsageError, match=f"Nothing but run {blue.number} fills .*card_spend"):
        cancel(control, blue.number)
    with pytest.raises(UsageError, match="There is no run 99"):
        cancel(control, 99)


def test_a_rewind_is_not_asked_for_twice(control: ControlPlane, tmp_path: Path) -> None:
    run = _begun(control, catalog.manifest(), "card_spend")
    control.begin_run(replace(run, replaces=(run.number,)), 2)
    with pytest.raises(UsageError, match="about to take over") as caught:
        rewind(Settings(home=tmp_path), control, "payments", None)
    assert "coeval stream cancel 2" in caught.value.instruction


def test_the_state_of_a_run_that_is_over_goes_once_its_successor_has_its_own(
    control: ControlPlane, tmp_path: Path
) -> None:
    settings, manifest = Settings(home=tmp_path), catalog.manifest()
    old = _begun(control, manifest, "card_spend")
    left = checkpoints_of(settings, job_name(manifest, old)) / "graph" / "savepoint-1"
    left.mkdir(parents=True)
    assert sweep(settings, control) == [], "it runs"
    new = control.begin_run(replace(old, restore=left.as_uri()), 2, ends=[old.number])
    assert sweep(settings, control) == [], "the next one starts from it"
    own = checkpoints_of(settings, job_name(manifest, new)) / "graph" / "job" / "chk-1" / "_metadata"
    own.parent.mkdir(parents=True)
    own.touch()
    assert sweep(settings, control) == [old.number]
    assert own.exists()
    assert not left.exists()
    assert sweep(settings, control) == []


def test_no_two_runs_share_a_job_or_a_consumer_group_though_they_share_a_number(tmp_path: Path) -> None:
    manifest = catalog.manifest()
    found = []
    for home in ("before", "restored"):
        with closing(ControlPlane.open(Settings(home=tmp_path / home))) as control:
            found.append(_begun(control, manifest, "card_spend"))
    assert [run.number for run in found] == [1, 1]
    assert len({job_name(manifest, run) for run in found} | {group_id(manifest, run) for run in found}) == 4
