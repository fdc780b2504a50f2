"""Row expressions: a typed tree of operations over an event's columns. Pure; the parser is the catalog's business."""

from __future__ import annotations

from dataclasses import dataclass

from coeval.spec.types import DataType


@dataclass(frozen=True, slots=True)
class Expression:
    """One node: an operation, the type of its result, its arguments.

    `value` is the name of a `column`, or the text of a `literal` in the grammar of its type.
    """

    operation: str
    type: DataType
    args: tuple[Expression, ...] = ()
    value: str = ""

    @property
    def columns(self) -> frozenset[str]:
        """The columns that it reads."""
        if self.operation == "column":
            return frozenset({self.value})
        return frozenset[str]().union(*(item.columns for item in self.args))
