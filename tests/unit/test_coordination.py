"""Claims about the handoff between batch and stream, and about what is deployed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coeval.aggregations.tiles import tile_plan
from coeval.errors import EngineError
from coeval.settings import Settings
from coeval.spec.model import WindowedView
from coeval.spec.time import DAY, HOUR
from coeval_pipelines.control import Certificate, ControlPlane
from coeval_pipelines.coordination.fill import Asked, fill
from coeval_pipelines.coordination.handoff import required_cut
from coeval_pipelines.coordination.locks import only_one
from coeval_pipelines.coordination.runs import now
from tests.support import catalog
from tests.support.loads import begin_load


@pytest.fixture
def settings(tmp_path: Path, redis_server: Settings) -> Settings:
    return Settings(home=tmp_path, redis=redis_server.redis)


@pytest.fixture
def control(settings: Settings) -> Iterator[ControlPlane]:
    with closing(ControlPlane.open(settings)) as opened:
        yield opened


@given(st.integers(0, 2**52))
def test_at_the_required_cut_no_tile_is_left_between_batch_and_stream(since: int) -> None:
    manifest = catalog.manifest()
    view = manifest.views["card_spend"]
    assert isinstance(view, WindowedView)
    lateness = catalog.PAYMENTS.allowed_lateness
    cut = required_cut(view, manifest, since)
    plan = tile_plan(view, catalog.PAYMENTS)
    assert all(item.final_before(cut, lateness) >= item.first_owned(since) for item in plan.granularities)
    assert any(item.final_before(cut - 1, lateness) < item.first_owned(since) for item in plan.granularities)


def test_a_certificate_that_is_silent_about_a_topic_proves_nothing_of_it() -> None:
    certificate = Certificate("payments", 1, {0: 10}, {"changelog": {0: 5, 1: 7}}, 0)
    assert certificate.is_reached("changelog", {0: 5, 1: 7})
    assert not certificate.is_reached("changelog", {0: 5, 1: None})
    assert not certificate.is_reached("another", {0: 99})


def test_a_view_is_not_filled_before_its_handoff_is_over(settings: Settings, control: ControlPlane) -> None:
    manifest = catalog.manifest()
    view = manifest.views["card_spend"]
    control.deploy(view.name, view.version, manifest.hash, now() + DAY, now())
    loaded: list[object] = []
    with pytest.raises(EngineError, match="cannot be filled yet"):
        fill(settings, manifest, control, [view], loaded.append)
    with pytest.raises(EngineError, match="cannot be filled yet"):
        fill(settings, manifest, control, [view], loaded.append, Asked(cut=now()))
    assert not loaded


def test_a_view_that_is_not_deployed_is_not_filled(settings: Settings, control: ControlPlane) -> None:
    manifest = catalog.manifest()
    with pytest.raises(EngineError, match="not deployed"):
        fill(settings, manifest, control, [manifest.views["card_spend"]], lambda cuts: None)


def test_the_released_manifest_is_the_one_named_last(control: ControlPlane) -> None:
    one = catalog.manifest()
    other = dataclasses.replace(one, services=())
    assert control.released() is None
    for manifest in (one, other, one):
        control.save_manifest(manifest, now())
        control.release(manifest.hash, now())
        assert control.released() == manifest


def test_a_deployed_version_keeps_its_instant(control: ControlPlane) -> None:
    first = control.deploy("card_spend", "abc", "hash", 5 * HOUR, 1)
    assert control.deploy("card_spend", "abc", "other", 9 * HOUR, 2) == first
    assert [item.since for item in control.deployments()] == [5 * HOUR]


def test_a_load_counts_when_it_is_finished(control: ControlPlane) -> None:
    run = begin_load(control, "card_spend", "abc", 7)
    assert control.last_load("card_spend", "abc") is None
    control.finish_load(run, 3, 9)
    found = control.last_load("card_spend", "abc")
    assert found is not None
    assert (found.run, found.cut, found.written) == (run, 7, 3)
    assert begin_load(control, "card_spend", "abc", 8) > run


def test_only_one_process_fills_at_a_time(settings: Settings) -> None:
    with only_one(settings, "fill"), only_one(settings, "fill", wait=False) as mine:
        assert not mine
    with only_one(settings, "fill", wait=False) as mine:
        assert mine
