"""What the catalog costs: imports, help, reading a manifest, a plan, and an apply beside plain Feast's, interleaved.

Writes benchmarks/results/catalog.json and prints it as a table. QUICK=1 repeats less; the shape is the same.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "catalog.json"
BIN = Path(sys.executable).parent
QUICK = bool(os.environ.get("QUICK"))
VIEWS = 20

_CONFIG = """project: drivers
provider: {provider}
registry: {registry}
online_store: null
entity_key_serialization_version: 3
"""
_PLAIN = _CONFIG.format(provider="local", registry="registry.db")
_OURS = _CONFIG.format(
    provider="coeval_pipelines.catalog.provider.CoevalProvider",
    registry="\n  registry_store_type: coeval_pipelines.catalog.registry.CoevalRegistryStore\n  path: registry.db",
)
_DEFINITIONS = f"""
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, Project, ValueType
from feast.types import Float64, Int64, String

project = Project(name="drivers", owner="fleet@company.example", tags={{"coeval.io/default-pii": "pseudonymous"}})
driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
views = [
    FeatureView(
        name=f"stats_{{number}}", entities=[driver], ttl=timedelta(days=1),
        schema=[Field(name=f"f{{index}}", dtype=(Float64, Int64, String)[index % 3]) for index in range(10)],
        source=FileSource(name=f"source_{{number}}", path="PATH", timestamp_field="event_timestamp"),
    )
    for number in range({VIEWS})
]
for view in views:
    globals()[view.name] = view
service = FeatureService(name="risk", features=views)
"""
"""Feast objects alone, so that plain Feast and Coeval's registry store read the very same file."""


def main() -> None:
    """Measure everything, write the result, print the table."""
    with tempfile.TemporaryDirectory() as directory:
        cases = [*_starts(), *_manifest(), *_commands(Path(directory))]
    aims = [
        _aim("import coeval, CPU s", _figure(cases, "import coeval", "cpu_s"), 0.3),
        _aim("coeval --help, CPU s", _figure(cases, "coeval --help", "cpu_s"), 0.5),
        _aim("manifest of 100 views, load ms", _figure(cases, "load a manifest of 100 views", "median_ms"), 20.0),
    ]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.machine()}
    load = round(os.getloadavg()[0], 1)
    document = {
        "name": "catalog",
        "commit": commit.stdout.strip(),
        "machine": machine | {"load_average_1m": load},
        "cases": cases,
        "aims": aims,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(document, indent=2) + "\n")
    _print(document)


def _run(command: Sequence[str], **options: Any) -> tuple[float, float]:
    """CPU and wall seconds of a child process and its children."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def _median(runs: Sequence[tuple[float, float]]) -> dict[str, float]:
    return {"cpu_s": round(median(cpu for cpu, _ in runs), 3), "wall_s": round(median(wall for _, wall in runs), 3)}


def _starts() -> list[dict[str, Any]]:
    commands = {
        "python, nothing else": [sys.executable, "-c", "pass"],
        "import coeval": [sys.executable, "-c", "import coeval"],
        "import coeval.client": [sys.executable, "-c", "import coeval.client"],
        "coeval --help": [str(BIN / "coeval"), "--help"],
    }
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(5 if QUICK else 15):
        for name, command in commands.items():
            runs[name].append(_run(command))
    system = {"python, nothing else": f"python {platform.python_version()}"}
    return [{"case": name, "system": system.get(name, "coeval"), **_median(found)} for name, found in runs.items()]


def _manifest() -> list[dict[str, Any]]:
    """100 views, each with the 22 aggregates of the widest view of the example catalog."""
    sys.path.insert(0, str(ROOT))
    from coeval.spec.manifest import Manifest
    from tests.support.catalog import CARD_SPEND, PAYMENTS

    assert hasattr(CARD_SPEND, "aggregates")
    aggregates, features = CARD_SPEND.aggregates[:22], CARD_SPEND.features[:22]
    views = [
        replace(CARD_SPEND, name=f"view_{number:03}", aggregates=aggregates, features=features) for number in range(100)
    ]
    text = Manifest("bench", "bench", event_sources=(PAYMENTS,), windowed_views=tuple(views)).to_json()
    times = []
    for _ in range(20 if QUICK else 100):
        start = time.perf_counter()
        Manifest.from_json(text)
        times.append((time.perf_counter() - start) * 1000)
    figures = {"median_ms": round(median(times), 2), "first_ms": round(times[0], 2), "bytes": len(text)}
    return [{"case": "load a manifest of 100 views", "system": "coeval", **figures}]


def _commands(directory: Path) -> list[dict[str, Any]]:
    plain, ours = (_repository(directory / name, config) for name, config in (("plain", _PLAIN), ("ours", _OURS)))
    nowhere = {"COEVAL_HOME": str(directory / "state"), "COEVAL_REDIS__URL": "redis://127.0.0.1:1/0"}
    environment = os.environ | nowhere
    feast = str(BIN / "feast")
    coeval = [str(BIN / "coeval")]
    systems = {
        ("apply", "feast 0.67.0, file registry"): [feast, "-c", str(plain), "apply"],
        ("apply", "coeval, through feast apply"): [feast, "-c", str(ours), "apply"],
        ("apply", "coeval apply"): [*coeval, "apply", "--repo", str(ours)],
        ("plan an unchanged catalog", "coeval plan"): [*coeval, "plan", "--repo", str(ours)],
    }
    runs: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in systems}
    for number in range(3 if QUICK else 7):
        for key, command in systems.items():
            found = _run(command, env=environment, cwd=directory)
            # The first round registers; what is measured finds it there.
            if number:
                runs[key].append(found)
    about = {"views": VIEWS, "features": VIEWS * 10}
    return [{"case": case, "system": system, **about, **_median(runs[case, system])} for case, system in systems]


def _repository(directory: Path, config: str) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    repository = directory / "feature_repo"
    repository.mkdir(parents=True)
    columns: dict[str, Any] = {"driver_id": pa.array([1], pa.int64())}
    columns["event_timestamp"] = pa.array([0], pa.timestamp("us", "UTC"))
    kinds = (pa.float64(), pa.int64(), pa.string())
    columns |= {f"f{index}": pa.array([None], kinds[index % 3]) for index in range(10)}
    path = directory / "stats.parquet"
    parquet.write_table(pa.table(columns), path)
    (repository / "feature_store.yaml").write_text(config)
    (repository / "drivers.py").write_text(_DEFINITIONS.replace("PATH", str(path)))
    return repository


def _figure(cases: Sequence[dict[str, Any]], case: str, name: str) -> float:
    return float(next(item[name] for item in cases if item["case"] == case))


def _aim(aim: str, value: float, target: float) -> dict[str, Any]:
    return {"aim": f"{aim}, below {target}", "value": value, "target": target, "met": value < target}


def _print(document: dict[str, Any]) -> None:
    print(f"catalog at {document['commit']}, {document['machine']}")
    for case in document["cases"]:
        figures = ", ".join(f"{name} {value}" for name, value in case.items() if name not in ("case", "system"))
        print(f"  {case['case']:<30} {case['system']:<30} {figures}")
    for aim in document["aims"]:
        print(f"  {'met    ' if aim['met'] else 'NOT MET'} {aim['aim']}: {aim['value']}")


if __name__ == "__main__":
    main()
