"""The serving log: what was answered for a sample of entities, for the parity checker to compute again.

A service's entity is in the sample or not by a hash of all its keys, so the history of one that is in it is whole. Rows
go to a queue of bounded length and from there to the log in a thread: when the queue is full they are dropped and
counted. A request is never kept waiting.
"""

from __future__ import annotations

import hashlib
import json
import queue
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from coeval.errors import CoevalError
from coeval.online.result import FeatureResult, Status
from coeval.spec.keys import encode_keys
from coeval.spec.types import iso, to_physical

if TYPE_CHECKING:
    from coeval.service import ServicePlan

SCHEMA = 1
_LEFT_OUT = ("personal", "sensitive")
_CAPACITY = 10_000
_AT_ONCE = 500
_WAIT_SECONDS = 0.2
_log: Any = structlog.get_logger("coeval.serving_log")


class Sink(Protocol):
    """Where rows go: (tenant, entity key, JSON). Calls may block."""

    def write(self, rows: Sequence[tuple[str, bytes, bytes]]) -> None:
        """Keep them.

        Raises:
            CoevalError: they could not be kept.
        """

    def close(self) -> None:
        """Let go of it."""


def sampled(key: str, share: float) -> bool:
    """Whether an entity key is in a sample of that share: the same everywhere, and in every greater share."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2.0**64


class ServingLog:
    """Offers what was served to a sink, which is opened when there is something for it.

    `note` is told what became of how many rows: logged, dropped or failed. Features that describe a person (of the
    classes personal and sensitive) are left out.
    """

    def __init__(
        self, connect: Callable[[], Sink], share: float, note: Callable[[str, int], None], capacity: int = _CAPACITY
    ) -> None:
        self._connect = connect
        self._sink: Sink | None = None
        self._share = share
        self._note = note
        self._queue: queue.Queue[tuple[str, bytes, bytes]] = queue.Queue(capacity)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="serving-log", daemon=True)
        self._thread.start()

    def offer(self, tenant: str, plan: ServicePlan, result: FeatureResult) -> None:
        """Log the rows of a result that are in the sample. It never blocks."""
        fields = tuple(plan.keys.values())
        columns = [[to_physical(field.type, item) for item in result.entities[field.name]] for field in fields]
        encoded = encode_keys(fields, columns)
        chosen = [row for row, key in enumerate(encoded) if sampled(key, self._share)]
        if not chosen:
            return
        dropped = 0
        for row, document in zip(chosen, _documents(tenant, plan, result, chosen), strict=True):
            try:
                self._queue.put_nowait((tenant, encoded[row].encode(), document))
            except queue.Full:
                dropped += 1
        if dropped:
            self._note("dropped", dropped)

    def close(self) -> None:
        """Write what is queued, and stop."""
        self._stop.set()
        self._thread.join()
        if self._sink is not None:
            self._sink.close()

    def _run(self) -> None:
        while not (self._stop.is_set() and self._queue.empty()):
            rows = self._take()
            if not rows:
                continue
            try:
                if self._sink is None:
                    self._sink = self._connect()
                self._sink.write(rows)
            except CoevalError as error:
                _log.warning("rows of the serving log are lost", rows=len(rows), reason=error.reason)
                self._note("failed", len(rows))
            else:
                self._note("logged", len(rows))

    def _take(self) -> list[tuple[str, bytes, bytes]]:
        try:
            rows = [self._queue.get(timeout=_WAIT_SECONDS)]
        except queue.Empty:
            return []
        while len(rows) < _AT_ONCE:
            try:
                rows.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return rows


def _documents(tenant: str, plan: ServicePlan, result: FeatureResult, rows: Sequence[int]) -> list[bytes]:
    """A JSON document per row: with when, by which definitions, for which keys which values and statuses were given."""
    shared = {
        "schema": SCHEMA,
        "tenant": tenant,
        "service": plan.label,
        "manifest": result.manifest_hash,
        "at": iso(result.at),
    }
    values = result.to_dict()
    codes = result.codes
    documents = []
    logged = [(at, name) for at, name in enumerate(result.names) if plan.fields[name].pii not in _LEFT_OUT]
    for row in rows:
        features = {name: values[name][row] for _, name in logged}
        statuses = {name: Status(int(codes[row, at])).name for at, name in logged}
        entities = {name: result.entities[name][row] for name in result.entities}
        document = {**shared, "entities": entities, "features": features, "statuses": statuses}
        documents.append(json.dumps(document, default=str).encode())
    return documents
