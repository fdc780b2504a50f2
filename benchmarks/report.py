"""A benchmark's result: written as JSON beside the code, printed as a table. Knows no engine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
QUICK = bool(os.environ.get("QUICK"))
"""Whether to measure less of everything, in the same shape."""

Figures = dict[str, Any]
"""One case: `case`, `system`, and figures with their units in their names."""


def aim(text: str, value: float | None, target: float, at_least: bool) -> Figures:
    """An aim and whether it is met; one that could not be measured is not."""
    met = value is not None and (value >= target if at_least else value <= target)
    sign = "at least" if at_least else "at most"
    return {"aim": f"{text}, {sign} {target:g}", "value": value, "target": target, "met": met}


def publish(name: str, cases: Sequence[Figures], aims: Sequence[Figures], **more: Any) -> None:
    """Write benchmarks/results/NAME.json and print it."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    machine: Figures = {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.machine()}
    machine["load_average_15m"] = round(os.getloadavg()[2], 1)
    document = {"name": name, "commit": commit.stdout.strip(), "quick": QUICK, "machine": machine, **more}
    document |= {"cases": list(cases), "aims": list(aims)}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    _print(document)


def _print(document: Figures) -> None:
    print(f"{document['name']} at {document['commit']}, {document['machine']}{', QUICK' if document['quick'] else ''}")
    for case in document["cases"]:
        figures = ", ".join(f"{name} {value}" for name, value in case.items() if name not in ("case", "system"))
        print(f"  {case['case']:<34} {case['system']:<30} {figures}")
    for item in document["aims"]:
        print(f"  {'met    ' if item['met'] else 'NOT MET'} {item['aim']}: {item['value']}")
