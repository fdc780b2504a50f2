"""Files that are replaced whole, and places that are directories of this machine or URIs of object storage."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import cast

_URI = re.compile(r"[a-z][a-z0-9+.-]*:/", re.IGNORECASE)


def is_uri(text: str) -> bool:
    """Whether a text names a place by a URI: s3a://bucket/dir, abfss://..., file:///dir, dbfs:/dir."""
    return bool(_URI.match(text))


def place(text: str) -> Path:
    """The directory or file of that name. Of a URI it is a `upath.UPath`, which has the interface of a Path.

    Raises:
        MissingExtraError: what reads such URIs is not installed.
    """
    if not is_uri(text):
        return Path(text)
    from coeval.errors import MissingExtraError

    try:
        from upath import UPath

        # Others write there too: what a listing said before says nothing.
        found = UPath(text, use_listings_cache=False)
        found.fs  # noqa: B018 - imports the protocol's own package
    except (ImportError, ValueError, TypeError, OSError) as error:
        raise MissingExtraError(
            f"{text} cannot be reached: {error}.", "pip install universal-pathlib and s3fs, adlfs or gcsfs."
        ) from error
    return cast("Path", found)


def remove_tree(path: Path) -> None:
    """Remove a directory with all that is in it; on this machine, at once as others see it.

    A process that is killed leaves `.NAME.removed` beside it on this machine, and part of it elsewhere; to remove it
    again removes the rest. What is not there is no error.
    """
    if not isinstance(path, Path):
        if path.exists():
            path.fs.rm(path.path, recursive=True)
        return
    gone = path.with_name(f".{path.name}.removed")
    shutil.rmtree(gone, ignore_errors=True)
    if path.exists():
        path.rename(gone)
        shutil.rmtree(gone)


def write_whole(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Replace a file's content, at once or not at all, and keep it through a loss of power.

    Missing directories are made. `mode` is for the new file, less the process's umask. Two processes may write the
    same path; the last one wins.

    Raises:
        OSError: the directory cannot be written to, or the disk is full; the old content stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    if not isinstance(path, Path):  # an object is put whole
        path.write_bytes(data)
        return
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(data)
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
