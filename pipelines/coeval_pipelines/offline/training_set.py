"""Point-in-time training sets: a spine, the features of a service, the lineage of both. It knows Spark."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coeval.errors import EngineError, UsageError
from coeval.settings import Settings
from coeval.spec.erasure import concerning
from coeval.spec.manifest import Manifest
from coeval.spec.model import BatchSource, EventSource, WindowedView
from coeval.spec.time import duration
from coeval_pipelines.erasures import ErasureTable, Recorded
from coeval_pipelines.offline.asked import Asked, Inputs
from coeval_pipelines.offline.fingerprint import fingerprint
from coeval_pipelines.offline.service_features import service_features
from coeval_pipelines.offline.sorting import late_conditions
from coeval_pipelines.offline.spine import StagedSpine, read_spine, staged
from coeval_pipelines.offline.spine_rules import check_names
from coeval_pipelines.offline.tables import latest_version, read_batch_source, read_log, table_path

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

KNOWLEDGE = ("available", "final")


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """A built training set: where it is, rows in and out (always equal), and what it was made of."""

    path: Path
    rows_in: int
    rows_out: int
    lineage: Mapping[str, Any]


def build_training_set(
    spark: SparkSession,
    settings: Settings,
    manifest: Manifest,
    service: str,
    spine: object,
    name: str,
    knowledge: str = "available",
) -> TrainingSet:
    """Write the training set of a service as the Delta table `name`, replacing an earlier one of that name.

    One row per spine row, all its columns kept, then view__feature columns in the service's order. `knowledge="final"`
    uses all that is known today, whenever it became available. The lineage is in the commit and in a file beside it.

    Raises:
        UsageError: the spine lacks something, or `name` is not a file name.
        UnknownFeatureError: no such service.
    """
    asked = Asked.of(manifest, service)
    _check(name, knowledge)
    path = table_path(settings, manifest, "training_sets", name)
    with _spine(spark, settings, asked, spine) as rows:
        erasures = ErasureTable(settings, manifest.tenant)
        logs = {source: _log_version(settings, manifest, source) for source in asked.sources}
        inputs = Inputs(logs, erasures.version)
        frame = service_features(spark, settings, asked, rows, inputs, knowledge).persist()
        try:
            content, rows_out = fingerprint(frame)
            if rows_out != rows.rows:
                raise EngineError(f"{rows.rows} spine rows became {rows_out}.", "This is a defect: please report it.")
            lineage = {
                "name": name,
                "service": service,
                "knowledge": knowledge,
                "manifest": manifest.hash,
                "sources": _inputs(spark, settings, manifest, inputs.logs),
                "erasures": inputs.erasures,
                "erased": _erased_since(path, manifest, asked.sources, erasures.entries(inputs.erasures)),
                "spine": {"rows": rows.rows, "fingerprint": fingerprint(rows.frame.select(*rows.columns))[0]},
                "late_share": _late_shares(spark, settings, asked, rows, inputs),
                "engines": _engines(),
                "rows": rows_out,
                "content_hash": content,
                "built_at": time.time_ns() // 1000,
            }
            _write(frame, path, lineage)
            return TrainingSet(path, rows.rows, rows_out, lineage)
        finally:
            frame.unpersist()


def _check(name: str, knowledge: str) -> None:
    if not name or name.startswith((".", "_")) or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise UsageError(f"{name!r} cannot name a training set.", "Use letters, digits, '-', '_' and '.'.")
    if knowledge not in KNOWLEDGE:
        raise UsageError(f"knowledge cannot be {knowledge!r}.", f"Choose one of: {', '.join(KNOWLEDGE)}.")


def _spine(spark: SparkSession, settings: Settings, asked: Asked, spine: object) -> AbstractContextManager[StagedSpine]:
    """The staged spine of a service."""
    frame = read_spine(spark, spine)
    check_names(frame.columns, asked)
    return staged(spark, settings, frame, asked.views, asked.request)


def _log_version(settings: Settings, manifest: Manifest, source: str) -> int | None:
    if isinstance(manifest.sources[source], BatchSource):
        return None
    return latest_version(table_path(settings, manifest, "log", source))


def _inputs(
    spark: SparkSession, settings: Settings, manifest: Manifest, versions: Mapping[str, int | None]
) -> dict[str, dict[str, Any]]:
    """What was read of each source: the version of its log, or the content hash of its files."""
    found: dict[str, dict[str, Any]] = {}
    for name, number in versions.items():
        source = manifest.sources[name]
        if isinstance(source, EventSource):
            found[name] = {"log": str(table_path(settings, manifest, "log", name)), "version": number}
        else:
            content, rows = fingerprint(read_batch_source(spark, settings, source))
            found[name] = {"files": source.path, "rows": rows, "content_hash": content}
    return found


def _late_shares(
    spark: SparkSession, settings: Settings, asked: Asked, spine: StagedSpine, inputs: Inputs
) -> dict[str, float]:
    """Per windowed feature, the share of the events before the spine's end that came after their tile was final."""
    shares: dict[str, dict[str, float]] = {}
    result: dict[str, float] = {}
    for used in asked.service.views:
        view = asked.manifest.views[used.view]
        if not isinstance(view, WindowedView):
            continue
        if view.source not in shares:
            shares[view.source] = _source_late_shares(spark, settings, asked.manifest, view, spine, inputs)
        hops = {aggregate.feature: duration(aggregate.hop) for aggregate in view.aggregates}
        result |= {f"{view.name}__{name}": shares[view.source][hops[name]] for name in used.features}
    return result


def _source_late_shares(
    spark: SparkSession,
    settings: Settings,
    manifest: Manifest,
    view: WindowedView,
    spine: StagedSpine,
    inputs: Inputs,
) -> dict[str, float]:
    source = manifest.event_source(view)
    conditions = late_conditions(manifest, source)
    log = read_log(spark, settings, manifest, source, None, inputs.logs[source.name], inputs.erasures)
    log = log.where(f"event_ts < {spine.latest}")
    found = log.selectExpr("COUNT(*)", *(f"COUNT_IF({condition})" for condition in conditions.values())).first()
    assert found is not None
    return {name: late / found[0] if found[0] else 0.0 for name, late in zip(conditions, found[1:], strict=True)}


def _erased_since(path: Path, manifest: Manifest, sources: Iterable[str], entries: Sequence[Recorded]) -> bool:
    """Whether the training set of that name was built before, and events that it may hold were erased since."""
    lineage = _lineage_path(path)
    if not lineage.exists():
        return False
    known = json.loads(lineage.read_text()).get("erasures", 0)
    since = [entry.erasure for entry in entries if entry.number > known]
    return any(concerning(manifest.sources[name], since) for name in sources)


def _lineage_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lineage.json")


def _engines() -> dict[str, str]:
    packages = ("coeval", "pyspark", "delta-spark", "pyarrow", "numpy")
    return {"python": sys.version.split()[0], **{name: _version(name) for name in packages}}


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError

    try:
        return version(package)
    except PackageNotFoundError:
        return "source tree"


def _write(frame: DataFrame, path: Path, lineage: Mapping[str, Any]) -> None:
    document = json.dumps(lineage, sort_keys=True, indent=2)
    writer = frame.write.format("delta").mode("overwrite").option("overwriteSchema", "true")
    writer.option("userMetadata", json.dumps(lineage, sort_keys=True)).save(str(path))
    partial = path.with_name(f"{path.name}.lineage.json.partial")
    partial.write_text(document + "\n")
    partial.replace(_lineage_path(path))
