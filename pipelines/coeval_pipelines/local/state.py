"""What the supervisor says of its children, in one file: written atomically, read by anyone."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from coeval.settings import Settings

from coeval_pipelines.local.components import root


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
            alive = found.create_time() == self.created and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return found if alive else None


@dataclass(frozen=True, slots=True)
class ComponentStatus:
    """One component as its supervisor sees it: health is starting, healthy, unhealthy or stopped."""

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
    path = state_path(settings)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(status), indent=1))
    partial.replace(path)


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


def _process(document: dict[str, float] | None) -> Process | None:
    return None if document is None else Process(int(document["pid"]), document["created"])
