"""The one error of the catalog: which object, which field, what to write instead. It knows click, nothing else.

It is a click error too, so that `feast apply` ends with its text and exit code 2 instead of a traceback.
"""

from __future__ import annotations

import click

from coeval.errors import CatalogError


class CatalogProblem(CatalogError, click.ClickException):
    """A definition that cannot be compiled.

    `subject` is the name of the Feast object, so that its file and line can be looked up; `where` names it in words,
    down to the field.
    """

    def __init__(self, where: str, what: str, fix: str, subject: str = "") -> None:
        super().__init__(f"{where}: {what}.", fix)
        self.subject = subject or where.split(",")[0].rpartition(" ")[2]
        self.location = ""

    def format_message(self) -> str:
        """The text that the feast CLI prints after `Error: `."""
        place = f"\n  in   {self.location}" if self.location else ""
        return f"{self.reason}\n  fix  {self.instruction}{place}\nNothing was registered: registry and manifest are as before."
