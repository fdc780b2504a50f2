"""Whether a load would change anything: late events in the log, other files, rows that became visible. It knows Spark.

Pure but for one question to the log, which is asked only where a stream fills the view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coeval.aggregations.tiles import Granularity, tile_plan
from coeval.settings import Settings
from coeval.spec.erasure import concerning
from coeval.spec.manifest import Manifest
from coeval.spec.model import BatchSource, EventSource, View, WindowedView
from coeval_pipelines.control.loads import Pins
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.offline.seen import seen_by
from coeval_pipelines.offline.staging import contents
from coeval_pipelines.offline.tables import read_whole_log

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


CHANGED, TURNED = "the files changed", "rows became visible"
"""Why a view of files is to be loaded again."""


def awaits_batch(settings: Settings, manifest: Manifest, view: View, pins: Pins, last_cut: int) -> bool:
    """Whether something was erased that a load did not know, or of which it could not write all that remains.

    That is a tile that an erasure falls into and that was not final at the load's cut; and rows of the erased time that
    become available after it, which the stream may not write.
    """
    source, table = manifest.sources[view.source], ErasureTable(settings, manifest.tenant)
    if concerning(source, table.erasures()[pins.erasures :]):
        return True
    known = concerning(source, table.erasures(pins.erasures))
    if not isinstance(view, WindowedView):
        return bool(known) and isinstance(source, EventSource)
    granularities = tile_plan(view, manifest.event_source(view)).granularities
    lateness = manifest.event_source(view).allowed_lateness
    loaded = min(item.final_before(last_cut, lateness) * item.hop for item in granularities)
    return any(item.at >= loaded for item in known)


def files_changed(settings: Settings, source: BatchSource, pins: Pins, now: int) -> str:
    """Why a view of files is to be loaded again; '' where it is not."""
    if not pins.files or pins.files != contents(settings, source):
        return CHANGED
    if pins.turns_at is not None and pins.turns_at <= now:
        return TURNED
    return ""


def has_late(
    spark: SparkSession,
    settings: Settings,
    manifest: Manifest,
    view: WindowedView,
    pins: Pins,
    last_cut: int,
    cut: int,
) -> bool:
    """Whether a load at `cut` would count events that neither the last load nor the stream has in their tiles.

    Those came late for their tile, or reached the log after the last load had read it though they were available before
    its cut (`last_cut`; both microseconds UTC).
    """
    source = manifest.event_source(view)
    log = read_whole_log(spark, settings, manifest, source)
    fresh = log.where(f"(batch > {pins.ingested} OR available_at >= {last_cut}) AND available_at < {cut}")
    missed = " OR ".join(
        _missed(granularity, source, last_cut, cut) for granularity in tile_plan(view, source).granularities
    )
    return not seen_by(view, source, fresh).where(missed).isEmpty()


def _missed(granularity: Granularity, source: EventSource, last_cut: int, cut: int) -> str:
    hop, lateness = granularity.hop, source.allowed_lateness
    first = (cut // hop - granularity.slots + 1) * hop
    final = granularity.final_before(cut, lateness) * hop
    loaded = granularity.final_before(last_cut, lateness) * hop
    is_late = f"available_at >= event_ts - PMOD(event_ts, {hop}L) + {hop + lateness}"
    return f"(event_ts >= {first} AND event_ts < {final} AND ({is_late} OR event_ts < {loaded}))"
