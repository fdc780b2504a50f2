"""Files that are replaced whole: a reader finds the old content or the new, whatever is killed in between."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Replace a file's content, at once or not at all, and keep it through a loss of power.

    Missing directories are made. `mode` is for the new file, less the process's umask. Two processes may write the
    same path; the last one wins.

    Raises:
        OSError: the directory cannot be written to, or the disk is full; the old content stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    """Keep a directory's list of names through a loss of power."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
