"""Runs `feast apply` as a child process and takes its report. It knows processes, not Feast."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coeval.errors import CatalogError, UsageError
from coeval.settings import Settings
from coeval_pipelines.catalog.errors import BrokenCatalogError
from coeval_pipelines.catalog.evolution import BREAK
from coeval_pipelines.catalog.removal import REMOVE
from coeval_pipelines.catalog.report import DRY_RUN, REPORT, Report

_FRAME = re.compile(r'  File "(?P<path>[^"]+)", line (?P<line>\d+)')


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
        "Run from the directory that holds feature_repo/, give --repo PATH, or start one: coeval init NAME.",
    )


@dataclass(frozen=True, slots=True)
class Allowed:
    """What an apply may do that it refuses otherwise: let names vanish, let event sources break with their topic."""

    remove: tuple[str, ...] = ()
    breaking: tuple[str, ...] = ()

    def variables(self) -> dict[str, str]:
        """As environment variables of the process of Feast."""
        return {name: ",".join(items) for name, items in ((REMOVE, self.remove), (BREAK, self.breaking)) if items}


NOTHING = Allowed()


def apply(settings: Settings, repository: Path, progress: Callable[[str], None], allowed: Allowed = NOTHING) -> Report:
    """Register the catalog and compile the manifest; `progress` hears the lines that Feast prints.

    Raises:
        BrokenCatalogError: definitions cannot be compiled, or vanished without being named; nothing was changed.
        CatalogError: a file of the repository does not run.
    """
    return _sound(_feast_apply(settings, repository, allowed, {}, progress))


def read(settings: Settings, repository: Path, progress: Callable[[str], None], allowed: Allowed = NOTHING) -> Report:
    """Compile the catalog as `apply` does, as far as it can be, and commit nothing.

    Raises:
        CatalogError: a file of the repository does not run.
    """
    return _feast_apply(settings, repository, allowed, {DRY_RUN: "1"}, progress)


def validate(
    settings: Settings, repository: Path, progress: Callable[[str], None], allowed: Allowed = NOTHING
) -> Report:
    """Compile the catalog as `apply` does, and commit nothing.

    Raises:
        BrokenCatalogError: definitions cannot be compiled, or vanished without being named.
    """
    return _sound(read(settings, repository, progress, allowed))


def _sound(report: Report) -> Report:
    if report.problems:
        raise BrokenCatalogError(report.problems)
    return report


def _feast_apply(
    settings: Settings,
    repository: Path,
    allowed: Allowed,
    extra: dict[str, str],
    progress: Callable[[str], None],
) -> Report:
    command = [sys.executable, "-m", "coeval_pipelines.catalog.feast_cli", "-c", str(repository), "apply"]
    said: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "report.json"
        paths = {"COEVAL_HOME": str(settings.home), REPORT: str(path), "PYTHONUNBUFFERED": "1"}
        # Whether this run commits is said here, and by nobody's environment.
        inherited = {name: value for name, value in os.environ.items() if name != DRY_RUN}
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env=inherited | paths | allowed.variables() | extra,
        ) as child:
            assert child.stdout is not None
            for line in child.stdout:
                said.append(line.rstrip())
                progress(said[-1])
        if not path.exists():
            raise _failure(repository, said)
        report = Report.from_json(path.read_text())
        if child.returncode and not report.problems:
            raise _failure(repository, said)
        return report


def _failure(repository: Path, said: list[str]) -> CatalogError:
    """The error of the child: the catalog's own, or the end of the traceback of a file that does not run."""
    starts = [number for number, line in enumerate(said) if line.startswith("Error: ")]
    if starts:
        reason, *rest = said[starts[-1] :]
        return CatalogError(
            reason.removeprefix("Error: "), "\n".join(line.strip() for line in rest).removeprefix("fix  ")
        )
    last = next((line for line in reversed(said) if line.strip()), "it said nothing")
    mend = "Install it, or correct" if last.startswith("ModuleNotFoundError") else "Correct"
    return CatalogError(f"feast apply failed: {last}", f"{mend} {_line_of(repository, said)}, and try again.")


def _line_of(repository: Path, said: list[str]) -> str:
    frames = [match for line in said if (match := _FRAME.match(line))]
    mine = [match for match in frames if Path(match["path"]).is_relative_to(repository)]
    if not mine:
        return "what the traceback above names"
    return f"{Path(mine[-1]['path']).relative_to(repository.parent)}:{mine[-1]['line']}"
