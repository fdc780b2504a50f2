"""A whole world for parity without Spark, Kafka and Flink: a Delta log, a real Redis that the real writer fills, a
control plane. What the stream and a batch load would have written is computed by the oracle."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import redis

from coeval.aggregations.tiles import Granularity, tile_plan
from coeval.client import FeatureStore
from coeval.online.layout import Update, encode_tiles
from coeval.online.writer import Fence, OnlineWriter
from coeval.reference.oracle import key_of, seen_by
from coeval.serving_log import ServingLog, Sink
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, RowView, Sla, Tolerance, View, WindowedView
from coeval.spec.records import Event, Ingested, Record, ingest
from coeval.spec.time import DAY
from coeval.spec.types import micros
from coeval_parity.result import ParityResult
from coeval_parity.run import run_parity
from coeval_parity.served import _append, _row, served_path
from coeval_pipelines.control import Certificate, ControlPlane
from coeval_pipelines.control.coverage import Coverage, CoverageBook
from coeval_pipelines.offline.tables import table_path
from coeval_pipelines.streaming.names import changelog_topic
from tests.support import catalog
from tests.support.delta_log import log_table, write_log
from tests.support.events import records
from tests.support.loads import begin_load
from tests.support.online import _tiles, updates, write

START = micros(datetime(2026, 3, 20, tzinfo=UTC))
SPAN = 35 * DAY
Q = START + SPAN
SINCE = START + 20 * DAY
CUT = SINCE + 2 * DAY
REACHED = 10
"""The changelog offset of every bucket that the store has written."""
PATIENT = Sla(tolerated=(Tolerance("late", 1.0),), freshness=40 * DAY)


def patient(base: Manifest, tenant: str) -> Manifest:
    """A manifest under its own tenant, whose views are content with generated events: a third come late."""
    return replace(
        base,
        tenant=tenant,
        windowed_views=tuple(replace(view, sla=PATIENT) for view in base.windowed_views),
        row_views=tuple(replace(view, sla=PATIENT) for view in base.row_views),
    )


@dataclass
class World:
    """What was logged, and the store that was filled from it."""

    settings: Settings
    client: redis.Redis
    manifest: Manifest
    logged: Ingested
    q: int = Q
    certified: dict[int, int] = field(default_factory=lambda: {0: 10**9, 1: 10**9})

    @property
    def source(self) -> EventSource:
        """The only source."""
        return self.manifest.event_sources[0]

    @property
    def events(self) -> Sequence[Event]:
        """The good events of the log."""
        return self.logged.good

    @property
    def visible(self) -> list[Event]:
        """Those that were available at the read."""
        return [event for event in self.events if event.available_at < self.q]

    @contextmanager
    def control(self) -> Iterator[ControlPlane]:
        """The control plane."""
        with closing(ControlPlane.open(self.settings)) as control:
            yield control

    def log(self, events: Sequence[Event] | None = None) -> None:
        """Write the log anew."""
        path = table_path(self.settings, self.manifest, "log", self.source.name)
        write_log(path, self.source, self.events if events is None else events)
        self._table("duplicates", log_table(self.source, self.logged.duplicates))
        self._table("rejects", _rejects(self.logged))

    def _table(self, kind: str, table: object) -> None:
        from deltalake import write_deltalake

        path = table_path(self.settings, self.manifest, kind, self.source.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_deltalake(str(path), table, mode="overwrite")  # type: ignore[arg-type]

    def fill(
        self, streamed: Sequence[Event], loaded: Sequence[Event] | None = None, views: Sequence[View] = ()
    ) -> None:
        """Write what a batch load at CUT and the stream since then make of these events; `views` compute it."""
        with self.control() as control:
            for view in self.manifest.views.values():
                built = next((item for item in views if item.name == view.name), view)
                self.fill_view(control, view, built, streamed, streamed if loaded is None else loaded)
            self.certify(control)

    def fill_view(
        self, control: ControlPlane, view: View, built: View, streamed: Sequence[Event], loaded: Sequence[Event]
    ) -> None:
        """Deploy, load, stream and mark ready one view, whose values another version computes."""
        writer = OnlineWriter(self.client, self.manifest.tenant)
        control.deploy(view.name, view.version, self.manifest.hash, SINCE, SINCE)
        run = begin_load(control, view.name, view.version, CUT)
        early = [event for event in loaded if event.available_at < CUT]
        write(writer, view, loads(built, self.manifest, seen_by(built, early), CUT, run))
        self.stream(view, built, streamed)
        control.finish_load(run, len(early), CUT + 1)
        for bucket in range(view.partitions):
            writer.apply(view, bucket, [], Fence(None, REACHED))
        assert writer.mark_ready(view, writer.incarnation(view), "test")

    def stream(self, view: View, built: View, events: Sequence[Event]) -> None:
        """Write what the stream makes of some events of a view, whose values another version computes."""
        writer = OnlineWriter(self.client, self.manifest.tenant)
        write(writer, view, updates(built, self.manifest, seen_by(built, events), SINCE))

    def certify(self, control: ControlPlane, at: int = CUT, offsets: dict[int, int] | None = None) -> None:
        """Record a certificate that the store has reached, and that it has."""
        ends = {
            changelog_topic(self.manifest, view): dict.fromkeys(range(view.partitions), REACHED)
            for view in self.manifest.views.values()
        }
        control.record_certificate(Certificate(self.source.name, 1, offsets or self.certified, ends, at))
        for topic in ends:
            CoverageBook(control).record(Coverage(topic, offsets or self.certified, at))

    def parity(self, *views: str, q: int | None = None) -> ParityResult:
        """State parity, in this process."""
        at = self.q if q is None else q
        return run_parity(self.settings, self.manifest, None, at, views or None, ingest=False, wanted="local")


def new_world(server: Settings, home: object, tenant: str, seed: int, count: int = 600, q: int = Q) -> World:
    """A log of generated payments, written; the store is empty but for other tenants."""
    settings = server.model_copy(update={"home": home})
    manifest = patient(catalog.manifest(), tenant)
    client = redis.Redis.from_url(settings.redis.url)
    logged = ingest(manifest.event_sources[0], records(seed, count, START, SPAN))
    world = World(settings, client, manifest, logged, q)
    world.log()
    return world


def loads(view: View, manifest: Manifest, events: Sequence[Event], cut: int, epoch: int) -> list[Update]:
    """What a batch load writes of events that were available before its cut: final tiles, late events and all."""
    if isinstance(view, RowView):
        return updates(view, manifest, events, epoch=epoch)
    source = manifest.event_source(view)
    plan = tile_plan(view, source)
    found: list[Update] = []
    for granularity in plan.granularities:
        tiles = final_tiles(view, source, granularity, events, cut)
        found += encode_tiles(plan, granularity.hop, _tiles(view, granularity, tiles), epoch) if tiles else []
    return found


def final_tiles(
    view: WindowedView, source: EventSource, granularity: Granularity, events: Sequence[Event], cut: int
) -> dict[tuple[tuple[object, ...], int], list[Event]]:
    """The events of each tile that is final at a cut."""
    tiles: dict[tuple[tuple[object, ...], int], list[Event]] = {}
    for event in events:
        tile = event.event_ts // granularity.hop
        if tile < granularity.final_before(cut, source.allowed_lateness):
            tiles.setdefault((key_of(view, event), tile), []).append(event)
    return tiles


def _rejects(logged: Ingested) -> object:
    import pyarrow as pa

    rows = [record for record, _ in logged.rejected]
    return pa.table(
        {
            "reason": pa.array([str(reason) for _, reason in logged.rejected], pa.string()),
            "value": pa.array([record.value for record in rows], pa.binary()),
            "available_at": pa.array([record.available_at for record in rows], pa.int64()),
            "topic": pa.array(["payments"] * len(rows), pa.string()),
            "partition": pa.array([record.partition for record in rows], pa.int32()),
            "offset": pa.array([record.offset for record in rows], pa.int64()),
            "batch": pa.array([1] * len(rows), pa.int64()),
        }
    )


class Kept:
    """A sink of the serving log that keeps the rows."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, bytes, bytes]] = []

    def write(self, rows: Sequence[tuple[str, bytes, bytes]]) -> None:
        """Keep them."""
        self.rows += rows

    def close(self) -> None:
        """Nothing to let go of."""


def serve(
    world: World,
    sink: Sink,
    entities: dict[str, list[object]],
    q: int,
    names: Sequence[str] = (),
    manifest: Manifest | None = None,
    clock: int = 0,
) -> None:
    """Read the store as a feature server at q, whose clock is that far off, and log everything that was served.

    `manifest` is what that server reads by, whatever its answers say; `names` are the features (default: all).
    """
    client = redis.Redis.from_url(world.settings.redis.url)
    reads = manifest or world.manifest
    features = list(names) or [f"{view.name}__{item.name}" for view in reads.views.values() for item in view.features]
    with FeatureStore(reads, client, lambda: q + clock) as store:
        plan = store.plan(features)
        result = store.get_features(features, entities)
        result.manifest_hash = world.manifest.hash
        log = ServingLog(lambda: sink, 1.0, lambda outcome, rows: None)
        log.offer(world.manifest.tenant, plan, result)
        log.close()


def keep_served(world: World, kept: Kept) -> None:
    """Put what was logged into the table of the serving log, as an ingest from the topic would."""
    found = [_row("served", Record(value, 0, 0, offset)) for offset, (_, _, value) in enumerate(kept.rows)]
    path = served_path(world.settings, world.manifest.tenant)
    if path.exists():
        shutil.rmtree(path)
    _append(path, [row for row in found if row])
