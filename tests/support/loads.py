"""Batch loads for tests: one that is only recorded, and one whose values alone matter, without a stream beside."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import View
from coeval_pipelines.control import BatchLoad, ControlPlane
from coeval_pipelines.control.loads import FIRST_FILL, READY, LoadBook
from coeval_pipelines.offline.online_load import write_units
from coeval_pipelines.offline.staging import discard, pin, stage
from coeval_pipelines.offline.throttle import Throttle

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def begin_load(control: ControlPlane, view: str, version: str, cut: int) -> int:
    """Record that a load has begun; returns its number."""
    return LoadBook(control).begin(view, version, "hash", cut, FIRST_FILL, "test", cut).run


def load_view(
    spark: SparkSession,
    settings: Settings,
    manifest: Manifest,
    control: ControlPlane,
    view: View,
    cut: int,
    now: int,
) -> BatchLoad:
    """Write what the log says of a view at `cut` (microseconds UTC), with the rows that are visible `now`."""
    book = LoadBook(control)
    run = book.begin(view.name, view.version, manifest.hash, cut, FIRST_FILL, "test", now)
    book.pin(run.run, pin(settings, manifest, view, now))
    stage(spark, settings, manifest, control, book.get(run.run))
    written = write_units(settings, manifest, book, run, "", Throttle())
    finished = time.time_ns() // 1000
    control.finish_load(run.run, written, finished)
    book.move(run.run, READY, "test", finished)
    discard(settings, run.run)
    return BatchLoad(run.run, view.name, view.version, cut, written, finished, now)
