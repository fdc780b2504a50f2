"""What a part of a training set was made of: versions of logs, files, erasures, spine, labels, engine."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from coeval.settings import Settings
from coeval.spec.erasure import concerning
from coeval.spec.model import BatchSource
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.offline.asked import Asked, Inputs
from coeval_pipelines.offline.choice import Choice
from coeval_pipelines.offline.tables import latest_version, table_path
from coeval_pipelines.offline.training.engines import Engine, T
from coeval_pipelines.offline.training.summary import Summary

_PACKAGES = ("coeval", "numpy", "pyarrow", "deltalake", "pyspark", "delta-spark")


def inputs_now(settings: Settings, asked: Asked) -> Inputs:
    """The newest version of every log that a service reads, and of the erasures."""
    manifest = asked.manifest
    logs = {
        name: None
        if isinstance(manifest.sources[name], BatchSource)
        else latest_version(table_path(settings, manifest, "log", name))
        for name in asked.sources
    }
    return Inputs(logs, ErasureTable(settings, manifest.tenant).version)


def inputs_of(part: Mapping[str, Any]) -> Inputs:
    """The versions that a part was made of."""
    return Inputs({name: source.get("version") for name, source in part["sources"].items()}, part["erasures"])


def sources_of(engine: Engine[T], asked: Asked, inputs: Inputs, settings: Settings) -> dict[str, dict[str, Any]]:
    """What was read of each source: the version of its log, or the content hash of its files."""
    found: dict[str, dict[str, Any]] = {}
    for name, number in inputs.logs.items():
        source = asked.manifest.sources[name]
        if isinstance(source, BatchSource):
            content = engine.summary(engine.file_rows(source), profiled=False)
            found[name] = {"files": source.path, "rows": content.rows, "content_hash": content.hash}
        else:
            found[name] = {"log": str(table_path(settings, asked.manifest, "log", name)), "version": number}
    return found


def part_of(content: Summary, inputs: Inputs, sources: Mapping[str, Any], choice: Choice) -> dict[str, Any]:
    """A part without labels as the lineage has it, but for when it was built."""
    return {
        "labels": None,
        "rows": content.rows,
        "sources": dict(sources),
        "erasures": inputs.erasures,
        "spine": {"rows": content.rows, "fingerprint": content.fingerprint},
        "engine": {"name": choice.engine, "why": choice.why},
        "versions": versions_now(),
    }


def versions_now() -> dict[str, str | None]:
    """The versions of Python and of the packages that compute features; None: not installed."""
    return {"python": sys.version.split()[0], **{name: _version(name) for name in _PACKAGES}}


def lineage_of(
    asked: Asked,
    name: str | None,
    knowledge: str,
    columns: Mapping[str, Sequence[str]],
    parts: Sequence[Any],
    content: Summary,
) -> dict[str, Any]:
    """The lineage of a training set of these parts."""
    return {
        "name": name,
        "service": asked.service.name,
        "tenant": asked.manifest.tenant,
        "manifest": asked.manifest.hash,
        "views": {view.name: view.version for view in asked.views},
        "knowledge": knowledge,
        "columns": {role: list(names) for role, names in columns.items()},
        "rows": content.rows,
        "content_hash": content.hash,
        "built_at": parts[-1]["built_at"],
        "erasures": parts[-1]["erasures"],
        "parts": list(parts),
    }


def erased_since(settings: Settings, asked: Asked, lineage: Mapping[str, Any]) -> bool:
    """Whether events that a training set of a service may hold were erased since it was built."""
    manifest = asked.manifest
    known = min(part["erasures"] for part in lineage["parts"])
    entries = ErasureTable(settings, manifest.tenant).entries()
    since = [entry.erasure for entry in entries if entry.number > known]
    return any(concerning(manifest.sources[name], since) for name in asked.sources)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
