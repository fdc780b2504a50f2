"""`python -m coeval_pipelines.demo`: the main job end to end; its exit code is the parity result."""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import entry_points
from typing import Any

from coeval.cli.get import print_result
from coeval.client import connect
from coeval.errors import CoevalError
from coeval.logs import configure_logging
from coeval.settings import Settings, load_settings
from coeval.spec.manifest import Manifest
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.coordination.deploy import deploy
from coeval_pipelines.coordination.fill import fill, load_in_session
from coeval_pipelines.demo import data
from coeval_pipelines.demo.console import Report, bar, clock
from coeval_pipelines.demo.replay import messages, produce
from coeval_pipelines.local import stack

SERVICE = "coupon_propensity"
HOUSEHOLDS = 3


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


def run(settings: Settings, report: Report) -> bool:
    """The steps in order; returns whether parity passed."""
    anchor = _anchor(settings)
    with report.timed("local stack") as said:
        state = stack.up(settings)
        said += [f"{item.name} :{item.address.rsplit(':', 1)[-1]}" for item in state.components if item.address]
    retail = data.load_retail(anchor)
    with report.timed("catalog") as said:
        manifest = _apply(settings)
        said.append(
            f"feast apply: {len(manifest.entities)} entities, {len(manifest.views) + len(manifest.derived_views)} views, "
            f"{len(manifest.services)} service   manifest {manifest.hash[:12]}"
        )
    with closing(ControlPlane.open(settings)) as control:
        _replay(settings, manifest, control, retail, anchor, report)
        parity = _offline_steps(settings, manifest, control, retail, anchor, report)
    return parity


def _anchor(settings: Settings) -> data.Anchor:
    """The anchor of an interrupted or repeated run of today; another day begins with a fresh state."""
    path = settings.home / "demo" / "anchor.json"
    anchor = data.Anchor.load(path)
    if anchor is not None and anchor.day == datetime.now(UTC).date():
        return anchor
    if anchor is not None:
        print(f"The state in {settings.home} is of {anchor.day}: starting afresh.", file=sys.stderr)
        stack.down(settings)
        shutil.rmtree(settings.home)
    anchor = data.make_anchor(time.time_ns() // 1000)
    anchor.save(path)
    return anchor


def _apply(settings: Settings) -> Manifest:
    from coeval_pipelines.catalog.apply import apply, find_repository

    return apply(settings, find_repository(None), lambda line: print(f"      {line}", file=sys.stderr)).manifest


def _replay(
    settings: Settings,
    manifest: Manifest,
    control: ControlPlane,
    retail: data.Retail,
    anchor: data.Anchor,
    report: Report,
) -> None:
    from coeval_pipelines.streaming.progress import await_caught_up

    with report.timed("replay") as said:
        data.write_history(retail, anchor, settings.home / "demo")
        deploy(settings, manifest, control, anchor.replay_from)
        records = messages(retail, anchor, settings.kafka.partitions)
        with bar("events to Kafka", len(records)) as progress:
            task = progress.task_ids[0]
            start = time.monotonic()
            produced = produce(settings, records, lambda count: progress.advance(task, count))
        sent = time.monotonic()
        with bar("covered online", len(records)) as progress:
            task = progress.task_ids[0]
            await_caught_up(
                settings, manifest, control, 600, lambda state: progress.update(task, completed=state.covered)
            )
        total = time.monotonic() - start
        report.document["events"] = {"produced": dict(produced.by_topic), "sent_now": produced.sent_now}
        report.document["freshness"] = {"seconds_from_last_event_sent_to_all_online": round(time.monotonic() - sent, 2)}
        said.append(f"{len(records):,} events   {len(records) / total / 1000:.1f}k/s to online")


def _offline_steps(
    settings: Settings,
    manifest: Manifest,
    control: ControlPlane,
    retail: data.Retail,
    anchor: data.Anchor,
    report: Report,
) -> bool:
    from coeval_pipelines.offline.session import spark_session

    with spark_session(settings) as spark:
        with report.timed("training set") as said:
            said.append(_ingest(spark, settings, manifest, report))
            _fill(spark, settings, manifest, control, report)
            said.append(_train(spark, settings, manifest, retail, anchor, report))
        with report.timed("get_features") as said:
            said.append(_serve(settings, retail))
        with report.timed("parity") as said:
            passed, line = _parity(spark, settings, manifest, report)
            said.append(line)
    return passed


def _ingest(spark: Any, settings: Settings, manifest: Manifest, report: Report) -> str:
    from coeval_pipelines.offline.event_log import ingest_history, ingest_topic, totals

    counts = {}
    for source in manifest.event_sources:
        history = ingest_history(spark, settings, manifest, source)
        ingest_topic(spark, settings, manifest, source)
        found = totals(settings, manifest, source)
        counts[source.name] = {**found.to_dict(), "history": history.good}
    report.document["log"] = counts
    return ""


def _fill(spark: Any, settings: Settings, manifest: Manifest, control: ControlPlane, report: Report) -> None:
    written: dict[str, int] = {}
    load = load_in_session(spark, settings, manifest, control, written)
    fill(settings, manifest, control, manifest.views.values(), load)
    report.document["batch_written"] = written


def _train(
    spark: Any, settings: Settings, manifest: Manifest, retail: data.Retail, anchor: data.Anchor, report: Report
) -> str:
    from coeval_pipelines.offline.training_set import build_training_set

    path = settings.home / "demo" / "spine.parquet"
    data.write_parquet(path, data.spine_table(retail, anchor))
    built = build_training_set(spark, settings, manifest, SERVICE, str(path), SERVICE)
    report.document["training_set"] = {
        "path": str(built.path),
        "rows_in": built.rows_in,
        "rows_out": built.rows_out,
        "lineage": dict(built.lineage),
    }
    features = sum(len(item.features) for item in (*_service(manifest).views, *_service(manifest).derived))
    return f"{built.rows_out:,} rows x {features} features"


def _service(manifest: Manifest) -> Any:
    return next(item for item in manifest.services if item.name == SERVICE)


def _serve(settings: Settings, retail: data.Retail) -> str:
    latest = retail.purchases.drop_duplicates("household_id", keep="last").tail(HOUSEHOLDS)
    with closing(connect(settings)) as store:
        entities = {name: latest[name].tolist() for name in ("household_id", "store_id")}
        request = {"basket_amount": [round(value, 2) for value in latest["sales_value"]]}
        from decimal import Decimal

        decimals = {"basket_amount": [Decimal(str(value)) for value in request["basket_amount"]]}
        store.get_features(SERVICE, entities, request=decimals)
        start = time.perf_counter()
        result = store.get_features(SERVICE, entities, request=decimals)
        elapsed = time.perf_counter() - start
    print_result(result)
    return f"{len(result)} households, {len(result.names)} features, {elapsed * 1000:.1f} ms"


def _parity(spark: Any, settings: Settings, manifest: Manifest, report: Report) -> tuple[bool, str]:
    (entry,) = entry_points(group="coeval.engines", name="parity")
    result = entry.load()(settings, manifest, spark=spark)
    report.document["parity"] = result.summary()
    return result.passed, result.headline


if __name__ == "__main__":
    main()
