"""Claims about runs: where they may begin, what they are restored from, when one has passed another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from coeval.settings import Settings
from coeval.spec.model import WindowedView
from coeval.spec.time import DAY, HOUR, MINUTE
from coeval_pipelines.control import ENDED, RUNNING, STOPPED, Certificate, ControlPlane, Run, schema
from coeval_pipelines.coordination.runs import SETTLED_SECONDS, end_replaced, now
from coeval_pipelines.streaming.options import (
    MAX_PARALLELISM,
    StaleStateError,
    checkpoint_root,
    job_options,
    start_of,
)
from coeval_pipelines.streaming.progress import covered_offsets
from coeval_pipelines.streaming.rewind import open_since
from coeval_pipelines.streaming.sql import STATE_SLACK, SourceJob
from tests.support import catalog

RUN = Run(0, "payments", "hash", ("card_spend",), {"card_spend": 5}, {0: 7, 1: 9}, parallelism=2, reason="a test")
JOB = SourceJob("payments", "coeval-bank-payments-1", "graph", HOUR, ())
EARLIEST, LATEST = 0, 2**52


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlPlane]:
    with closing(ControlPlane.open(Settings(home=tmp_path))) as opened:
        yield opened


def _written(root: Path, name: str, at: float) -> Path:
    path = root / name / "_metadata"
    path.parent.mkdir(parents=True)
    path.touch()
    os.utime(path, (at, at))
    return path.parent


def test_a_run_is_kept_as_it_was_begun(control: ControlPlane) -> None:
    first = control.begin_run(RUN, 5)
    assert first == replace(RUN, number=1, started_at=5, changed_at=5, identity=first.identity)
    assert first.label == f"1-{first.identity}"
    second = control.begin_run(replace(RUN, replaces=(1,)), 6)
    assert control.runs("payments") == (first, second)
    assert control.runs("refunds") == ()


def test_a_successor_and_the_end_of_its_predecessor_are_one_step(control: ControlPlane) -> None:
    first = control.begin_run(RUN, 5)
    second = control.begin_run(RUN, 6, ends=[first.number])
    assert control.runs() == (second,)
    assert [run.number for run in control.runs(statuses=(ENDED,))] == [first.number]


@given(st.integers(EARLIEST, LATEST), st.integers(-30 * MINUTE, 40 * DAY))
def test_no_tile_that_is_still_open_starts_before_the_rewind(available: int, ahead: int) -> None:
    view = catalog.manifest().views["card_spend"]
    assert isinstance(view, WindowedView)
    source = catalog.PAYMENTS
    point = open_since(source, view, available)
    # Any event to come, however late it is, that still counts in its tile.
    comes = available + ahead
    for hop in {aggregate.hop for aggregate in view.aggregates}:
        oldest = comes - source.allowed_lateness
        tile = oldest // hop
        counts = comes < (tile + 1) * hop + source.allowed_lateness
        assert not counts or tile * hop >= point, hop
        # And the tiles of a granularity that are written at all are whole: nothing before the point enters them.
        assert -(-point // hop) * hop >= point


def test_a_restart_takes_the_newest_state_that_is_whole(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    root = checkpoint_root(settings, JOB)
    assert start_of(settings, RUN, JOB, 0) == ""
    _written(root, "a/chk-3", 100.0)
    newest = _written(root, "b/chk-2", 200.0)
    (root / "b" / "chk-9").mkdir()
    assert start_of(settings, RUN, JOB, 300.0) == newest.as_uri()
    savepoint = _written(root, "savepoint-b-1", 250.0)
    assert start_of(settings, RUN, JOB, 300.0) == savepoint.as_uri()
    with pytest.raises(StaleStateError):
        start_of(settings, RUN, JOB, 251.0 + STATE_SLACK / 1e6)


def test_a_rescaled_run_starts_from_its_predecessors_savepoint_until_it_has_its_own(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    left = _written(tmp_path / "before it", "savepoint-x", 100.0)
    run = replace(RUN, restore=left.as_uri())
    assert start_of(settings, run, JOB, 200.0) == left.as_uri()
    options = job_options(settings, run, JOB, left.as_uri())
    assert options["execution.state-recovery.claim-mode"] == "NO_CLAIM"
    own = _written(checkpoint_root(settings, JOB), "c/chk-1", 150.0)
    assert start_of(settings, run, JOB, 200.0) == own.as_uri()
    assert job_options(settings, run, JOB, own.as_uri())["execution.state-recovery.claim-mode"] == "CLAIM"


def test_a_job_keeps_its_key_groups_whatever_its_parallelism(tmp_path: Path) -> None:
    options = job_options(Settings(home=tmp_path), RUN, JOB, "")
    assert options["parallelism.default"] == "2"
    assert options["pipeline.max-parallelism"] == str(MAX_PARALLELISM)
    assert "execution.state-recovery.path" not in options


def _certify(control: ControlPlane, run: Run, offset: int, at: int) -> None:
    control.record_certificate(Certificate(run.source, run.number, {0: offset}, {}, at))


def test_a_run_ends_once_its_successor_has_passed_it(control: ControlPlane) -> None:
    old = control.begin_run(RUN, 1)
    new = control.begin_run(replace(RUN, replaces=(old.number,)), 2)
    settled = now() - 2 * SETTLED_SECONDS * 1_000_000
    assert end_replaced(control) == []
    _certify(control, old, 100, settled)
    _certify(control, new, 99, now())
    assert end_replaced(control) == []
    _certify(control, new, 100, now())
    assert end_replaced(control) == [old.number]
    assert control.runs() == (new,)
    assert end_replaced(control) == []


def test_a_stopped_run_does_not_hold_up_its_successor(control: ControlPlane) -> None:
    old = control.begin_run(RUN, 1)
    control.set_run(old.number, STOPPED, 2, restore="file:/savepoint")
    control.begin_run(replace(RUN, replaces=(old.number,)), 3)
    assert end_replaced(control) == [old.number]


def test_a_run_is_brought_back_with_what_it_left(control: ControlPlane) -> None:
    run = control.begin_run(RUN, 1)
    control.set_run(run.number, STOPPED, 2, restore="file:/savepoint")
    assert control.runs() == ()
    control.set_run(run.number, RUNNING, 3)
    assert control.runs() == (replace(run, restore="file:/savepoint", changed_at=3),)


def test_old_certificates_are_forgotten_but_one_of_each_hour(control: ControlPlane) -> None:
    run = control.begin_run(RUN, 1)
    for offset in range(9):
        _certify(control, run, offset, offset * 20 * MINUTE)
    _certify(control, replace(run, number=2), 99, 99)
    control.forget_certificates(run.number, keep=2)
    assert [item.offsets[0] for item in control.certificates("payments", run.number)] == [8, 7, 6, 3, 0]
    assert len(control.certificates("payments")) == 6


def test_what_a_store_covers_is_known_however_far_it_is_behind(control: ControlPlane) -> None:
    run = control.begin_run(RUN, 1)
    row = {"source": run.source, "run": run.number, "recorded_at": 0}
    rows = [
        {**row, "offsets": f'{{"0": {offset}}}', "ends": f'{{"changelog": {{"0": {10 * offset}}}}}'}
        for offset in range(1, 500)
    ]
    with control.engine.begin() as connection:
        connection.execute(sa.insert(schema.CERTIFICATES), rows)
    every = control.every_certificate("payments")
    assert covered_offsets(every, {"changelog"}, {"changelog": {0: 25}}) == {0: 2}
    assert [item.offsets[0] for item in control.every_certificate("payments")] == list(range(499, 0, -1))
