"""`python -m coeval_pipelines.demo`: the main job end to end; its exit code is the parity result."""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from coeval.cli.get import print_result
from coeval.client import connect, open_redis
from coeval.errors import CheckFailedError, CoevalError
from coeval.logs import configure_logging
from coeval.online.writer import OnlineWriter
from coeval.settings import Settings, load_settings
from coeval.spec.manifest import Manifest
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.coordination.deploy import deploy
from coeval_pipelines.coordination.fill import fill, unready
from coeval_pipelines.coordination.handoff import is_streamed
from coeval_pipelines.coordination.stagers import stage_in_session
from coeval_pipelines.demo import data
from coeval_pipelines.demo.console import Report, bar, clock
from coeval_pipelines.demo.replay import messages, produce
from coeval_pipelines.local import stack

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coeval.online.result import FeatureResult
    from coeval_pipelines.local.state import StackStatus
    from coeval_pipelines.streaming.progress import Progress

SERVICE = "coupon_propensity"
HOUSEHOLDS = 3
CATCH_UP_SECONDS = 600


def main() -> None:
    """Run the demo and exit with 0 where parity passed, 1 where it did not, 2 or 3 where it could not be made."""
    settings = load_settings()
    configure_logging(settings.log_level)
    started = time.monotonic()
    report = Report(settings.home / "demo" / "summary.json")
    try:
        passed = run(settings, report)
    except CoevalError as error:
        print(f"\nStep {report.step} failed: {error.code}: {error}", file=sys.stderr)
        print("What was done is kept: make demo goes on from here.", file=sys.stderr)
        sys.exit(error.exit_code)
    report.document["seconds"] = round(time.monotonic() - started, 1)
    report.save()
    print(f"\nDone in {clock(time.monotonic() - started)}.  Summary  {report.path}")
    print(f"Try      .venv/bin/coeval get {SERVICE} household_id=718 store_id=367 basket_amount=25.00")
    print("Stop     make down")
    sys.exit(0 if passed else 1)


@dataclass(frozen=True, slots=True)
class Job:
    """What every step works with."""

    settings: Settings
    manifest: Manifest
    control: ControlPlane
    retail: data.Retail
    history: dict[str, int]
    """Events before the replay, by source."""
    anchor: data.Anchor
    report: Report


def run(settings: Settings, report: Report) -> bool:
    """The steps in order; returns whether parity passed."""
    from coeval_pipelines.offline.session import spark_session

    anchor = _anchor(settings)
    with report.timed("local stack") as said:
        state = stack.up(settings, progress=_Changes())
        said += [f"{item.name} :{item.address.rsplit(':', 1)[-1]}" for item in state.components if item.address]
    with report.timed("catalog") as said:
        manifest = _apply(settings)
        views = len(manifest.views) + len(manifest.derived_views)
        said.append(f"feast apply: {len(manifest.entities)} entities, {views} views, {len(manifest.services)} service")
        said.append(f"manifest {manifest.hash[:12]}")
    with closing(ControlPlane.open(settings)) as control:
        retail = data.load_retail(anchor)
        history = data.write_history(retail, anchor, settings.home / "demo")
        job = Job(settings, manifest, control, retail, history, anchor, report)
        with report.timed("replay") as said:
            said.append(_replay(job))
        with spark_session(settings) as spark:
            with report.timed("training set") as said:
                said += [_ingest(job, spark), _fill(job, spark), _train(job)]
            with report.timed("get_features") as said:
                result, milliseconds = _serve(job)
                said.append(f"{len(result)} households, {len(result.names)} features, {milliseconds:.1f} ms")
            print_result(result)
            with report.timed("parity") as said:
                verdict = _parity(job, spark)
                said.append(verdict.headline)
    verdict.print()
    print(f"Report   {verdict.report}")
    return bool(verdict.passed)


def _anchor(settings: Settings) -> data.Anchor:
    """The anchor of an interrupted or repeated run of today; another day begins with a fresh state."""
    path = settings.home / "demo" / "anchor.json"
    anchor = data.Anchor.load(path)
    if anchor is not None and anchor.day == datetime.now(UTC).date():
        return anchor
    if anchor is not None:
        print(f"The state in {settings.home} is of {anchor.day}: starting afresh.", file=sys.stderr)
        stack.down(settings)
        for name in ("demo", "local", "delta", "spark", "reports"):
            shutil.rmtree(settings.home / name, ignore_errors=True)
        for name in ("control.db", "manifest.json", "registry.db"):
            (settings.home / name).unlink(missing_ok=True)
    anchor = data.make_anchor(time.time_ns() // 1000)
    anchor.save(path)
    return anchor


def _apply(settings: Settings) -> Manifest:
    from coeval_pipelines.catalog.apply import apply, find_repository

    return apply(settings, find_repository(None), _say).manifest


def _replay(job: Job) -> str:
    """Deploy the stream, send what the topics do not hold yet, and wait until all of it is online."""
    from coeval_pipelines.streaming.progress import await_caught_up

    _say("deploying the stream: one Flink job per topic")
    deploy(job.settings, job.manifest, job.control, job.anchor.replay_from)
    records = messages(job.retail, job.anchor, job.settings.kafka.partitions)
    start = time.monotonic()
    with bar("events to Kafka", len(records)) as advance:
        produced = produce(job.settings, records, advance)
    sent = time.monotonic()
    with bar("covered online", len(records)) as advance:
        reached = 0

        def follow(state: Progress) -> None:
            nonlocal reached
            advance(state.covered - reached)
            reached = state.covered

        await_caught_up(job.settings, job.manifest, job.control, CATCH_UP_SECONDS, follow)
    covered = time.monotonic()
    job.report.document["events"] = {"produced": dict(produced.by_topic), "sent_in_this_run": produced.sent_now}
    job.report.document["freshness"] = {"seconds_from_last_event_sent_to_all_online": round(covered - sent, 2)}
    return f"{len(records):,} events  {len(records) / (covered - start) / 1000:.1f}k/s from Kafka to online"


def _ingest(job: Job, spark: SparkSession) -> str:
    """Load history and topics into the event log, and account for every record that was produced.

    Raises:
        CheckFailedError: a record of a topic is neither good nor rejected nor a duplicate.
    """
    from coeval_pipelines.offline.event_log import ingest_history, ingest_topic, totals

    events = job.report.document["events"]
    good = 0
    for source in job.manifest.event_sources:
        _say(f"log: history of {source.name}")
        ingest_history(spark, job.settings, job.manifest, source)
        _say(f"log: topic {source.topic}")
        ingest_topic(spark, job.settings, job.manifest, source)
        found = totals(job.settings, job.manifest, source)
        produced, rejected = events["produced"][source.topic], sum(found.rejected.values())
        from_topic = produced - rejected - found.duplicates
        history = found.good - from_topic
        good += found.good
        events[source.topic] = {
            "produced": produced,
            "good": from_topic,
            "late_by_tile": dict(found.late),
            "rejected": dict(found.rejected),
            "duplicates": found.duplicates,
            "history": history,
        }
        if history != job.history[source.name]:
            raise CheckFailedError(
                f"{source.name}: {found.good} good events are not {job.history[source.name]} of history and"
                f" {from_topic} of the topic: {produced} produced, {rejected} rejected, {found.duplicates} duplicates.",
                "See coeval log status.",
            )
    return f"log {good:,} events"


def _fill(job: Job, spark: SparkSession) -> str:
    """Load by batch what the stream does not hold, where readers cannot believe a view yet."""
    views = unready(job.settings, job.manifest)
    written: dict[str, int] = {}
    if views:
        stage = stage_in_session(spark, job.settings, job.manifest, job.control, _say)
        written = fill(job.settings, job.manifest, job.control, views, stage)
    job.report.document["written"] = {"by_batch": written, "by_stream": _streamed(job)}
    return f"batch {sum(written.values()):,} tiles and rows"


def _streamed(job: Job) -> dict[str, int]:
    """Updates that the online writer has taken from the changelogs, by view."""
    with closing(open_redis(job.settings)) as client:
        writer = OnlineWriter(client, job.manifest.tenant)
        views = [view for view in job.manifest.views.values() if is_streamed(view)]
        return {view.name: sum(offset or 0 for offset in writer.offsets(view).values()) for view in views}


def _train(job: Job) -> str:
    """Join the spine with what was known at each of its instants."""
    from coeval_pipelines.offline.asked import Asked
    from coeval_pipelines.offline.training.build import Wanted, build

    path = job.settings.home.resolve() / "demo" / "spine.parquet"
    data.write_parquet(path, data.spine_table(job.retail, job.anchor))
    wanted = Wanted(Asked.of(job.manifest, SERVICE), str(path))
    built = build(job.settings, wanted, SERVICE, lambda text: _say(f"training set: {text}"))
    job.report.document["training_set"] = {
        "path": str(built.path),
        "spine_rows_in": built.lineage["parts"][0]["spine"]["rows"],
        "rows_out": built.rows,
        "lineage": dict(built.lineage),
        "report": dict(built.report),
    }
    features = len(built.lineage["columns"]["features"])
    return f"{built.rows:,} rows x {features} features, {built.report['future_leaks']} from the future"


def _serve(job: Job) -> tuple[FeatureResult, float]:
    """The features of the households that bought last, and the milliseconds of a warm call."""
    latest = job.retail.purchases.drop_duplicates("household_id", keep="last").tail(HOUSEHOLDS)
    entities = {name: latest[name].tolist() for name in ("household_id", "store_id")}
    request = {"basket_amount": [Decimal(f"{value:.2f}") for value in latest["sales_value"]]}
    with closing(connect(job.settings)) as store:
        store.get_features(SERVICE, entities, request=request)
        start = time.perf_counter()
        result = store.get_features(SERVICE, entities, request=request)
        return result, (time.perf_counter() - start) * 1000


def _parity(job: Job, spark: SparkSession) -> Any:
    """Compare online with offline through the entry point: parity is a room above this one."""
    (entry,) = entry_points(group="coeval.engines", name="parity")
    page = job.settings.home / "demo" / "parity.html"
    verdict = entry.load()(job.settings, job.manifest, spark, page, _say)
    job.report.document["parity"] = {name: item for name, item in verdict.document.items() if name != "mismatches"}
    return verdict


def _say(message: str) -> None:
    print(f"      {message}", file=sys.stderr, flush=True)


class _Changes:
    """Says what changed in the stack while it comes up."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def __call__(self, state: StackStatus) -> None:
        for item in state.components:
            if self._seen.get(item.name) != item.health:
                self._seen[item.name] = item.health
                _say(f"{item.name} {item.health}")


if __name__ == "__main__":
    main()
