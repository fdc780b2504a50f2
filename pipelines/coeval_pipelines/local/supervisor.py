"""The supervisor: starts the children in order, asks after their health, restarts what dies, stops all on SIGTERM."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from coeval.errors import CoevalError
from coeval.logs import configure_logging
from coeval.settings import Settings, load_settings
from coeval_pipelines.local.artefacts import Jars, ensure_jars
from coeval_pipelines.local.components import Component, components
from coeval_pipelines.local.health import is_healthy
from coeval_pipelines.local.prepare import prepare
from coeval_pipelines.local.state import ComponentStatus, Process, StackStatus, write_state

TICK_SECONDS = 0.25
HEALTH_SECONDS = 1.0
STOP_SECONDS = 15.0
LONGEST_BACKOFF = 15.0
REPREPARE_FAILURES = 3
LARGE_LOG_BYTES = 32 * 2**20
STEADY_SECONDS = 30.0
"""A child that was up this long starts with no backoff again."""
_LOG = structlog.get_logger(service="supervisor")
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class Child:
    """A component and the process that runs it now."""

    component: Component
    popen: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    started_at: float = 0.0
    healthy: bool = False
    was_healthy: bool = False
    asked: float = 0.0
    starts: int = 0
    failures: int = 0
    not_before: float = 0.0

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.popen is not None and self.popen.poll() is None

    @property
    def health(self) -> str:
        """How it is, in a word (see ComponentStatus)."""
        if not self.alive:
            return "stopped"
        return "healthy" if self.healthy else "unhealthy" if self.was_healthy else "starting"

    def status(self) -> ComponentStatus:
        """What others are told."""
        process = Process.of(self.popen.pid) if self.popen and self.alive else None
        name, log = self.component.name, str(self.component.log)
        return ComponentStatus(name, self.component.address, self.health, max(self.starts - 1, 0), log, process)


class Supervisor:
    """Owns the children of one stack."""

    def __init__(self, settings: Settings, jars: Jars, names: tuple[str, ...]) -> None:
        self._settings = settings
        self._jars = jars
        self._children = {item.name: Child(item) for item in components(settings, jars, names)}
        self._stop = threading.Event()

    def stop(self) -> None:
        """Ask the loop to end."""
        self._stop.set()

    def run(self) -> None:
        """Tick until asked to stop, then stop the children in reverse order."""
        # Said before anything is started or prepared: from here on `up` and `down` can end us in good order.
        written = self._publish(None)
        while not self._stop.is_set():
            for child in self._children.values():
                self._tick(child, time.monotonic())
            written = self._publish(written)
            self._stop.wait(TICK_SECONDS)
        for child in reversed(self._children.values()):
            self._end(child)
        self._publish(written)

    def _publish(self, written: StackStatus | None) -> StackStatus:
        status = StackStatus(Process.of(os.getpid()), tuple(child.status() for child in self._children.values()))
        if status != written:
            write_state(self._settings, status)
        return status

    def _tick(self, child: Child, now: float) -> None:
        if not child.alive:
            if child.popen is not None:
                self._bury(child, now)
            if now >= child.not_before and self._may_start(child):
                self._start(child, now)
        elif now - child.asked >= HEALTH_SECONDS or not child.healthy:
            child.healthy, child.asked = is_healthy(self._settings, child.component, child.started_at), now
            child.was_healthy = child.was_healthy or child.healthy

    def _may_start(self, child: Child) -> bool:
        needed = (self._children.get(name) for name in child.component.after)
        return all(other is None or (other.alive and other.healthy) for other in needed)

    def _bury(self, child: Child, now: float) -> None:
        assert child.popen is not None
        _LOG.warning("died", component=child.component.name, exit_code=child.popen.returncode)
        child.failures = 0 if now - child.started > STEADY_SECONDS else child.failures + 1
        child.not_before = now + (0.0 if child.failures < 2 else min(0.5 * 2**child.failures, LONGEST_BACKOFF))
        # What it had started itself must not work beside its successor.
        with suppress(ProcessLookupError):
            os.killpg(child.popen.pid, signal.SIGKILL)
        child.popen, child.healthy, child.was_healthy = None, False, False

    def _start(self, child: Child, now: float) -> None:
        component = child.component
        # A job manager that comes back must be where its workers look for it, so its files stay as they are; only
        # when it cannot live with them (its port is taken, say) are they made anew.
        if child.starts == 0 or child.failures >= REPREPARE_FAILURES:
            prepare(self._settings, self._jars, component)
        _rotate(component.log)
        with component.log.open("ab") as log:
            child.popen = subprocess.Popen(
                component.command,
                cwd=component.cwd,
                env={**os.environ, **component.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - this process has one thread
            )
        child.started, child.started_at, child.asked = now, time.time(), 0.0
        child.starts += 1
        _LOG.info("started", component=component.name, pid=child.popen.pid)

    def _end(self, child: Child) -> None:
        if child.popen is None or not child.alive:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(child.popen.pid, number)
                child.popen.wait(STOP_SECONDS)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                _LOG.warning("did not stop in time", component=child.component.name)
                continue
            break
        _LOG.info("stopped", component=child.component.name)


def _rotate(log: Path) -> None:
    """Keep one old log where the current one has grown large; a process that runs writes on where it began."""
    if log.exists() and log.stat().st_size > LARGE_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))


def _die_with(parent: int) -> Callable[[], None]:
    """What a child does before it becomes the component: where the kernel offers it, tie its life to the supervisor's.

    Elsewhere, and for what the components start themselves, `up` and `down` end leftovers by pid.
    """

    def tie() -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

    return tie


def main() -> None:
    """`python -m coeval_pipelines.local.supervisor NAME...`: run the named components until SIGTERM."""
    settings = load_settings()
    configure_logging("info")
    try:
        supervisor = Supervisor(settings, ensure_jars(settings), tuple(sys.argv[1:]))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: supervisor.stop())
        supervisor.run()
    except CoevalError as error:
        _LOG.error("cannot go on", error=str(error))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
