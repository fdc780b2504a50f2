"""Feast as the child of `coeval apply` imports it: without rewriting its own classes, in two thirds of the time."""

from __future__ import annotations

import sys


def import_feast() -> None:
    """Import Feast, once per process; later imports find it as it is."""
    if "feast" not in sys.modules:
        import typeguard

        from coeval_pipelines.catalog.feast_cli import _unchecked

        typeguard.typechecked = _unchecked
        import feast  # noqa: F401
