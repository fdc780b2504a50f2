"""A plan as text and as JSON: what is printed, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from coeval_pipelines.catalog.costs import Cost
from coeval_pipelines.catalog.errors import Problem
from coeval_pipelines.catalog.plan import Kind, Plan, Step

_MARKS = {
    Kind.UNCHANGED: "dim",
    Kind.IN_PLACE: "cyan",
    Kind.NEW: "green",
    Kind.NEW_VERSION: "yellow",
    Kind.REMOVED: "red",
    Kind.REFUSED: "bold red",
}
_INDENT = 26


def as_document(plan: Plan) -> dict[str, Any]:
    """The plan as JSON-ready values; bytes, events and keys are plain numbers, null where they are not known."""
    return asdict(plan) | {"refused": plan.refused}


def changed(plan: Plan) -> list[dict[str, Any]]:
    """What changes, as JSON-ready values; what it costs is left to the plan."""
    return [
        {"name": step.name, "object": step.object, "kind": str(step.kind), "before": step.before, "after": step.after}
        for step in plan.steps
        if step.kind is not Kind.UNCHANGED
    ]


def short(plan: Plan) -> list[str]:
    """What changes, a line each."""
    found = []
    for item in changed(plan):
        versions = " -> ".join(dict.fromkeys(filter(None, (item["before"], item["after"]))))
        label = item["name"] if item["object"] == "view" else f"{item['object']} {item['name']}"
        found.append(f"{label:<{_INDENT}} {item['kind']:<18}{versions}".rstrip())
    return found or ["no changes"]


def lines(plan: Plan) -> Iterator[tuple[str, str]]:
    """The lines of the plan, each with its style."""
    yield _header(plan), "bold"
    yield "", ""
    for step in plan.steps:
        yield from _step(step)
    for problem in plan.problems:
        yield f"  {f'{problem.kind} {problem.subject}':<{_INDENT - 4}}  refused: {_said(problem)}", "bold red"
        yield from _fix(problem)
    yield from _total(plan)
    for note in plan.notes:
        yield f"note: {note}", "dim"
    yield "", ""
    yield from _next(plan)


def _header(plan: Plan) -> str:
    if plan.compared_with == "nothing":
        return f"{plan.project}: nothing is registered yet, so everything is new"
    what = "what is deployed" if plan.compared_with == "deployed" else "what is registered; nothing is deployed yet"
    return f"{plan.project}: compared with {what} (manifest {plan.before[:12]})"


def _step(step: Step) -> Iterator[tuple[str, str]]:
    if step.kind is Kind.REFUSED or step.problems:
        yield from _refused(step)
        return
    why = list(step.why)
    versions = " -> ".join(f"v{item}" for item in (step.before, step.after) if item) if step.needs_backfill else ""
    head = f"{step.kind} {versions}".rstrip() if step.kind is Kind.NEW else versions or str(step.kind)
    first = f"{head}   {why.pop(0)}" if why else head
    loud = step.object == "project" and step.kind is Kind.NEW
    yield f"  {_label(step):<{_INDENT - 4}}  {first}", "bold red" if loud else _MARKS[step.kind]
    yield from ((" " * _INDENT + item, "") for item in why)
    if step.needs_backfill and step.cost:
        yield from _cost(step.cost)


def _label(step: Step) -> str:
    return f"{step.object} {step.name}" if step.object in ("project", "source", "entity") else step.name


def _refused(step: Step) -> Iterator[tuple[str, str]]:
    label = f"  {_label(step):<{_INDENT - 4}}  "
    for problem in step.problems:
        yield f"{label}refused: {_said(problem)}", _MARKS[Kind.REFUSED]
        yield from _fix(problem)
        label = " " * _INDENT
    if not step.problems:
        yield f"{label}refused: {'; '.join(step.why)}", _MARKS[Kind.REFUSED]


def _said(problem: Problem) -> str:
    _, comma, part = problem.where.partition(", ")
    return f"{part}: {problem.what}" if comma else problem.what


def _fix(problem: Problem) -> Iterator[tuple[str, str]]:
    place = f"  {problem.location}" if problem.location else ""
    yield f"{' ' * _INDENT}fix: {problem.fix}{place}", ""


def _cost(cost: Cost) -> Iterator[tuple[str, str]]:
    indent = " " * _INDENT
    events = "a log of unknown length" if cost.events is None else f"{amount(cost.events)} events"
    follow = f", then {cost.events_per_second:,g} a second" if cost.events_per_second else ""
    yield f"{indent}needs: backfill of {events}{follow} -> {_keys(cost)}", ""
    plan = ", ".join(f"{item.slots} x {item.length}" for item in cost.tiles)
    tiles = f"tiles {plan}; " if plan else ""
    most = f"at most {cost.planned_bytes:,} B of state{' and its texts' if cost.texts else ''} a key"
    yield f"{indent}{tiles}{most}; {cost.partitions} changelog partitions", "dim"


def _keys(cost: Cost) -> str:
    if cost.keys is None or cost.redis_bytes is None:
        return "keys not known"
    margin = f" ± {amount(cost.keys_margin)}" if cost.keys_margin else ""
    return f"{amount(cost.keys)}{margin} keys ({cost.keys_from}), ~{weight(cost.redis_bytes)} Redis"


def _total(plan: Plan) -> Iterator[tuple[str, str]]:
    filled = [step.cost for step in plan.steps if step.needs_backfill and step.cost]
    known = [cost.redis_bytes for cost in filled if cost.redis_bytes is not None]
    if len(known) > 1:
        more = f", and {len(filled) - len(known)} of unknown size" if len(filled) > len(known) else ""
        yield f"  {'in all':<{_INDENT - 4}}  {len(known)} views to backfill, ~{weight(sum(known))} Redis{more}", "bold"
    for reason in sorted({cost.keys_from for cost in filled if cost.keys is None}):
        yield f"note: keys are not known where {reason}", "dim"


def _next(plan: Plan) -> Iterator[tuple[str, str]]:
    if plan.refused:
        yield "Nothing can be applied before what is refused is mended. Then: coeval plan", "bold"
    elif plan.next:
        gates = [command for command in plan.next if command.startswith("coeval parity")]
        yield f"Next: {' && '.join(command for command in plan.next if command not in gates)}", "bold"
        for gate in gates:
            yield f"Then: {gate}     # the gate before anything reads the new values", ""
    else:
        yield "Nothing to do.", "bold"


def amount(number: int) -> str:
    """41.2M, 8.1k, 718."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if number >= size:
            return f"{number / (1000 if unit == 'k' else size):.1f}{unit}"
    return f"{number:,}"


def weight(size: int) -> str:
    """23 GB, 1.4 MB, 800 B."""
    for unit_size, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit_size:
            return f"{size / unit_size:.1f} {unit}"
    return f"{size} B"
