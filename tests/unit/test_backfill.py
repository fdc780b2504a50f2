"""Claims about what a backfill fills."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path

from coeval.settings import Settings
from coeval.spec.erasure import Erasure
from coeval.spec.manifest import Manifest
from coeval.spec.time import DAY, HOUR
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.loads import Pins
from coeval_pipelines.coordination.backfills import to_fill
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.offline.due import awaits_batch
from tests.support import catalog


def test_what_was_applied_and_not_deployed_does_not_stand_in_the_way_of_a_backfill(tmp_path: Path) -> None:
    released = catalog.manifest()
    (spend,) = (view for view in released.windowed_views if view.name == "card_spend")
    fresh = dataclasses.replace(spend, version="changed")
    others = tuple(view for view in released.windowed_views if view is not spend)
    applied = dataclasses.replace(released, windowed_views=(*others, fresh))
    with closing(ControlPlane.open(Settings(home=tmp_path))) as control:
        _check(control, released, applied)


def _check(control: ControlPlane, released: Manifest, applied: Manifest) -> None:
    assert to_fill(control, applied, ()) == applied  # nothing is released: it is to be deployed first
    control.save_manifest(released, 1)
    control.release(released.hash, 1)
    for view in released.views.values():
        control.deploy(view.name, view.version, released.hash, 0, 1)
    assert to_fill(control, applied, ()) == to_fill(control, applied, ["card_spend"]) == released
    assert to_fill(control, applied, ["card_merchant"]) == applied
    assert to_fill(control, applied, ["nowhere"]) == applied
    control.deploy("card_spend", "changed", applied.hash, 0, 1)
    assert to_fill(control, applied, ()) == applied


def test_a_correction_is_due_until_batch_has_written_what_remains_of_an_erased_time(tmp_path: Path) -> None:
    settings, manifest, erased_at = Settings(home=tmp_path), catalog.manifest(), 100 * DAY + 5 * HOUR
    spend, latest = manifest.views["card_spend"], manifest.views["latest_payment"]
    knew_nothing, knew_it = Pins(0, 0, 0), Pins(0, 1, 0)
    assert not awaits_batch(settings, manifest, spend, knew_nothing, 0)
    ErasureTable(settings, manifest.tenant).record(Erasure("card_id", 1, erased_at), erased_at, lambda: 1)
    assert awaits_batch(settings, manifest, spend, knew_nothing, 200 * DAY)
    # Its tile of a day is final ten minutes after the day.
    assert awaits_batch(settings, manifest, spend, knew_it, 101 * DAY)
    assert not awaits_batch(settings, manifest, spend, knew_it, 101 * DAY + HOUR)
    assert awaits_batch(settings, manifest, latest, knew_it, 200 * DAY)
