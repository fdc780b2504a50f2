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
from coeval_pipelines.offline.session import spark_session
from tests.chaos.kills import Kill, Study, run_here
from tests.chaos.offline_phases import phases
from tests.chaos.offline_world import Sizes, Store, World

KILLS = {"log ingest": 6, "training-set build": 5, "backfill run": 5, "backfill run --correct": 4}
SIZES = Sizes(history=20_000, topic=20_000, late=8_000, spine=5_000, cards=5_000)
SMALL = Sizes(history=5_000, topic=5_000, late=2_000, spine=2_000, cards=1_000)


def main() -> int:
    """Run, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--only", choices=list(KILLS), help="one command")
    parser.add_argument("--times", type=int, help="kills of each command")
    parser.add_argument("--seconds", type=float, help="what a command takes, rather than measure it")
    chosen = parser.parse_args()
    wanted = {chosen.only} if chosen.only else KILLS.keys()
    print(f"seed {chosen.seed}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="coeval-kills-") as home:
        settings = free_settings(Path(home) / "stack")
        stack.up(settings, ("redis", "broker"))
        try:
            world = World(settings, Path(home), SMALL if QUICK else SIZES, chosen.seed, run_here)
            study = Study(chosen.seed, lambda line: print(line, file=sys.stderr, flush=True))
            with spark_session(settings), closing(Store(settings, world)) as store:
                found: list[Kill] = []
                for phase in (item for item in phases(world, store) if item.name in wanted):
                    times = chosen.times or (2 if QUICK else KILLS[phase.name])
                    found += study.run(phase, times, chosen.seconds)
                    # A study that is ended before its time leaves what it knows.
                    wrong = _report(found, chosen.seed)
        finally:
            stack.down(settings)
    return 1 if wrong else 0


def _report(found: list[Kill], seed: int) -> int:
    """Write and print what is known; after how many kills something differs."""
    wrong = sum(bool(kill.wrong) for kill in found)
    cases = [{"case": kill.phase, "system": f"kill -9 of the {kill.victim}", **_figures(kill)} for kill in found]
    publish("kills", cases, [aim("kills after which anything differs", float(wrong), 0, at_least=False)], seed=seed)
    return wrong


def _figures(kill: Kill) -> dict[str, object]:
    left_out = ("phase", "victim", "struck")
    return {name: value for name, value in asdict(kill).items() if name not in left_out and value not in ("", None)}


if __name__ == "__main__":
    sys.exit(main())
