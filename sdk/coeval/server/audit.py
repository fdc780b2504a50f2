"""The audit trail: every read of personal features, and every refusal. Written before the answer is given.

Subjects stand in it as keyed digests: whoever has the key file can look up who read about one, and nobody else can tell
who they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from coeval.errors import InfrastructureError, UsageError
from coeval.spec.types import iso

_TRAIL, _KEY = "audit.jsonl", "audit.key"
_KEY_BYTES = 32
_DIGEST_BYTES = 12


class Audit:
    """Appends one JSON line per entry. `directory` gets the trail and the key of the digests, for the owner alone.

    Safe to share between threads, and by several servers on one machine.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = directory / _TRAIL
        self._key = _made_key(directory / _KEY)
        self._lock = threading.Lock()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._file = os.fdopen(descriptor, "ab", buffering=0)
        self._torn = False

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(
        self,
        tenant: str,
        caller: str,
        service: str,
        features: Mapping[str, str],
        entities: Mapping[str, Sequence[Any]],
        request: str,
    ) -> None:
        """Somebody is given personal features (by name, their class) of entities.

        Raises:
            InfrastructureError: it cannot be written down; the answer must not be given.
        """
        entry = {"event": "read", "service": service, "classes": Counter(features.values())}
        subjects = sorted({item for name, values in entities.items() for item in self._digests(tenant, name, values)})
        self._append(tenant, caller, request, {**entry, "subjects": subjects})

    def refused(self, tenant: str, caller: str, what: str, request: str) -> None:
        """Somebody was recognised, and refused what was asked for.

        Raises:
            InfrastructureError: it cannot be written down.
        """
        self._append(tenant, caller, request, {"event": "refused", "what": what})

    def _digests(self, tenant: str, name: str, values: Iterable[Any]) -> Iterator[str]:
        for value in dict.fromkeys(values):
            yield _digest(self._key, tenant, name, value)

    def _append(self, tenant: str, caller: str, request: str, entry: Mapping[str, Any]) -> None:
        document = {
            "at": iso(time.time_ns() // 1000),
            "tenant": tenant,
            "caller": caller,
            "request": request,
            **entry,
        }
        line = json.dumps(document).encode() + b"\n"
        try:
            with self._lock:
                # After a line that was cut off, a new one begins.
                whole = b"\n" + line if self._torn else line
                written = self._file.write(whole)
                self._torn = written != len(whole)
        except OSError as error:
            raise self._failed(str(error)) from error
        if self._torn:
            raise self._failed("no room is left")

    def _failed(self, why: str) -> InfrastructureError:
        return InfrastructureError(f"The audit trail cannot be written: {why}.", "Make room, and ask again.")


def entries_about(directory: Path, tenant: str, subject: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a trail about reads of a subject, given by one of its keys or several: all of them are in the line.

    Raises:
        UsageError: there is no trail.
    """
    try:
        key = (directory / _KEY).read_bytes()
        lines = (directory / _TRAIL).open(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"There is no audit trail to be read: {error}.", "Set COEVAL_HOME to the server's.") from error
    wanted = {_digest(key, tenant, name, value) for name, value in subject.items()}
    with lines:
        for line in lines:
            # What a full disk cut off is no line.
            with suppress(ValueError):
                if wanted.issubset(json.loads(line).get("subjects", ())):
                    yield line


def _digest(key: bytes, tenant: str, name: str, value: object) -> str:
    text = json.dumps([tenant, name, value], default=str)
    return hashlib.blake2b(text.encode(), key=key, digest_size=_DIGEST_BYTES).hexdigest()


def _made_key(path: Path) -> bytes:
    """The key in a file, which is made if it is not there: whole, or not at all, whoever else makes it too."""
    if not path.exists():
        own = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
        with suppress(FileExistsError):
            path.hardlink_to(own)
        own.unlink()
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise UsageError(f"The key of the audit trail, {path}, is damaged.", "Restore it; without it, move both away.")
    return key
