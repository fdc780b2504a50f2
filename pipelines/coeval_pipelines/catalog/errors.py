"""The errors of the catalog: which object, which field, what to write instead; all of them at once. It knows click.

They are click errors too, so that `feast apply` ends with their text and exit code 2 instead of a traceback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from traceback import walk_stack
from types import TracebackType
from typing import TypeVar

import click

from coeval.errors import CatalogError

_In = TypeVar("_In")
_Out = TypeVar("_Out")

NOTHING_CHANGED = "Nothing was registered: registry and manifest are as before."


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. `where` names the object in words, down to the field: `view card_spend, feature sum_amount_7d`.

    `location` is file:line from the directory that holds the feature repository, '' where it is not known; `mark` is a
    text that stands in that line, by which it may be found.
    """

    where: str
    what: str
    fix: str
    location: str = ""
    mark: str = ""

    @property
    def kind(self) -> str:
        """view, source, derived view, ..."""
        return self.where.split(",", maxsplit=1)[0].rpartition(" ")[0]

    @property
    def subject(self) -> str:
        """The name of the Feast object."""
        return self.where.split(",", maxsplit=1)[0].rpartition(" ")[2]

    @property
    def part(self) -> str:
        """The name of the field, feature, key or column in it; '' where the whole object is meant."""
        _, comma, rest = self.where.rpartition(", ")
        return rest.rpartition(" ")[2].rpartition(":")[2] if comma else ""

    @property
    def text(self) -> str:
        """Three lines: what, how to mend it, where."""
        place = f"\n  in   {self.location}" if self.location else ""
        return f"{self.where}: {self.what}.\n  fix  {self.fix}{place}"

    def document(self) -> dict[str, str]:
        """As JSON-ready values."""
        return {"where": self.where, "what": self.what, "fix": self.fix, "location": self.location}

    @staticmethod
    def of(document: Mapping[str, str]) -> Problem:
        """Read what `document` gave."""
        return Problem(document["where"], document["what"], document["fix"], document["location"])


class BrokenCatalogError(CatalogError, click.ClickException):
    """Definitions that cannot be compiled: every one of them.

    Without any problem it means: what this depends on is broken, and was reported there.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        many = f"{len(self.problems)} mistakes in the catalog." if len(self.problems) > 1 else ""
        reason = "\n\n".join([*([many] if many else []), *(problem.text for problem in self.problems)])
        super().__init__(reason, "")
        self.reason = f"{reason}\n\n{NOTHING_CHANGED}"

    def format_message(self) -> str:
        """The text that the feast CLI prints after `Error: `."""
        return self.reason


class DefinitionError(BrokenCatalogError):
    """One definition that cannot be compiled: where, what, what to write instead."""

    def __init__(self, where: str, what: str, fix: str, location: str = "") -> None:
        super().__init__([Problem(where, what, fix, location)])

    def format_message(self) -> str:
        """The text that the feast CLI prints after `Error: `; with the line of the catalog file that raised it."""
        (problem,) = self.problems
        located = replace(problem, location=problem.location or _catalog_line(self.__traceback__))
        return f"{located.text}\n\n{NOTHING_CHANGED}"


def gather(function: Callable[[_In], _Out], items: Iterable[_In]) -> list[_Out]:
    """The function of every item.

    Raises:
        BrokenCatalogError: it failed for one or more; it holds the problems of all of them.
    """
    found: list[_Out] = []
    problems: list[Problem] = []
    failed = False
    for item in items:
        try:
            found.append(function(item))
        except BrokenCatalogError as error:
            problems += error.problems
            failed = True
    if failed:
        raise BrokenCatalogError(problems)
    return found


def marked(error: BrokenCatalogError, mark: str) -> BrokenCatalogError:
    """The same problems, to be found in the files by this text."""
    return BrokenCatalogError(replace(problem, mark=mark) for problem in error.problems)


def together(*steps: Callable[[], object]) -> None:
    """Run independent checks of one object.

    Raises:
        BrokenCatalogError: the problems of all that failed.
    """
    gather(lambda step: step(), steps)


def _catalog_line(traceback: TracebackType | None) -> str:
    """The innermost line of a catalog file that led to an error raised while Feast was reading it."""
    found = ""
    while traceback is not None:
        found = place_of(traceback.tb_frame.f_code.co_filename, traceback.tb_lineno) or found
        traceback = traceback.tb_next
    return found


def asking_line() -> str:
    """The innermost line of a catalog file on the way to here; '' where there is none."""
    return next(filter(None, (place_of(frame.f_code.co_filename, line) for frame, line in walk_stack(None))), "")


def place_of(file: str, line: int) -> str:
    """`feature_repo/households.py:16`, where the file belongs to a feature repository; else ''."""
    path = Path(file)
    for parent in path.parents:
        if (parent / "feature_store.yaml").exists():
            return f"{path.relative_to(parent.parent)}:{line}"
    return ""
