"""Requests and answers: JSON and Arrow to what the SDK takes, results to JSON and Arrow. It knows no HTTP. Pure.

JSON holds int64 as numbers, decimals and instants as text (RFC 3339), so that nothing is rounded on its way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from coeval.errors import EntityKeyError, RequestError
from coeval.feast_words import vectors
from coeval.online.result import FeatureResult, Status
from coeval.server.problems import TooLargeError
from coeval.service import Asked, ServicePlan
from coeval.spec.model import Field
from coeval.spec.types import Kind, instant, iso, parse_literal, to_logical

ARROW = "application/vnd.apache.arrow.stream"
STATUS_SUFFIX = "@status"
"""What the Arrow column of a feature's statuses ends with."""
_NAMES = np.array([status.name for status in Status], dtype=object)
_MOST_NAMES, _LONGEST_NAME = 1_000, 256
_AS_TEXT = (Kind.DECIMAL, Kind.TIMESTAMP, Kind.DATE)
_SCALARS = {int, float, str, bool, type(None)}


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request asks for. Nothing of it is believed yet but its shape. `deadline` is in seconds."""

    asked: Asked
    entities: Mapping[str, Sequence[Any]]
    request: Mapping[str, Sequence[Any]]
    deadline: float | None = None

    @property
    def rows(self) -> int:
        """How many entities it names."""
        return max((len(values) for values in self.entities.values()), default=0)


def document_of(body: bytes) -> dict[str, Any]:
    """The JSON object of a body.

    Raises:
        RequestError: it is none.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"The body is not JSON: {error}.", "Send a JSON object in UTF-8.") from error
    if not isinstance(found, dict):
        raise RequestError("The body is not a JSON object.", "Send {...}; /docs shows examples.")
    return found


def ask_of(document: Mapping[str, Any], max_rows: int) -> Ask:
    """A request for features.

    Raises:
        RequestError, EntityKeyError: it is not of the form that /docs shows.
        TooLargeError: it names more entities than a request may.
    """
    _only(document, {"service", "features", "entities", "request", "deadline_ms"})
    service, features = document.get("service"), document.get("features")
    if (service is None) == (features is None):
        raise RequestError("Either service or features is needed.", 'Send {"service": "...", "entities": {...}}.')
    if service is not None and not isinstance(service, str):
        raise RequestError("service is not a text.", "Give the name of a feature service.")
    asked = _name(service) if service is not None else texts("features", features)
    deadline = document.get("deadline_ms")
    if deadline is not None and (isinstance(deadline, bool) or not isinstance(deadline, int | float) or deadline <= 0):
        raise RequestError("deadline_ms is not a positive number.", "Give milliseconds from now, or leave it out.")
    return Ask(
        asked,
        _scalars(_columns("entities", document.get("entities", {})), max_rows),
        _scalars(_columns("request", document.get("request", {})), max_rows),
        None if deadline is None else deadline / 1e3,
    )


def asks_of(document: Mapping[str, Any], most: int) -> list[Any]:
    """The requests of a batch, as they are.

    Raises:
        RequestError: there are none, or they are no list.
        TooLargeError: there are too many.
    """
    _only(document, {"requests"})
    asks = document.get("requests")
    if not isinstance(asks, list) or not asks:
        raise RequestError("requests is not a list of requests.", 'Send {"requests": [{...}, ...]}.')
    if len(asks) > most:
        raise TooLargeError(f"{len(asks)} requests are sent in one.", f"Send at most {most}.")
    return asks


def feast_ask_of(document: Mapping[str, Any], max_rows: int) -> Ask:
    """A request as Feast's server takes it: request-time inputs stand among the entities.

    Raises:
        RequestError, EntityKeyError, TooLargeError: as `ask_of`.
    """
    service = document.get("feature_service")
    if service is not None and not isinstance(service, str):
        raise RequestError("feature_service is not a text.", "Give the name of a feature service.")
    asked = _name(service) if service else texts("features", document.get("features", []))
    return Ask(asked, _scalars(_columns("entities", document.get("entities", {})), max_rows), {})


def texts(name: str, value: Any) -> tuple[str, ...]:
    """A list of names, each once.

    Raises:
        RequestError: it is none, or empty.
        TooLargeError: there are too many, or they are too long for names.
    """
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise RequestError(f"{name} is not a list of names.", 'Give names: ["view:feature", ...].')
    if len(value) > _MOST_NAMES:
        raise TooLargeError(f"{name} holds {len(value)} names.", f"Ask for at most {_MOST_NAMES}.")
    return tuple(dict.fromkeys(_name(item) for item in value))


def _name(text: str) -> str:
    if len(text) > _LONGEST_NAME:
        raise TooLargeError(f"A name has {len(text)} letters.", "Give the name of a service or a feature.")
    return text


def _only(document: Mapping[str, Any], known: set[str]) -> None:
    if stray := sorted(document.keys() - known):
        raise RequestError(f"There is no {stray[0]!r} in a request.", f"It has: {', '.join(sorted(known))}.")


def _columns(name: str, value: Any) -> dict[str, list[Any]]:
    if not isinstance(value, dict) or not all(isinstance(item, list) for item in value.values()):
        raise RequestError(f"{name} is not an object of lists.", f'Give columns: {{"{name}": {{"name": [...]}}}}.')
    return value


def _scalars(columns: Mapping[str, Sequence[Any]], max_rows: int) -> Mapping[str, Sequence[Any]]:
    for name, values in columns.items():
        if len(values) > max_rows:
            raise TooLargeError(f"{len(values)} entities are asked for.", f"Ask for at most {max_rows} at once.")
        if not _SCALARS.issuperset(map(type, values)):
            raise EntityKeyError(f"{name} holds lists or objects.", "Give one number or text per entity.")
    return columns


def typed(ask: Ask, plan: ServicePlan) -> Ask:
    """With decimals, instants and dates made of the texts that JSON has for them.

    Raises:
        EntityKeyError, RequestError: a text is no literal of its type, or a column is none that the service takes.
    """
    if stray := sorted(ask.entities.keys() - plan.keys.keys()):
        raise EntityKeyError(f"{stray[0]!r} is no key of {plan.label}.", f"It takes: {', '.join(plan.keys)}.")
    entities = {name: _typed(plan.keys.get(name), values, EntityKeyError) for name, values in ask.entities.items()}
    request = {name: _typed(plan.requested.get(name), values, RequestError) for name, values in ask.request.items()}
    return Ask(ask.asked, entities, request, ask.deadline)


def _typed(field: Field | None, values: Sequence[Any], error: type[EntityKeyError | RequestError]) -> Sequence[Any]:
    if field is None or field.type.kind not in _AS_TEXT:
        return values
    try:
        return [
            to_logical(field.type, parse_literal(field.type, item if isinstance(item, str) else repr(item)))
            if isinstance(item, str | float)
            else item
            for item in values
        ]
    except (ValueError, OverflowError) as found:
        raise error(f"{field.name}: {found}.", f"Give literals of {field.type}, as text.") from found


def to_json(result: FeatureResult, label: str) -> bytes:
    """A result as JSON."""
    return orjson.dumps(to_document(result, label), default=_as_text, option=_OPTIONS)


def dumps(document: object) -> bytes:
    """Any document of this module as JSON."""
    return orjson.dumps(document, default=_as_text, option=_OPTIONS)


_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z


def to_document(result: FeatureResult, label: str) -> dict[str, Any]:
    """A result as a document of what JSON knows: see the OpenAPI description."""
    values = result.to_dict()
    names = result.names
    statuses = _NAMES[result.codes.T].tolist()
    return {
        "service": label,
        "manifest": result.manifest_hash,
        "at": instant(result.at),
        "entities": {name: values[name] for name in result.entities},
        "features": {name: values[name] for name in names},
        "statuses": dict(zip(names, statuses, strict=True)),
        "age_seconds": result.age,
    }


def to_feast(plan: ServicePlan, result: FeatureResult, full_names: bool) -> dict[str, Any]:
    """A result as Feast's server writes it; see `coeval.feast_words`.

    Raises:
        RequestError: without full names, two features are called the same.
    """
    found = list(vectors(plan, result, full_names))
    return {
        "metadata": {"feature_names": [item.name for item in found]},
        "results": [
            {
                "values": item.values,
                "statuses": item.statuses,
                "event_timestamps": [instant(at) for at in item.times],
            }
            for item in found
        ],
    }


def to_arrow(result: FeatureResult, label: str) -> bytes:
    """A result as an Arrow IPC stream: entities, features, an int8 column of statuses each; the rest as metadata."""
    table = result.to_arrow()
    for name, codes in zip(result.names, result.codes.T, strict=True):
        table = table.append_column(f"{name}{STATUS_SUFFIX}", pa.array(np.ascontiguousarray(codes)))
    metadata = {
        "service": label,
        "manifest": result.manifest_hash,
        "at": iso(result.at),
        "statuses": ",".join(f"{status.value}={status.name}" for status in Status),
    }
    table = table.replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    found: bytes = sink.getvalue().to_pybytes()
    return found


def _as_text(value: object) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    raise TypeError(f"{type(value).__name__} has no JSON form")
