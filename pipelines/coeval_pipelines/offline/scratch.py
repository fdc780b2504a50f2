"""Intermediate files that nobody else reads: named by when they were begun, so that what a kill left is swept away."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

from coeval.files import remove_tree

KEPT_SECONDS = 2 * 24 * 3600
"""Whoever began something longer ago is gone."""


def scratch_name() -> str:
    """A name that nobody has."""
    return f"{int(time.time())}-{uuid.uuid4().hex}"


def sweep(directory: Path) -> None:
    """Remove what was begun there long ago."""
    before = time.time() - KEPT_SECONDS
    for path in directory.glob("*-*"):
        begun = path.name.lstrip(".").partition("-")[0]
        if begun.isdigit() and int(begun) < before:
            remove_tree(path)
