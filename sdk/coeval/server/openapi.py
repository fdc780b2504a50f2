"""What the API says of itself: summaries, schemas, examples. Bodies are judged in `wire`, not by these schemas."""

from __future__ import annotations

from typing import Any

from coeval.server.wire import ARROW
from coeval.service import ServicePlan

_JSON = "application/json"
_NAME: dict[str, Any] = {"type": "string", "minLength": 1}
_SCALAR: dict[str, Any] = {"type": ["integer", "number", "string", "boolean", "null"]}
_COLUMNS: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "array", "items": _SCALAR}}
_LISTS: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "array"}}
_INSTANT: dict[str, Any] = {"type": "string", "format": "date-time"}
_PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["code", "reason", "instruction", "request"],
    "properties": {
        "code": {"type": "string", "description": "Stable across releases."},
        "reason": {"type": "string", "description": "What happened."},
        "instruction": {"type": "string", "description": "What to do."},
        "request": {"type": "string", "description": "The id of the request, as in the log."},
        "details": {"type": "array", "items": {"type": "object"}},
    },
}
_ASK: dict[str, Any] = {
    "type": "object",
    "description": "Either a service or a list of features.",
    "required": ["entities"],
    "additionalProperties": False,
    "properties": {
        "service": _NAME | {"description": "A feature service; NAME@HASH for the definitions of a trained model."},
        "features": {"type": "array", "minItems": 1, "items": _NAME, "description": "view:feature, in this order."},
        "entities": _COLUMNS | {"description": "Entity keys: a column each, one value per entity."},
        "request": _COLUMNS
        | {"description": "Request-time inputs of derived features. Decimals and instants as text."},
        "deadline_ms": {
            "type": "number",
            "exclusiveMinimum": 0,
            "description": "What was not read by then is UNAVAILABLE.",
        },
    },
}
_EXAMPLE = {
    "service": "coupon_propensity",
    "entities": {"household_id": [718, 1024], "store_id": [367, 367]},
    "request": {"basket_amount": ["25.00", "31.50"]},
    "deadline_ms": 50,
}
_STATUS: dict[str, Any] = {"enum": ["PRESENT", "NULL", "EXPIRED", "OVERFLOW", "NOT_FOUND", "UNAVAILABLE"]}
_RESULT: dict[str, Any] = {
    "type": "object",
    "required": ["service", "manifest", "at", "entities", "features", "statuses", "age_seconds"],
    "properties": {
        "service": {"type": "string"},
        "manifest": {"type": "string", "description": "Hash of the definitions that these values were read with."},
        "at": _INSTANT,
        "entities": _LISTS,
        "features": _LISTS | {"description": "int64 as numbers, decimals and instants as text, null for none."},
        "statuses": {"type": "object", "additionalProperties": {"type": "array", "items": _STATUS}},
        "age_seconds": _LISTS | {"description": "By view, since the newest event behind each entity's values."},
    },
}
_FEAST_ASK: dict[str, Any] = {
    "type": "object",
    "required": ["entities"],
    "properties": {
        "feature_service": _NAME,
        "features": {"type": "array", "items": _NAME},
        "entities": _COLUMNS,
        "full_feature_names": {"type": "boolean"},
    },
}
_REFUSALS = {
    401: "No valid credential.",
    403: "The credential does not grant it.",
    404: "No such service, feature, source or manifest.",
    413: "Larger than any request may be.",
    422: "It cannot be understood, or is of the wrong type.",
    429: "More than the tenant may have; Retry-After says when again.",
    503: "The store does not answer, or the server has too much to do; Retry-After says when again.",
}

ABOUT: dict[str, Any] = {
    "version": "1",
    "description": "Features of entities, now. The tenant comes from the credential: `Authorization: Bearer KEY`.",
}


def _answers(schema: dict[str, Any], *refusals: int, **more: Any) -> dict[int | str, dict[str, Any]]:
    found: dict[int | str, dict[str, Any]] = {
        200: {"description": "The answer.", "content": {_JSON: {"schema": schema}, **more}}
    }
    for status in refusals:
        found[status] = {"description": _REFUSALS[status], "content": {_JSON: {"schema": _PROBLEM}}}
    return found


def _body(schema: dict[str, Any], example: object, media_type: str = _JSON) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {media_type: {"schema": schema, "example": example}}}}


_OBJECT: dict[str, Any] = {"type": "object"}
_READ = (401, 403, 404, 413, 422, 429, 503)
_SECURED: dict[str, Any] = {"security": [{"key": []}, {"bearer": []}]}

FEATURES: dict[str, Any] = {
    "summary": "Features of a service, or a list of features.",
    "description": f"With `Accept: {ARROW}` as an Arrow stream, statuses as columns `FEATURE@status`.",
    "responses": _answers(_RESULT, *_READ, **{ARROW: {"schema": {"type": "string", "format": "binary"}}}),
    "openapi_extra": _body(_ASK, _EXAMPLE) | _SECURED,
}
BATCH: dict[str, Any] = {
    "summary": "Several requests in one; each is answered, or refused, for itself.",
    "responses": _answers(
        {"type": "object", "required": ["results"], "properties": {"results": {"type": "array", "items": _OBJECT}}},
        *_READ,
    ),
    "openapi_extra": _body(
        {
            "type": "object",
            "required": ["requests"],
            "additionalProperties": False,
            "properties": {"requests": {"type": "array", "minItems": 1, "maxItems": 20, "items": _ASK}},
        },
        {"requests": [_EXAMPLE]},
    )
    | _SECURED,
}
FEAST: dict[str, Any] = {
    "summary": "The same as Feast's feature server has it.",
    "description": "For clients of Feast: change the URL. Request-time inputs stand among the entities.",
    "responses": _answers(
        {
            "type": "object",
            "required": ["metadata", "results"],
            "properties": {"metadata": _OBJECT, "results": {"type": "array", "items": _OBJECT}},
        },
        *_READ,
    ),
    "openapi_extra": _body(
        _FEAST_ASK, {"feature_service": "coupon_propensity", "entities": {"household_id": [718], "store_id": [367]}}
    )
    | _SECURED,
}
EVENTS: dict[str, Any] = {
    "summary": "Produce events to a source's topic.",
    "description": "One JSON object per line, as it will stand in the topic. If one would be rejected, none is "
    "produced. It may be sent again: duplicates are known by their id.",
    "responses": _answers(
        {
            "type": "object",
            "required": ["source", "topic", "positions"],
            "properties": {
                "source": {"type": "string"},
                "topic": {"type": "string"},
                "positions": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
            },
        },
        *_READ,
    ),
    "openapi_extra": _body(
        {"type": "string"}, '{"event_id": "e-1", "purchased_at": "2026-11-21T10:00:00Z"}\n', "application/x-ndjson"
    )
    | _SECURED
    | {"parameters": [{"name": "source", "in": "path", "required": True, "schema": _NAME}]},
}
SERVICES: dict[str, Any] = {
    "summary": "The services that this credential may read: what they take and give.",
    "responses": _answers(_OBJECT, 401, 429, 503),
    "openapi_extra": _SECURED,
}
MANIFEST: dict[str, Any] = {
    "summary": "The definitions that are followed now.",
    "responses": _answers(_OBJECT, 401, 403, 429, 503),
    "openapi_extra": _SECURED,
}
SLA: dict[str, Any] = {
    "summary": "What services promise, and what they kept in this process.",
    "responses": _answers(_OBJECT, 401, 403, 429, 503),
    "openapi_extra": _SECURED,
}
HEALTH: dict[str, Any] = {"summary": "Whether the process is up.", "responses": _answers(_OBJECT)}
READY: dict[str, Any] = {"summary": "Whether it can serve every tenant.", "responses": _answers(_OBJECT, 503)}

SCHEMES: dict[str, Any] = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a token of the tenant's issuer."},
}


def described(plan: ServicePlan) -> dict[str, Any]:
    """What a service takes and gives."""
    service = plan.service
    return {
        "name": service.name,
        "description": service.description,
        "owner": service.owner,
        "deprecated": service.deprecated,
        "entities": {field.name: str(field.type) for field in plan.keys.values()},
        "request": {field.name: str(field.type) for field in plan.requested.values()},
        "features": {name: {"type": str(field.type), "pii": field.pii} for name, field in plan.fields.items()},
    }
