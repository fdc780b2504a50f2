"""Bring the local stack up and down, and say how it is. It knows processes and ports; the supervisor does the rest."""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import psutil
import tenacity

from coeval.errors import StackError
from coeval.settings import Settings
from coeval_pipelines.local.artefacts import ensure_jars, require_java
from coeval_pipelines.local.components import ALL, Component, components, log_path, root
from coeval_pipelines.local.state import StackStatus, read_state, state_path

UP_SECONDS = 180.0
DOWN_SECONDS = 60.0
HOPELESS_RESTARTS = 3
"""A component that ended this often while the stack came up will not come up."""

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
        parts = components(settings, ensure_jars(settings), names)
        if (there := read_state(settings)).running:
            _check_same(there, parts)
        else:
            _end_leftovers(settings)
            require_java()
            for part in parts:
                _check_port(part)
        return _start_and_wait(settings, names, progress, there=there.running)


def _start_and_wait(settings: Settings, names: tuple[str, ...], progress: Progress, *, there: bool) -> StackStatus:
    try:
        if not there:
            _spawn(settings, names)
        return _await_healthy(settings, progress)
    except (StackError, KeyboardInterrupt) as error:
        # Whoever merely waited for a stack that ran before may lose patience without ending it for others.
        if not (there and isinstance(error, KeyboardInterrupt)):
            _end_supervisor(settings)
            _end_leftovers(settings)
        raise


def down(settings: Settings) -> bool:
    """Stop the stack and wait until nothing of it runs; returns whether there was anything to stop."""
    with _exclusive(settings):
        stopped = _end_supervisor(settings)
        left = _end_leftovers(settings)
        state_path(settings).unlink(missing_ok=True)
        return stopped or left


def _end_supervisor(settings: Settings) -> bool:
    supervisor = read_state(settings).supervisor
    found = supervisor.find() if supervisor else None
    if found is None:
        return False
    with suppress(psutil.NoSuchProcess):
        found.terminate()
        _, alive = psutil.wait_procs([found], timeout=DOWN_SECONDS)
        for process in alive:
            process.kill()
    return True


def _check_same(running: StackStatus, wanted: tuple[Component, ...]) -> None:
    there = {item.name: item.address for item in running.components}
    for part in wanted:
        if part.name not in there:
            raise StackError(f"The stack runs without {part.name}.", "Stop it first: coeval down")
        if there[part.name] != part.address:
            raise StackError(
                f"The stack runs with {part.name} at {there[part.name]}, not at {part.address}.",
                f"Stop it first: coeval down. Or set {part.setting} back.",
            )


@contextmanager
def _exclusive(settings: Settings) -> Iterator[None]:
    root(settings).mkdir(parents=True, exist_ok=True)
    with (root(settings) / "stack.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _end_leftovers(settings: Settings) -> bool:
    """End what outlived its supervisor: the recorded children by pid and creation time, and what they had started."""
    recorded = [item.process for item in read_state(settings).components if item.process]
    alive = {found.pid: found for process in recorded for found in process.session(settings.home)}
    alive |= {found.pid: found for process in recorded if (found := process.find())}
    for process in alive.values():
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive.values(), timeout=DOWN_SECONDS)
    return bool(alive)


def _check_port(component: Component) -> None:
    if not component.port:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((component.host, component.port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise StackError(
                    f"{component.name} cannot listen at {component.address}: {error.strerror}.",
                    f"The local stack runs on this machine only: let {component.setting} name 127.0.0.1.",
                ) from error
            raise StackError(
                f"{component.address}, the address of {component.name}, is taken{_holder(component.port)}.",
                f"Stop that process, or choose another address: {component.setting}=...",
            ) from error


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("inet"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                if connection.pid is None:
                    return " by a process of another user"
                command = shlex.join(psutil.Process(connection.pid).cmdline())
                return f" by pid {connection.pid} ({textwrap.shorten(command, 80)})"
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
            # The supervisor does not stand where coeval.toml is, and its children inherit what it has.
            env={**os.environ, **settings.variables(), **settings.secrets()},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _await_first_state(settings, child)
    except (StackError, KeyboardInterrupt):
        # Until it has said who it is, nobody else can find it.
        child.kill()
        raise


def _await_first_state(settings: Settings, child: subprocess.Popen[bytes]) -> None:
    def spoke() -> bool:
        supervisor = read_state(settings).supervisor
        return child.poll() is not None or (supervisor is not None and supervisor.pid == child.pid)

    wait = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda done: not done),
        wait=tenacity.wait_fixed(0.1),
        stop=tenacity.stop_after_delay(60),
        retry_error_callback=lambda _: False,
    )
    if not wait(spoke) or child.poll() is not None:
        words = _tail(settings, "supervisor")
        raise StackError(f"The supervisor did not start:\n{words}", f"Read {log_path(settings, 'supervisor')}.")


def _undecided(state: StackStatus) -> bool:
    hopeless = any(item.health != "healthy" and item.restarts >= HOPELESS_RESTARTS for item in state.components)
    return state.running and not state.healthy and not hopeless


def _await_healthy(settings: Settings, progress: Progress) -> StackStatus:
    def look() -> StackStatus:
        state = read_state(settings)
        progress(state)
        return state

    wait = tenacity.Retrying(
        retry=tenacity.retry_if_result(_undecided),
        wait=tenacity.wait_fixed(0.25),
        stop=tenacity.stop_after_delay(UP_SECONDS),
        retry_error_callback=lambda call: call.outcome.result() if call.outcome else None,
    )
    state: StackStatus = wait(look)
    if state.healthy:
        return state
    raise _failure(settings, state)


def _failure(settings: Settings, state: StackStatus) -> StackError:
    ill = [item for item in state.components if item.health != "healthy"]
    worst = max(ill, key=lambda item: item.restarts, default=None)
    if worst is None or not state.running:
        name, reason = "supervisor", "The supervisor ended"
    elif worst.restarts >= HOPELESS_RESTARTS:
        name, reason = worst.name, f"{worst.name} ended {worst.restarts} times"
    else:
        name, reason = worst.name, f"{worst.name} did not become healthy within {UP_SECONDS:.0f} s"
    log = log_path(settings, name)
    return StackError(
        f"{reason}; the stack was stopped again. Its last words:\n{_tail(settings, name)}", f"Read {log}."
    )


def _tail(settings: Settings, name: str, lines: int = 12) -> str:
    try:
        return "\n".join(log_path(settings, name).read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log)"
