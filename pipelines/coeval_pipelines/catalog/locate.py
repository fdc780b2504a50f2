"""Where in the feature repository an object is defined, for error messages. It reads files and runs none of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from coeval_pipelines.catalog.errors import Problem

_CALLS = {
    "project": ("Project",),
    "entity": ("Entity",),
    "source": ("Source",),
    "view": ("FeatureView",),
    "label view": ("LabelView",),
    "derived view": ("OnDemandFeatureView", "derived_view", "on_demand_feature_view"),
    "service": ("FeatureService",),
}
"""How the calls end that define an object of a kind."""


def locate(repository: Path, problem: Problem) -> str:
    """`feature_repo/households.py:16`: the line that names the broken part, else the call that names the object.

    '' where neither can be found.
    """
    places = [
        (f"{path.relative_to(repository.parent)}:{line}", weight)
        for path in sorted(repository.rglob("*.py"))
        if not any(part.startswith(".") for part in path.relative_to(repository).parts)
        for line, weight in _places(path, problem)
    ]
    best = max((weight for _, weight in places), default=0)
    found = next((place for place, weight in places if weight == best), "")
    config = repository / "feature_store.yaml"
    return found or (f"{repository.name}/{config.name}:1" if problem.kind == "project" else "")


def _places(path: Path, problem: Problem) -> Iterator[tuple[int, int]]:
    """Lines that may be meant, each with how well: its very text, else the call that defines the subject, else any."""
    try:
        tree = ast.parse(path.read_text())
    except (OSError, SyntaxError, UnicodeDecodeError):
        return
    for node in ast.walk(tree):
        if problem.mark and isinstance(node, ast.Constant) and node.value == problem.mark:
            yield node.lineno, 3
        elif isinstance(node, ast.Call) and _names(node, problem.subject):
            yield _part(node, problem.part), 1 + _is_kind(node.func, problem.kind)
        elif isinstance(node, ast.FunctionDef) and node.name == problem.subject and node.decorator_list:
            yield node.lineno, 1


def _names(call: ast.Call, name: str) -> bool:
    return any(
        keyword.arg == "name" and isinstance(keyword.value, ast.Constant) and keyword.value.value == name
        for keyword in call.keywords
    )


def _is_kind(function: ast.expr, kind: str) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if kind == "view" and name.endswith("OnDemandFeatureView"):
        return False
    return str(name).endswith(_CALLS.get(kind, ()))


def _part(call: ast.Call, part: str) -> int:
    """The line in the call where the part is written as a string; the call's own line where it is not."""
    lines = [node.lineno for node in ast.walk(call) if isinstance(node, ast.Constant) and node.value == part]
    return min(lines) if part and lines else call.lineno
