"""The faults: what is done to a running stack, as functions. Each hits only processes that the stack itself started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import psutil

from coeval.client import open_redis
from coeval.settings import Settings
from coeval_pipelines.local import stack
from coeval_pipelines.local.components import WORKER, workers
from coeval_pipelines.local.state import ComponentStatus

PAUSE_SECONDS = 30.0
FULL_SECONDS = 20.0
_HEALTHY_SECONDS = 180.0
_FILLER = "filler"


def component(settings: Settings, name: str) -> ComponentStatus:
    """How a component is now."""
    return next(item for item in stack.status(settings).components if item.name == name)


def kill(settings: Settings, name: str) -> None:
    """kill -9, and wait until the process is gone."""
    process = component(settings, name).process
    assert process is not None, name
    found = psutil.Process(process.pid)
    found.kill()
    psutil.wait_procs([found], timeout=10)


def kill_workers(settings: Settings) -> None:
    """kill -9 of every worker of Flink at once: no standby is left."""
    for name in workers(settings):
        kill(settings, name)


def kill_worker(settings: Settings) -> None:
    """kill -9 of one worker; where there are more, the others stand by."""
    kill(settings, WORKER)


def wipe(settings: Settings) -> None:
    """The online store loses everything, and dies."""
    with closing(open_redis(settings)) as client:
        client.flushall()
    kill(settings, "redis")


def pause(settings: Settings, name: str, seconds: float = PAUSE_SECONDS) -> None:
    """SIGSTOP, and SIGCONT after a time."""
    process = component(settings, name).process
    assert process is not None, name
    os.kill(process.pid, signal.SIGSTOP)
    # The pause is the fault itself: nothing is waited for.
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGCONT)


def small_disk(directory: Path, megabytes: int = 3072) -> bool:
    """Put a file system of its own on a directory; false where the machine does not allow it."""
    directory.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "coeval-chaos", str(directory)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def remove_disk(directory: Path) -> None:
    """Take it away again."""
    subprocess.run(["umount", "-l", str(directory)], capture_output=True, check=True)


def fill_disk(directory: Path, seconds: float = FULL_SECONDS) -> None:
    """Leave no byte free on it for a while."""
    filler = directory / _FILLER
    with filler.open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 20))
                file.flush()
        except OSError:
            pass
    time.sleep(seconds)
    filler.unlink()


def await_healthy(settings: Settings, restarts: Mapping[str, int]) -> None:
    """Wait until every component is healthy, and those named have been restarted more often than that.

    Raises:
        TimeoutError: they are not in time; the reason names them.
    """

    def ill() -> list[str]:
        items = stack.status(settings).components
        return [i.name for i in items if i.health != "healthy" or i.restarts <= restarts.get(i.name, -1)]

    await_(lambda: not ill(), _HEALTHY_SECONDS, lambda: f"not healthy again: {ill()}")


def await_(condition: Callable[[], bool], seconds: float, complaint: Callable[[], str]) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: it does not hold in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(complaint())
        time.sleep(0.1)
