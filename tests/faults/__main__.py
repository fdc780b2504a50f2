"""`make faults`: every fault with three seeds; prints what each was called, exits with 1 where an aim is missed."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import aim, publish
from coeval_parity.result import Cause
from coeval_pipelines.local import stack
from coeval_pipelines.local.prepare import free_settings
from tests.faults.faults import FAULTS
from tests.faults.study import confusion, run_study


def main() -> int:
    """Run the study and publish it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 23, 47])
    parser.add_argument("--only", default="", help="faults whose name holds this")
    chosen = parser.parse_args()
    faults = [fault for fault in FAULTS if chosen.only in fault.name]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="coeval-faults-") as home:
        settings = free_settings(Path(home))
        stack.up(settings, ("redis",))
        try:
            findings, clean = run_study(settings, Path(home), chosen.seeds, faults, _say)
        finally:
            stack.down(settings)
    table = confusion(findings)
    labels = {fault.name: fault.label for fault in faults}
    right = sum(counts[labels[name]] for name, counts in table.items())
    values = sum(sum(counts.values()) for counts in table.values())
    cases = [
        {
            "case": name,
            "system": labels[name],
            "runs": len(chosen.seeds),
            "runs_found": sum(item.detected for item in findings if item.fault == name),
            "runs_named_right": sum(item.right for item in findings if item.fault == name),
            "values_by_name": dict(counts.most_common()),
        }
        for name, counts in table.items()
    ]
    runs = len(findings)
    aims = [
        aim("share of injected faults found", sum(item.detected for item in findings) / runs, 1.0, at_least=True),
        aim("share of runs named right", sum(item.right for item in findings) / runs, 0.95, at_least=True),
        aim("share of differing values named right", round(right / max(1, values), 4), 0.95, at_least=True),
        aim("unexplained values of sound runs", clean[str(Cause.UNEXPLAINED)], 0, at_least=False),
    ]
    if not chosen.only:
        publish("faults", cases, aims, seeds=chosen.seeds, seconds=round(time.monotonic() - started))
    return 0 if all(item["met"] for item in aims) else 1


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
