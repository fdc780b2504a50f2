"""Where in the feature repository an object is defined, for error messages. It reads files and runs none of them."""

from __future__ import annotations

import ast
from pathlib import Path


def locate(repository: Path, name: str) -> str:
    """`households.py:16`, the call that names the object, or '' where it cannot be found."""
    for path in sorted(repository.rglob("*.py")):
        if any(part.startswith(".") for part in path.relative_to(repository).parts):
            continue
        line = _line(path, name)
        if line:
            return f"{path.relative_to(repository)}:{line}"
    return ""


def _line(path: Path, name: str) -> int:
    try:
        tree = ast.parse(path.read_text())
    except (OSError, SyntaxError, UnicodeDecodeError):
        return 0
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _names(node, name)]
    return min((call.lineno for call in calls), default=0)


def _names(call: ast.Call, name: str) -> bool:
    return any(
        keyword.arg == "name" and isinstance(keyword.value, ast.Constant) and keyword.value.value == name
        for keyword in call.keywords
    )
