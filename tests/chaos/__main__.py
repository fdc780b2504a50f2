"""`make chaos`: the whole campaign, a million records; prints the table, and exits with 1 where anything differs."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from coeval_pipelines.local.prepare import free_settings
from tests.chaos.campaign import Campaign, Outcome, Plan

FULL = {
    "worker": 10,
    "worker, standby": 10,
    "job manager": 5,
    "writer": 5,
    "redis": 5,
    "redis wiped": 1,
    "broker": 3,
    "worker paused": 1,
    "writer paused": 1,
    "full disk": 1,
}
AIMS = {"worker": 30.0, "worker, standby": 15.0}
"""Seconds from the fault until values are fresh again."""
RESULT = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "chaos.json"


def main() -> int:
    """Run, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=1000.0, help="records a second while faults go on")
    parser.add_argument("--seed", type=int, default=20261121)
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="coeval-chaos-") as home:
        settings = free_settings(Path(home))
        # One worker stands by; the fault "worker" kills both.
        flink = settings.flink.model_copy(update={"workers": 2, "worker_memory": "4g"})
        settings = settings.model_copy(update={"flink": flink})
        plan = Plan(chosen.seed, chosen.events, chosen.rate, FULL)
        outcome = Campaign(settings, plan, lambda line: print(line, file=sys.stderr, flush=True)).run()
    document = summary(plan, outcome)
    RESULT.write_text(json.dumps(document, indent=1) + "\n")
    show(document)
    return 1 if outcome.verdict.wrong or outcome.uncounted else 0


def summary(plan: Plan, outcome: Outcome) -> Mapping[str, object]:
    """The result as a JSON document."""
    recovery = {name: _spread(values) for name, values in sorted(outcome.recovery.items())}
    aims = [
        {"aim": f"fresh after {name}, median", "value": recovery[name]["median_s"], "target": limit,
         "met": recovery[name]["median_s"] <= limit}
        for name, limit in AIMS.items() if name in recovery
    ]  # fmt: skip
    return {
        "name": "chaos",
        "seed": plan.seed,
        "records": outcome.records,
        "seconds": round(outcome.seconds, 1),
        "recovery": recovery,
        "compared": asdict(outcome.verdict),
        "accounting": outcome.accounting,
        "counted_otherwise": outcome.uncounted,
        "skipped": outcome.skipped,
        "aims": aims,
    }


def _spread(values: Sequence[float]) -> Mapping[str, float]:
    return {
        "times": len(values),
        "median_s": round(statistics.median(values), 1),
        "max_s": round(max(values), 1),
    }


def show(document: Mapping[str, object]) -> None:
    """Print it."""
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    sys.exit(main())
