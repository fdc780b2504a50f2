"""Bring the local stack up and down, and say how it is. It knows processes and ports; the supervisor does the rest."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import psutil
import tenacity
from coeval.errors import StackError
from coeval.settings import Settings

from coeval_pipelines.local.artefacts import ensure_jars
from coeval_pipelines.local.components import ALL, Component, components, log_path, root
from coeval_pipelines.local.state import Process, StackStatus, read_state, state_path

UP_SECONDS = 180.0
DOWN_SECONDS = 60.0

Progress = Callable[[StackStatus], None]


def status(settings: Settings) -> StackStatus:
    """How the stack is now; the last state of a supervisor that is gone counts as stopped."""
    state = read_state(settings)
    if state.running:
        return state
    return replace(state, components=tuple(replace(item, health="stopped", process=None) for item in state.components))


def up(settings: Settings, names: tuple[str, ...] = ALL, progress: Progress = lambda _: None) -> StackStatus:
    """Start the stack and wait until it is healthy. A stack that runs is left as it is.

    Raises:
        StackError: a port is taken, or a component does not become healthy; nothing is left running then.
    """
    with _exclusive(settings):
        if not read_state(settings).running:
            _end_leftovers(settings)
            parts = components(settings, ensure_jars(settings), names)
            for part in parts:
                _check_port(part)
            _spawn(settings, names)
        return _await_healthy(settings, progress)


def down(settings: Settings) -> bool:
    """Stop the stack and wait until nothing of it runs; returns whether there was anything to stop."""
    with _exclusive(settings):
        supervisor = read_state(settings).supervisor
        found = supervisor.find() if supervisor else None
        if found:
            found.send_signal(signal.SIGTERM)
            _, alive = psutil.wait_procs([found], timeout=DOWN_SECONDS)
            for process in alive:
                process.kill()
        left = _end_leftovers(settings)
        state_path(settings).unlink(missing_ok=True)
        return bool(found) or left


@contextmanager
def _exclusive(settings: Settings) -> Iterator[None]:
    root(settings).mkdir(parents=True, exist_ok=True)
    with (root(settings) / "stack.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _end_leftovers(settings: Settings) -> bool:
    """End children that outlived their supervisor: only those whose pid and creation time are the recorded ones."""
    recorded = [item.process.find() for item in read_state(settings).components if item.process]
    alive = [process for process in recorded if process]
    for process in alive:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    psutil.wait_procs(alive, timeout=DOWN_SECONDS)
    return bool(alive)


def _check_port(component: Component) -> None:
    if not component.port:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((component.host, component.port))
        except OSError as error:
            raise StackError(
                f"{component.address}, the address of {component.name}, is taken{_holder(component.port)}.",
                f"Stop that process, or choose another address: {component.setting}=...",
            ) from error


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("inet"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                name = psutil.Process(connection.pid).name() if connection.pid else "a process of another user"
                return f" by {name} (pid {connection.pid})"
    except psutil.Error:
        pass
    return ""


def _spawn(settings: Settings, names: tuple[str, ...]) -> None:
    log = log_path(settings, "supervisor")
    log.parent.mkdir(parents=True, exist_ok=True)
    state_path(settings).unlink(missing_ok=True)
    with log.open("ab") as sink:
        child = subprocess.Popen(
            [sys.executable, "-m", "coeval_pipelines.local.supervisor", *names],
            cwd=root(settings),
            env={**os.environ, **settings.variables()},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process = Process.of(child.pid)
    wait = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda done: not done),
        wait=tenacity.wait_fixed(0.1),
        stop=tenacity.stop_after_delay(60),
        retry_error_callback=lambda _: False,
    )
    if not wait(lambda: child.poll() is not None or read_state(settings).supervisor == process) or child.poll():
        child.kill()
        raise StackError(f"The supervisor did not start:\n{_tail(settings, 'supervisor')}", f"Read {log}.")


def _await_healthy(settings: Settings, progress: Progress) -> StackStatus:
    def look() -> StackStatus:
        state = read_state(settings)
        progress(state)
        return state

    wait = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda state: state.running and not state.healthy),
        wait=tenacity.wait_fixed(0.25),
        stop=tenacity.stop_after_delay(UP_SECONDS),
        retry_error_callback=lambda call: call.outcome.result() if call.outcome else None,
    )
    state: StackStatus = wait(look)
    if state.healthy:
        return state
    name = next((item.name for item in state.components if item.health != "healthy"), "supervisor")
    tail = _tail(settings, name)
    if state.supervisor and (found := state.supervisor.find()):
        found.terminate()
        psutil.wait_procs([found], timeout=DOWN_SECONDS)
    _end_leftovers(settings)
    raise StackError(
        f"{name} did not become healthy within {UP_SECONDS:.0f} s; the stack was stopped again.\n{tail}",
        f"Read {log_path(settings, name)}.",
    )


def _tail(settings: Settings, name: str, lines: int = 12) -> str:
    try:
        return "\n".join(log_path(settings, name).read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log)"
