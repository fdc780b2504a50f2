"""The Java classes of the stream: their sources in this package, and the jar that they are compiled into. No compiler.

The jar's name holds the hash of its sources and of the Flink that they are compiled for, so that a job is never run
with classes of another version of this package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

from coeval.errors import MissingExtraError
from coeval.settings import Settings


def stream_jar(settings: Settings) -> Path:
    """Where the jar is, or will be once it has been compiled.

    Raises:
        MissingExtraError: Flink is not installed.
    """
    try:
        flink = version("apache-flink")
    except PackageNotFoundError as error:
        raise MissingExtraError("apache-flink is not installed.", "pip install 'coeval[streaming]'") from error
    return settings.jars / "flink" / f"coeval-flink-{_digest(flink)}.jar"


@lru_cache(maxsize=1)
def sources() -> Mapping[str, bytes]:
    """The content of every source file and resource, by its path within the jar or the source tree."""
    root = Path(str(files("coeval_pipelines"))) / "streaming" / "java"
    found = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    return {name: found[name].read_bytes() for name in sorted(found)}


def _digest(flink: str) -> str:
    digest = hashlib.sha256(flink.encode())
    for name, content in sources().items():
        digest.update(f"\n{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]
