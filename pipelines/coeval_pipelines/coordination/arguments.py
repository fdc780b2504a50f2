"""What the commands of this room read in the same way."""

from __future__ import annotations


def parse_instant(text: str, option: str) -> int:
    """An RFC 3339 instant (microseconds UTC), as the option of that name takes it.

    Raises:
        UsageError: it is none.
    """
    from coeval.errors import UsageError
    from coeval.spec.types import TIMESTAMP, parse_literal

    try:
        return int(parse_literal(TIMESTAMP, text) or 0)
    except ValueError as error:
        raise UsageError(f"{option} {text!r} is not an instant.", "Write 2026-11-20T00:00:00Z.") from error
