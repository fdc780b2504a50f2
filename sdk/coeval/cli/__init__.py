"""The `coeval` command: one module per command group; groups of other rooms come through entry points."""

from coeval.cli.app import main

__all__ = ["main"]
