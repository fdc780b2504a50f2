"""Events over HTTP: judged by the rules of the log, produced to the source's topic, never written to Redis."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from coeval.access.tenants import Grant
from coeval.engines import engine
from coeval.errors import EventError, MissingExtraError, RequestError, UnknownFeatureError
from coeval.server.problems import TooLargeError
from coeval.spec.model import EventSource
from coeval.spec.records import Event, Reason, Record, faults, parse_record

if TYPE_CHECKING:
    from coeval.settings import Settings
    from coeval.spec.manifest import Manifest

Position = tuple[int, int]
"""Partition and offset."""
_MOST_FAULTS = 20
_LONGEST = 900_000
"""Bytes of an event: what brokers take unless they are told otherwise, less the envelope."""


class Producer(Protocol):
    """Produces records. Safe to share between threads; calls block."""

    def send(self, topic: str, records: Sequence[tuple[bytes, bytes]], seconds: float) -> list[Position]:
        """Produce (key, value) pairs, and give where each stands once the broker has them all.

        Raises:
            BrokerError: it does not have them all in time; those that it has stay.
        """

    def close(self) -> None:
        """Let go of the broker."""


def open_engine(name: str, settings: Settings) -> Any:
    """An engine of the pipelines, by its entry point, opened with settings.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return engine(name, "streaming")(settings)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{error.name} is not installed.", "pip install 'coeval[streaming]'") from error


def source_of(manifest: Manifest, name: str, grant: Grant) -> EventSource:
    """The event source of that name, which may be written to.

    Raises:
        UnknownFeatureError: there is none.
        RequestError: it has columns that stand beside the JSON.
    """
    found = next((item for item in manifest.event_sources if item.name == name), None)
    if found is None:
        names = ", ".join(item.name for item in manifest.event_sources if grant.writes(item.name)) or "none"
        raise UnknownFeatureError("There is no such event source.", f"This credential may write to: {names}.")
    beside = [field.name for field in found.fields if field.origin]
    if beside:
        raise RequestError(
            f"{beside[0]} of {name} stands in a record's key or headers, which this route does not write.",
            f"Produce to the topic {found.topic}.",
        )
    return found


def records_of(source: EventSource, body: bytes, most: int) -> list[tuple[bytes, bytes]]:
    """The records of a body, one line each, as they will stand in the topic: the event's id is the key.

    The same event always goes to the same partition, so one that is sent again is known for a duplicate.

    Raises:
        EventError: some would be rejected; `details` says which and why. None is to be produced.
        TooLargeError: there are more than a request may have.
    """
    lines = [line for line in body.split(b"\n") if line.strip()]
    if not lines:
        raise EventError("The body holds no event.", "Send one JSON object per line.")
    if len(lines) > most:
        raise TooLargeError(f"{len(lines)} events are sent.", f"Send at most {most} at once.")
    longest = max(map(len, lines))
    if longest > _LONGEST:
        raise TooLargeError(f"An event has {longest} bytes.", f"No event may have more than {_LONGEST}.")
    now = time.time_ns() // 1000
    records = [Record(line, now, -1, number) for number, line in enumerate(lines)]
    judged = [parse_record(source, record) for record in records]
    wrong = [record for record, outcome in zip(records, judged, strict=True) if isinstance(outcome, Reason)]
    if wrong:
        raise EventError(
            f"{len(wrong)} of {len(lines)} events would be rejected; none was produced.",
            "Correct them (see details), and send all again.",
            [
                {"line": record.offset + 1, "field": field, "reason": str(reason), "found": said}
                for record in wrong[:_MOST_FAULTS]
                for field, reason, said in faults(source, record)
            ],
        )
    return [
        (event.event_id.encode(), line) for event, line in zip(judged, lines, strict=True) if isinstance(event, Event)
    ]
