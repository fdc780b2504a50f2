"""What the supervisor says of its children, in one file: written atomically, read by anyone."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from coeval.files import write_whole
from coeval.settings import Settings
from coeval_pipelines.local.components import root

_SAME_SECONDS = 2.0
"""Creation times are counted from the boot time, which the kernel may give a second earlier or later."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process that cannot be mistaken: a pid may be used again, with its creation time it is unique."""

    pid: int
    created: float

    @staticmethod
    def of(pid: int) -> Process | None:
        """The process with that pid now."""
        try:
            return Process(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return None

    def find(self) -> psutil.Process | None:
        """The same process if it is still there and no zombie."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.created) < _SAME_SECONDS
            alive = same and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return found if alive else None

    def session(self, home: Path) -> list[psutil.Process]:
        """What runs in the session that it led, itself included, and works for the stack in `home`.

        A session outlives its leader. That its members carry our COEVAL_HOME tells them from those of a later process
        that was given the same number.
        """
        return [found for found in psutil.process_iter() if _works_in(found, self.pid, home)]


@dataclass(frozen=True, slots=True)
class ComponentStatus:
    """One component as its supervisor sees it.

    Health is starting, healthy, unhealthy (it no longer answers) or stopped.
    """

    name: str
    address: str
    health: str
    restarts: int
    log: str
    process: Process | None = None


@dataclass(frozen=True, slots=True)
class StackStatus:
    """The stack: its supervisor and its components in starting order."""

    supervisor: Process | None
    components: tuple[ComponentStatus, ...] = ()

    @property
    def running(self) -> bool:
        """Whether the supervisor is alive."""
        return self.supervisor is not None and self.supervisor.find() is not None

    @property
    def healthy(self) -> bool:
        """Whether the supervisor is alive and every component healthy."""
        return self.running and all(item.health == "healthy" for item in self.components)


def state_path(settings: Settings) -> Path:
    """The file of the stack's state."""
    return root(settings) / "stack.json"


def write_state(settings: Settings, status: StackStatus) -> None:
    """Write the state, at once or not at all."""
    write_whole(state_path(settings), json.dumps(asdict(status), indent=1))


def read_state(settings: Settings) -> StackStatus:
    """The state as last written; an empty one where there is none or it is damaged."""
    try:
        document = json.loads(state_path(settings).read_text())
        return StackStatus(
            _process(document["supervisor"]),
            tuple(ComponentStatus(**{**item, "process": _process(item["process"])}) for item in document["components"]),
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return StackStatus(None)


def _works_in(process: psutil.Process, session: int, home: Path) -> bool:
    try:
        return os.getsid(process.pid) == session and process.environ().get("COEVAL_HOME") == str(home.resolve())
    except (OSError, psutil.Error):
        return False


def _process(document: dict[str, float] | None) -> Process | None:
    return None if document is None else Process(int(document["pid"]), document["created"])
