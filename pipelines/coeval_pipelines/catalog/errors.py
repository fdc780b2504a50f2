"""The one error of the catalog: which object, which field, what to write instead. It knows click, nothing else.

It is a click error too, so that `feast apply` ends with its text and exit code 2 instead of a traceback.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import click

from coeval.errors import CatalogError


class DefinitionError(CatalogError, click.ClickException):
    """A definition that cannot be compiled.

    `subject` is the name of the Feast object, so that its file and line can be looked up; `where` names it in words,
    down to the field.
    """

    def __init__(self, where: str, what: str, fix: str, subject: str = "") -> None:
        super().__init__(f"{where}: {what}.", fix)
        self.subject = subject or where.split(",", maxsplit=1)[0].rpartition(" ")[2]
        self.location = ""

    def format_message(self) -> str:
        """The text that the feast CLI prints after `Error: `."""
        location = self.location or _catalog_line(self.__traceback__)
        place = f"\n  in   {location}" if location else ""
        outcome = "Nothing was registered: registry and manifest are as before."
        return f"{self.reason}\n  fix  {self.instruction}{place}\n{outcome}"


def _catalog_line(traceback: TracebackType | None) -> str:
    """The innermost line of a catalog file that led to an error raised while Feast was reading it."""
    found = ""
    while traceback is not None:
        file = Path(traceback.tb_frame.f_code.co_filename)
        if (file.parent / "feature_store.yaml").exists():
            found = f"{file.name}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return found
