"""The feast command line as a child process of `coeval apply`: the same commands, started faster. It knows Feast.

Most of Feast's start is typeguard rewriting the syntax tree of each of its classes, to check argument types at run
time. Here that is left out: what a definition says is checked when the catalog is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def main() -> None:
    """Run the feast command line on this process's arguments."""
    import typeguard

    typeguard.typechecked = _unchecked

    from feast.cli.cli import cli

    from coeval_pipelines.catalog.lenient import read_on

    read_on()
    cli()


def _unchecked(target: Any = None, **options: Any) -> Any:
    """Stand for typeguard.typechecked, bare and with options."""
    keep: Callable[[Any], Any] = lambda decorated: decorated  # noqa: E731
    return keep if target is None else target


if __name__ == "__main__":
    main()
