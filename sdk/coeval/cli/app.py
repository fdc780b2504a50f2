"""The root of the `coeval` command: finds the command groups, turns errors into messages and exit codes."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import typer

from coeval.errors import CoevalError, MissingExtraError

APP = typer.Typer(
    name="coeval",
    help="A feature store whose online and offline values cannot drift apart.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 a check failed, 2 usage or configuration, 3 infrastructure."""
    try:
        _register()
        APP()
    except CoevalError as error:
        print(f"coeval: {error.code}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _register() -> None:
    from coeval.cli import get
    from coeval.logs import configure_logging
    from coeval.settings import load_settings

    configure_logging(load_settings().log_level)
    get.register(APP)
    for entry in sorted(entry_points(group="coeval.commands"), key=lambda item: item.name):
        try:
            register = entry.load()
        except ImportError as error:
            raise MissingExtraError(
                f"The commands of {entry.name} need a package that is not installed: {error.name}.",
                f"pip install 'coeval[{entry.name}]'",
            ) from error
        register(APP)
