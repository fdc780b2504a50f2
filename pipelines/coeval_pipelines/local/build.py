"""Compiles the Java classes of the stream into a jar, once per version of their sources. It knows Eclipse's compiler.

The compiler is a pinned jar that a Java runtime runs: no development kit is needed, and no binary is kept in a tree.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from coeval_pipelines.streamjar import sources


class CompileError(Exception):
    """What the compiler said."""


def compile_jar(java: str, compiler: Path, target: Path) -> None:
    """Compile the sources for the Flink that is installed, and put the jar in its place in one step.

    Raises:
        CompileError: the compiler refuses the sources, or Flink's jars are not there.
    """
    print(f"compiling {target.name}", file=sys.stderr, flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".compile-") as name:
        work = Path(name)
        _run_compiler(java, compiler, work)
        _pack(work / "classes", work / target.name)
        (work / target.name).replace(target)


def _run_compiler(java: str, compiler: Path, work: Path) -> None:
    listed = []
    for name, content in sources().items():
        path = work / "sources" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if path.suffix == ".java":
            listed.append(str(path))
    options = ["-17", "-proc:none", "-encoding", "UTF-8", "-nowarn", "-d", str(work / "classes")]
    command = [java, "-jar", str(compiler), *options, "-cp", os.pathsep.join(map(str, flink_jars())), *listed]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise CompileError((done.stderr or done.stdout).strip()[-2000:])


def flink_jars() -> Sequence[Path]:
    """The jars of the Flink that is installed; none where it is not."""
    spec = find_spec("pyflink")
    return sorted((Path(spec.origin).parent / "lib").glob("*.jar")) if spec and spec.origin else ()


def _pack(classes: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as jar:
        for path in sorted(path for path in classes.rglob("*") if path.is_file()):
            jar.write(path, path.relative_to(classes).as_posix())
        for name, content in sources().items():
            if not name.endswith(".java"):
                jar.writestr(name, content)
