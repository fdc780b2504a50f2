"""Runs faults over seeds and counts what parity called them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from coeval.settings import Settings
from coeval_parity.result import Cause, ParityResult
from tests.faults.faults import FAULTS, Fault, sound, state
from tests.faults.world import fault_world


@dataclass(frozen=True, slots=True)
class Finding:
    """What parity said of one fault with one seed: how many values have which name, beside those of a sound run."""

    fault: str
    expected: str
    seed: int
    labels: Counter[str]
    detected: bool

    @property
    def reported(self) -> str:
        """What most of the values that are not as in a sound run are called; empty where there are none."""
        return max(self.labels, key=lambda name: (self.labels[name], name), default="")

    @property
    def right(self) -> bool:
        """Whether that is the fault."""
        return self.reported == self.expected


def labels_of(result: ParityResult) -> Counter[str]:
    """How many values have which cause, or where nothing explains them which suspect."""
    found: Counter[str] = Counter({str(cause): count for cause, count in result.causes.items()})
    for suspect, count in result.suspects.items():
        found[str(suspect)] += count
        found[str(Cause.UNEXPLAINED)] -= count
    return +found


def clean_run(server: Settings, home: Path, seed: int) -> Counter[str]:
    """What a sound world of a seed has: late events, and nothing else."""
    world = fault_world(server, home / f"sound-{seed}", f"sound-{seed}", seed)
    sound(world, random.Random(seed))
    return labels_of(state(world))


def run_fault(server: Settings, home: Path, fault: Fault, seed: int, clean: Counter[str]) -> Finding:
    """Put a fault into a world of a seed, and ask parity."""
    number = [item.name for item in FAULTS].index(fault.name)
    world = fault_world(server, home / f"{number}-{seed}", f"fault-{number}-{seed}", seed)
    fault.inject(world, random.Random(seed))
    labels = labels_of(fault.check(world))
    found = grown(labels, clean)
    return Finding(fault.name, fault.label, seed, found, bool(found))


def grown(labels: Counter[str], clean: Counter[str]) -> Counter[str]:
    """The values with a name, without as many late ones as a sound run has: a defect may be called late, too."""
    late = str(Cause.LATE)
    return +Counter({**labels, late: labels[late] - clean[late]})


def confusion(findings: Iterable[Finding]) -> dict[str, Counter[str]]:
    """Values by fault and by what parity called them."""
    table: dict[str, Counter[str]] = {}
    for item in findings:
        table.setdefault(item.fault, Counter()).update(item.labels)
    return table


def run_study(
    server: Settings, home: Path, seeds: Iterable[int], faults: Iterable[Fault], say: Callable[[str], None]
) -> tuple[list[Finding], Counter[str]]:
    """Every fault with every seed; and what the sound runs of the seeds were called, together."""
    chosen, findings, clean = list(faults), [], Counter[str]()
    for seed in seeds:
        mine = clean_run(server, home, seed)
        clean += mine
        say(f"seed {seed}: sound: {dict(mine)}")
        for fault in chosen:
            finding = run_fault(server, home, fault, seed, mine)
            findings.append(finding)
            say(f"seed {seed}: {fault.name}: {'right' if finding.right else 'WRONG'} {dict(finding.labels)}")
    return findings, clean
