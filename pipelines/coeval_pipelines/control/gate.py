"""The gate that parity is: may a view version be promoted? It asks the control plane, and computes nothing anew."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coeval.errors import CheckFailedError
from coeval.spec.model import View, budgets_text
from coeval.spec.time import duration
from coeval.spec.types import iso
from coeval_pipelines.control.model import ParityCheck
from coeval_pipelines.control.parity import ParityBook
from coeval_pipelines.control.plane import ControlPlane


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether a view version passed parity, and why it counts as that; `check` is the run that says so."""

    view: str
    version: str
    passed: bool
    why: str
    check: ParityCheck | None = None


def gate(control: ControlPlane, view: View, now: int, max_age: int | None = None) -> Gate:
    """Whether parity lets a view version through at `now`, by checks no older than `max_age` (both microseconds).

    Only runs count that held it to the budgets that it has now.
    """
    checks = ParityBook(control).checks(view.name, view.version, limit=None)
    held = [check for check in checks if check.budgets == budgets_text(view)]
    if checks and not held:
        return Gate(view.name, view.version, False, "no parity run has held it to the budgets that it has now")
    return decide(view.name, view.version, held, now, max_age)


def gates(control: ControlPlane, views: Iterable[View], now: int, max_age: int | None = None) -> tuple[Gate, ...]:
    """The gates of some views."""
    return tuple(gate(control, view, now, max_age) for view in views)


def refuse_closed(found: Iterable[Gate]) -> None:
    """Let only open gates through.

    Raises:
        CheckFailedError: parity does not let a view version through: which, and why.
    """
    closed = [item for item in found if not item.passed]
    if closed:
        said = "; ".join(f"{item.view} {item.version}: {item.why}" for item in closed)
        names = " ".join(item.view for item in closed)
        raise CheckFailedError(f"Parity does not let it through. {said}.", f"Check it: coeval parity run {names}")


def decide(view: str, version: str, checks: Sequence[ParityCheck], now: int, max_age: int | None = None) -> Gate:
    """What some checks of a view version, the newest first, come to.

    The newest has to have passed, and so has every check before it whose keys no later one looked at again: a small
    sample does not make up for a whole run that failed.
    """
    if not checks:
        return Gate(view, version, False, "no parity run has looked at it")
    newest = checks[0]
    if max_age is not None and now - newest.at > max_age:
        said = f"run {newest.run} of {iso(newest.at, seconds=True)} is older than {duration(max_age)}"
        return Gate(view, version, False, said, newest)
    later: list[ParityCheck] = []
    for check in checks:
        if not check.passed and not any(item.covers(check) for item in later):
            said = f"run {check.run} of {iso(check.at, seconds=True)} failed: {check.breaches[0]}"
            return Gate(view, version, False, said, check)
        later.append(check)
        if check.share >= 1:
            break
    which = "" if newest.share >= 1 else f", a sample of {newest.share:.4g}"
    said = f"run {newest.run} passed at {iso(newest.at, seconds=True)} on {newest.keys:,} keys{which}"
    return Gate(view, version, True, said, newest)
