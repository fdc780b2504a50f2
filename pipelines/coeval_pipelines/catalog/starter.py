"""`coeval init`: a small catalog that runs, written from the template beside this module. It knows the file system."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from coeval.errors import CatalogError, UsageError
from coeval_pipelines.catalog.names import check_name

_PLACEHOLDER = "coeval_project"
_FILES = (
    "README.md",
    "gitignore",
    "feature_repo/customers.py",
    "feature_repo/derived.py",
    "feature_repo/entities.py",
    "feature_repo/feastignore",
    "feature_repo/feature_store.yaml",
    "feature_repo/functions.py",
    "feature_repo/project.py",
    "feature_repo/services.py",
    "feature_repo/sources.py",
)
_HIDDEN = ("gitignore", "feastignore")
"""Kept without their dot, so that neither git nor the build takes them as meant for this repository."""


def start(name: str, directory: Path) -> list[Path]:
    """Write the catalog of a new project, and return its files.

    Raises:
        UsageError: the name cannot be a project, or a file is there already; nothing is written then.
    """
    try:
        check_name(f"project {name}", name)
    except CatalogError as error:
        raise UsageError(f"{name!r} cannot be the name of a project.", "Use lower-case letters, digits, _.") from error
    targets = {source: _target(directory, source) for source in _FILES}
    there = [path for path in targets.values() if path.exists()]
    if there:
        raise UsageError(f"{there[0]} is there already, and nothing is overwritten.", "Give another --path.")
    template = files("coeval_pipelines.catalog").joinpath("template")
    for source, path in targets.items():
        text = template.joinpath(source).read_text(encoding="utf-8")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace(_PLACEHOLDER, name), encoding="utf-8")
    return list(targets.values())


def _target(directory: Path, source: str) -> Path:
    path = directory / source
    return path.with_name(f".{path.name}") if path.name in _HIDDEN else path
