"""Kills a command with signal 9 at a random moment, Python or the JVM, looks, runs it again, and compares."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil
import pytest
import typer
from typer.testing import CliRunner

from coeval.errors import EngineError
from coeval.settings import Settings, load_settings
from coeval_pipelines.coordination.backfill_commands import register as register_backfill
from coeval_pipelines.offline.commands import register as register_offline
from tests.chaos.offline_phases import Phase

DRIVER, JVM = "driver", "JVM"
Victim = Literal["driver", "JVM"]
ENDS_SECONDS = 120.0
"""How long the rest of a command may take to end once a part of it was killed."""
_COMMAND_SECONDS = 600.0
_LOG = "command.log"
_TRIES, _LOOK_SECONDS = 5, 0.05


@dataclass(slots=True)
class Kill:
    """One kill and what came of it. Times are in seconds."""

    phase: str
    victim: Victim
    at: float
    of: float
    """How long an undisturbed run took: the moment was drawn from that."""
    struck: bool = False
    """Whether the victim was there to be killed, rather than over by then."""
    exit_code: int | None = None
    """Of the driver, whose JVM was killed."""
    said: str = ""
    again: float = 0.0
    """How long it took to run the command again, to its end."""
    wrong: list[str] = field(default_factory=list)


def run_command(settings: Settings, command: Sequence[str]) -> None:
    """Run a `coeval` command to its end, in a process of its own.

    Raises:
        EngineError: it failed; what it said last is the reason.
    """
    process = _start(settings, command)
    if process.wait(_COMMAND_SECONDS):
        raise EngineError(f"coeval {' '.join(command)} failed: {_said(settings)}", f"Read {settings.home / _LOG}")


def run_here(settings: Settings, command: Sequence[str]) -> None:
    """Run a `coeval` command in this process, in the Spark session that it has: a new one takes longer than the rest.

    Raises:
        EngineError: it failed.
    """
    app = typer.Typer()
    register_offline(app)
    register_backfill(app)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.variables().items():
            patch.setenv(name, value)
        load_settings.cache_clear()
        try:
            done = CliRunner().invoke(app, list(command))
        finally:
            load_settings.cache_clear()
    if done.exit_code:
        raise EngineError(f"coeval {' '.join(command)} failed: {done.exception}") from done.exception


def _start(settings: Settings, command: Sequence[str]) -> subprocess.Popen[bytes]:
    coeval = str(Path(sys.executable).with_name("coeval"))
    with (settings.home / _LOG).open("ab") as log:
        environment = os.environ | settings.variables()
        return subprocess.Popen([coeval, *command], env=environment, stdout=log, stderr=log)


def _said(settings: Settings) -> str:
    """The complaint of the last command, or its last line."""
    lines = (settings.home / _LOG).read_text().strip().splitlines()
    return next((line for line in reversed(lines) if line.startswith("coeval:")), lines[-1] if lines else "")


class Study:
    """Kills of several commands; each begins in a home of its own."""

    def __init__(self, seed: int, say: Callable[[str], None] = lambda _: None) -> None:
        self._random, self._say = random.Random(seed), say
        self._number = 0

    def run(self, phase: Phase, times: int, seconds: float | None = None) -> Iterator[Kill]:
        """Run the command once undisturbed, then kill it so often, at moments within the `seconds` that it takes: as
        the undisturbed run did, in a process of its own, where that is not given."""
        home, began = phase.home(), time.monotonic()
        (phase.world.run if seconds else run_command)(home, phase.command)
        took = seconds or time.monotonic() - began
        phase.learn(home)
        expected = phase.content(home)
        self._say(f"{phase.name}: {took:.1f} s undisturbed, content {expected[:12]}")
        for _ in range(times):
            yield self._kill(phase, took, expected)

    def _kill(self, phase: Phase, took: float, expected: str) -> Kill:
        victim: Victim = (DRIVER, JVM)[self._number % 2]
        self._number += 1
        for _ in range(_TRIES):
            home = phase.home()
            kill = Kill(phase.name, victim, round(self._random.uniform(0, took), 2), round(took, 2))
            left = strike(home, phase.command, kill)
            if kill.struck:
                break
        kill.wrong += phase.half(home)
        began = time.monotonic()
        try:
            phase.world.run(home, phase.command)
        except EngineError as error:
            kill.wrong.append(error.reason)
        kill.again = round(time.monotonic() - began, 1)
        found = phase.content(home)
        if found != expected:
            kill.wrong.append(f"the content is {found[:12]} in the end, not {expected[:12]}")
        kill.wrong += end(left)
        if not kill.struck:
            kill.wrong.append("it was always over before it could be killed")
        self._say(f"{phase.name}: {victim} killed at {kill.at} s, {'; '.join(kill.wrong) or 'right'}")
        return kill


def strike(settings: Settings, command: Sequence[str], kill: Kill) -> list[psutil.Process]:
    """Start a command and kill it; what is left of it is given back, still running: nobody cleans up after a kill."""
    process = _start(settings, command)
    try:
        process.wait(kill.at)
        return []
    except subprocess.TimeoutExpired:
        pass
    children = _children(process, wanted=kill.victim == JVM)
    victims = [child for child in children if _name(child) == "java"] if kill.victim == JVM else [process]
    if not victims:
        return children
    kill.struck = True
    victims[0].kill()
    try:
        code = process.wait(ENDS_SECONDS)
    except subprocess.TimeoutExpired:
        kill.wrong.append(f"the command has not ended {ENDS_SECONDS:.0f} s after its JVM was killed")
        process.kill()
        code = process.wait()
    if kill.victim == JVM:
        kill.exit_code, kill.said = code, _said(settings)
        if code not in (0, 3):
            kill.wrong.append(f"the command ended with {code}: {kill.said}")
    return children


def _children(process: subprocess.Popen[bytes], wanted: bool) -> list[psutil.Process]:
    """The processes that a command has begun; where its JVM is `wanted`, as soon as that is one of them."""
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            found = psutil.Process(process.pid).children(recursive=True)
            if not wanted or any(_name(child) == "java" for child in found):
                return found
        time.sleep(_LOOK_SECONDS)
    return []


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def end(left: Sequence[psutil.Process]) -> list[str]:
    """Wait until what a killed command has left is gone; what is not gone by itself, in words."""
    _, alive = psutil.wait_procs(left, ENDS_SECONDS)
    names = [f"{_name(process)} is still there" for process in alive]
    for process in alive:
        process.kill()
    return names
