"""`make chaos-offline`: twenty kills of what runs on Spark; prints the table, exits with 1 where anything differs."""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from benchmarks.report import QUICK, aim, publish
from coeval_pipelines.local import stack
from coeval_pipelines.local.prepare import free_settings
from tests.chaos.kills import Kill, Study, run_command
from tests.chaos.offline_phases import phases
from tests.chaos.offline_world import Sizes, Store, World

KILLS = {"log ingest": 6, "training-set build": 5, "backfill run": 5, "backfill run --correct": 4}
SIZES = Sizes(history=60_000, topic=60_000, late=20_000, spine=20_000, cards=20_000)
SMALL = Sizes(history=5_000, topic=5_000, late=2_000, spine=2_000, cards=1_000)


def main() -> int:
    """Run, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--only", default="", help="one command")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="coeval-kills-") as home:
        settings = free_settings(Path(home) / "stack")
        stack.up(settings, ("redis", "broker"))
        try:
            world = World(settings, Path(home), SMALL if QUICK else SIZES, chosen.seed, run_command)
            study = Study(chosen.seed, lambda line: print(line, file=sys.stderr, flush=True))
            with closing(Store(settings, world)) as store:
                wanted = [item for item in phases(world, store) if chosen.only in ("", item.name)]
                found = [kill for item in wanted for kill in study.run(item, 2 if QUICK else KILLS[item.name])]
        finally:
            stack.down(settings)
    return _report(found, chosen.seed)


def _report(found: list[Kill], seed: int) -> int:
    wrong = sum(bool(kill.wrong) for kill in found)
    cases = [{"case": kill.phase, "system": f"kill -9 of the {kill.killed}", **_figures(kill)} for kill in found]
    publish("kills", cases, [aim("kills after which anything differs", float(wrong), 0, at_least=False)], seed=seed)
    return 1 if wrong else 0


def _figures(kill: Kill) -> dict[str, object]:
    document = asdict(kill)
    return {
        name: value for name, value in document.items() if name not in ("phase", "killed") and value not in ("", None)
    }


if __name__ == "__main__":
    sys.exit(main())
