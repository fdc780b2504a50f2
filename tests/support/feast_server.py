"""Feast imported once, then forked for every command: the real command line, without its seconds of start each time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]


def environment(home: Path, **extra: str) -> dict[str, str]:
    """The environment of a command on a copy of a catalog, whose own functions are to be imported."""
    # Not those of the checkout that the tests run from.
    paths = [path for path in sys.path if path and Path(path) != ROOT]
    return os.environ | {"COEVAL_HOME": str(home), "PYTHONPATH": os.pathsep.join(paths)} | extra


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


class FeastServer:
    """Runs `feast` commands, each in a fork of one process that has imported Feast."""

    def __init__(self, child: subprocess.Popen[str], directory: Path) -> None:
        self._child = child
        self._directory = directory
        self._number = 0

    def run(self, repository: Path, home: Path, command: str, cwd: Path, **extra: str) -> Done:
        """`feast -c REPOSITORY COMMAND`, typed in `cwd`."""
        self._number += 1
        out, err = (self._directory / f"{self._number}.{name}" for name in ("out", "err"))
        job = {
            "arguments": ["-c", str(repository), command],
            "cwd": str(cwd),
            "environment": {"COEVAL_HOME": str(home), **extra},
            "files": [str(out), str(err)],
        }
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(job) + "\n")
        self._child.stdin.flush()
        code = int(self._child.stdout.readline())
        return Done(code, out.read_text(), err.read_text())


@contextmanager
def feast_server() -> Iterator[FeastServer]:
    """A server, stopped when the context ends."""
    with TemporaryDirectory() as directory:
        environ = environment(Path(directory))
        source = Path(__file__)
        with subprocess.Popen(
            [sys.executable, str(source)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
        ) as child:
            try:
                yield FeastServer(child, Path(directory))
            finally:
                assert child.stdin is not None
                child.stdin.close()


def _serve() -> None:
    from fast_feast import import_feast  # This file is run from its own directory.

    import_feast()
    from feast.cli.cli import cli

    import coeval_pipelines.catalog.authoring
    import coeval_pipelines.catalog.provider  # noqa: F401

    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _run(cli, job["arguments"], job["cwd"], job["environment"], job["files"])
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _run(cli: object, arguments: Sequence[str], cwd: str, extra: Mapping[str, str], files: Sequence[str]) -> None:
    for descriptor, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    code = 1
    try:
        os.chdir(cwd)
        os.environ.update(extra)
        sys.path[0] = cwd
        assert callable(cli)
        cli(list(arguments), prog_name="feast")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  the boundary of a process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
