"""Runs `feast apply` as a child process and says what it changed. It knows processes and the manifest, not Feast."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coeval.client import read_manifest
from coeval.errors import CatalogError, ManifestError, UsageError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval_pipelines.catalog.summary import Change, changes

DRY_RUN = "COEVAL_CATALOG_DRY_RUN"
"""Environment variable of the child: write the manifest to the path that it names, and commit nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The manifest that the catalog compiles to, and what it changes."""

    manifest: Manifest
    changes: tuple[Change, ...]


def find_repository(given: Path | None) -> Path:
    """The feature repository: the one given, else here, else feature_repo/ here.

    Raises:
        UsageError: there is none.
    """
    for candidate in [given] if given else [Path(), Path("feature_repo")]:
        if (candidate / "feature_store.yaml").exists():
            return candidate.resolve()
    raise UsageError(
        f"No feature repository at {given or Path.cwd()}: there is no feature_store.yaml.",
        "Run from the directory that holds feature_repo/, or give --repo PATH.",
    )


def apply(settings: Settings, repository: Path, progress: Callable[[str], None]) -> Outcome:
    """Register the catalog and compile the manifest; `progress` hears the lines that Feast prints.

    Raises:
        CatalogError: a definition cannot be compiled; nothing was changed.
    """
    before = _current(settings)
    _feast_apply(settings, repository, {}, progress)
    manifest = read_manifest(settings.manifest_path)
    return Outcome(manifest, changes(before, manifest))


def validate(settings: Settings, repository: Path, progress: Callable[[str], None]) -> Outcome:
    """Compile the catalog as `apply` does, and commit nothing.

    Raises:
        CatalogError: a definition cannot be compiled.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "manifest.json"
        _feast_apply(settings, repository, {DRY_RUN: str(path)}, progress)
        manifest = read_manifest(path)
    return Outcome(manifest, changes(_current(settings), manifest))


def _current(settings: Settings) -> Manifest | None:
    try:
        return read_manifest(settings.manifest_path)
    except ManifestError:  # There is none yet, or one that an older release wrote: everything counts as new.
        return None


def _feast_apply(settings: Settings, repository: Path, extra: dict[str, str], progress: Callable[[str], None]) -> None:
    command = [sys.executable, "-m", "coeval_pipelines.catalog.feast_cli", "-c", str(repository), "apply"]
    environment = os.environ | {"COEVAL_HOME": str(settings.home.resolve()), "PYTHONUNBUFFERED": "1"} | extra
    said: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, env=environment
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            said.append(line.rstrip())
            progress(said[-1])
    if child.returncode:
        raise _failure(said)


def _failure(said: list[str]) -> CatalogError:
    """The error of the child: the catalog's own, or the end of the traceback of a file that does not run."""
    starts = [number for number, line in enumerate(said) if line.startswith("Error: ")]
    if starts:
        reason, *rest = said[starts[-1] :]
        return CatalogError(
            reason.removeprefix("Error: "), "\n".join(line.strip() for line in rest).removeprefix("fix  ")
        )
    last = next((line for line in reversed(said) if line.strip()), "it said nothing")
    return CatalogError(
        f"feast apply failed: {last}", "Correct the file that the traceback above names, and apply again."
    )
