"""How a service tells the supervisor that its loop goes round: the time of a file, which only its child is told of."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

VARIABLE = "COEVAL_HEARTBEAT"
"""Names the file, in the environment of the child."""
LONGEST_SECONDS = 60.0
"""A loop that waits for components comes round more often."""


def beat() -> None:
    """The loop went round. Without a file, as where nobody supervises, nothing happens."""
    path = os.environ.get(VARIABLE)
    if path:
        # A full disk must not end the loop that it is to tell of.
        with suppress(OSError):
            Path(path).touch()


def beats(path: Path, started_at: float) -> bool:
    """Whether a loop that was started then (seconds since the epoch) has gone round of late, or was only just begun."""
    last = path.stat().st_mtime if path.exists() else 0.0
    return time.time() - max(last, started_at) < LONGEST_SECONDS
