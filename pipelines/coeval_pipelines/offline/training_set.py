"""Point-in-time training sets: a spine, the features of a service, the lineage of both. It knows Spark."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from coeval.derived import run_derived
from coeval.errors import EngineError, UnknownFeatureError, UsageError
from coeval.settings import Settings
from coeval.spec.erasure import concerning
from coeval.spec.manifest import Manifest
from coeval.spec.model import BatchSource, DerivedView, EventSource, FeatureService, Field, WindowedView
from coeval.spec.time import duration
from coeval_pipelines.erasures import ErasureTable, Recorded
from coeval_pipelines.offline.columns import derived_input, derived_output, quoted, sql_type
from coeval_pipelines.offline.fingerprint import fingerprint
from coeval_pipelines.offline.point_in_time import source_events, view_features
from coeval_pipelines.offline.sorting import late_conditions
from coeval_pipelines.offline.spine import ROW, StagedSpine, read_spine, staged
from coeval_pipelines.offline.tables import ddl, latest_version, read_batch_source, read_log, table_path

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
    chosen = _service(manifest, service)
    derived = [next(item for item in manifest.derived_views if item.name == used.view) for used in chosen.derived]
    _check(name, knowledge)
    path = table_path(settings, manifest, "training_sets", name)
    with _spine(spark, settings, manifest, chosen, derived, spine) as asked:
        versions = {used: _log_version(settings, manifest, used) for used in _sources(manifest, chosen, derived)}
        erasures = ErasureTable(settings, manifest.tenant)
        gone = erasures.version
        frame = _features(spark, settings, manifest, chosen, derived, asked, versions, gone, knowledge).persist()
        try:
            content, rows_out = fingerprint(frame)
            if rows_out != asked.rows:
                raise EngineError(f"{asked.rows} spine rows became {rows_out}.", "This is a defect: please report it.")
            lineage = {
                "name": name,
                "service": service,
                "knowledge": knowledge,
                "manifest": manifest.hash,
                "sources": _inputs(spark, settings, manifest, versions),
                "erasures": gone,
                "erased": _erased_since(path, manifest, versions, erasures.entries(gone)),
                "spine": {"rows": asked.rows, "fingerprint": fingerprint(asked.frame.select(*asked.columns))[0]},
                "late_share": _late_shares(spark, settings, manifest, chosen, asked, versions, gone),
                "engines": _engines(),
                "rows": rows_out,
                "content_hash": content,
                "built_at": time.time_ns() // 1000,
            }
            _write(frame, path, lineage)
            return TrainingSet(path, asked.rows, rows_out, lineage)
        finally:
            frame.unpersist()


def _service(manifest: Manifest, name: str) -> FeatureService:
    for service in manifest.services:
        if service.name == name:
            return service
    known = ", ".join(item.name for item in manifest.services)
    raise UnknownFeatureError(f"There is no feature service {name!r}.", f"Known: {known or 'none'}.")


def _check(name: str, knowledge: str) -> None:
    if not name or name.startswith((".", "_")) or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise UsageError(f"{name!r} cannot name a training set.", "Use letters, digits, '-', '_' and '.'.")
    if knowledge not in KNOWLEDGE:
        raise UsageError(f"knowledge cannot be {knowledge!r}.", f"Choose one of: {', '.join(KNOWLEDGE)}.")


def _spine(
    spark: SparkSession,
    settings: Settings,
    manifest: Manifest,
    service: FeatureService,
    derived: Sequence[DerivedView],
    spine: object,
) -> Any:
    """The staged spine of a service."""
    frame = read_spine(spark, spine)
    names = [*_outputs(service), *_needed(service, derived)]
    taken = sorted({name for name in frame.columns if name in names or name.startswith("__")})
    if taken:
        raise UsageError(f"The spine already has columns named {', '.join(taken)}.", "Rename them.")
    views = [manifest.views[name] for name in _view_names(service, derived)]
    return staged(spark, settings, frame, views, [field for view in derived for field in view.request])


def _view_names(service: FeatureService, derived: Iterable[DerivedView]) -> list[str]:
    used = [item.view for item in service.views] + [ref.view for view in derived for ref in view.inputs]
    return list(dict.fromkeys(used))


def _outputs(service: FeatureService) -> list[str]:
    return [f"{used.view}__{name}" for used in (*service.views, *service.derived) for name in used.features]


def _needed(service: FeatureService, derived: Iterable[DerivedView]) -> list[str]:
    """Stored features to compute: the service's own, and the inputs of its derived ones."""
    own = [f"{used.view}__{name}" for used in service.views for name in used.features]
    return list(dict.fromkeys([*own, *(ref.full_name for view in derived for ref in view.inputs)]))


def _sources(manifest: Manifest, service: FeatureService, derived: Iterable[DerivedView]) -> list[str]:
    return sorted({manifest.views[name].source for name in _view_names(service, derived)})


def _log_version(settings: Settings, manifest: Manifest, source: str) -> int | None:
    if isinstance(manifest.sources[source], BatchSource):
        return None
    return latest_version(table_path(settings, manifest, "log", source))


def _features(
    spark: SparkSession,
    settings: Settings,
    manifest: Manifest,
    service: FeatureService,
    derived: Sequence[DerivedView],
    asked: StagedSpine,
    versions: Mapping[str, int | None],
    erased: int,
    knowledge: str,
) -> DataFrame:
    answers = [
        view_features(
            manifest, view, source_events(spark, settings, manifest, view, versions, erased), asked, knowledge
        )
        for view in (manifest.views[name] for name in _view_names(service, derived))
    ]
    wanted = [quoted(name) for name in _needed(service, derived)]
    start = asked.frame.select(ROW, *map(quoted, asked.columns))
    joined = reduce(lambda left, right: left.join(right, ROW), answers, start)
    frame = joined.select(*map(quoted, asked.columns), *wanted)
    for view in derived:
        frame = with_derived(frame, view)
    return frame.select(*map(quoted, asked.columns), *map(quoted, _outputs(service)))


def with_derived(frame: DataFrame, view: DerivedView) -> DataFrame:
    """Add the features of a derived view, computed by the function that also serves them."""
    outputs = {f"{view.name}__{field.name}": field for field in view.features}
    kinds = dict(frame.dtypes) | {name: sql_type(f.type) for name, f in outputs.items()}
    return frame.mapInArrow(_derive(view, outputs), ddl(kinds))


def _derive(
    view: DerivedView, outputs: Mapping[str, Field]
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    inputs = [*(ref.full_name for ref in view.inputs), *(field.name for field in view.request)]

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            computed = run_derived(view, {name: derived_input(batch.column(name)) for name in inputs})
            added = [derived_output(field.type, computed[field.name]) for field in outputs.values()]
            yield pa.RecordBatch.from_arrays([*batch.columns, *added], [*batch.schema.names, *outputs])

    return run


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
    spark: SparkSession,
    settings: Settings,
    manifest: Manifest,
    service: FeatureService,
    asked: StagedSpine,
    versions: Mapping[str, int | None],
    erased: int,
) -> dict[str, float]:
    """Per windowed feature, the share of the events before the spine's end that came after their tile was final."""
    shares: dict[str, dict[str, float]] = {}
    result: dict[str, float] = {}
    for used in service.views:
        view = manifest.views[used.view]
        if not isinstance(view, WindowedView):
            continue
        if view.source not in shares:
            pinned = versions[view.source], erased
            shares[view.source] = _source_late_shares(spark, settings, manifest, view, asked, *pinned)
        hops = {aggregate.feature: duration(aggregate.hop) for aggregate in view.aggregates}
        result |= {f"{view.name}__{name}": shares[view.source][hops[name]] for name in used.features}
    return result


def _source_late_shares(
    spark: SparkSession,
    settings: Settings,
    manifest: Manifest,
    view: WindowedView,
    asked: StagedSpine,
    log_version: int | None,
    erased: int,
) -> dict[str, float]:
    source = manifest.event_source(view)
    conditions = late_conditions(manifest, source)
    log = read_log(spark, settings, manifest, source, None, log_version, erased).where(f"event_ts < {asked.latest}")
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
