"""Rejects of the payments of the test catalog, with the reason for each, and a document that is good."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from coeval.spec.records import Reason
from coeval.spec.types import micros

START = micros(datetime(2026, 3, 20, tzinfo=UTC))
GOOD = {"event_id": "e", "paid_at": "2026-03-20T10:00:00Z", "card_id": 1, "merchant_id": "m", "amount": "1.00"}
POISON = (
    (Reason.BAD_LITERAL, json.dumps({**GOOD, "event_id": "scale", "amount": "12.505"}).encode()),
    (Reason.BAD_LITERAL, json.dumps({**GOOD, "event_id": "words", "amount": "twelve", "points": "x"}).encode()),
    (Reason.NULL_REQUIRED, json.dumps({**GOOD, "event_id": "nobody", "card_id": None}).encode()),
    (Reason.UNPARSEABLE, b'{"event_id": "cut o'),
    (Reason.DUPLICATE_FIELD, b'{"event_id": "twice", "amount": "1.00", "amount": "2.00"}'),
    (Reason.FUTURE_DATED, json.dumps({**GOOD, "event_id": "ahead", "paid_at": "2026-03-21T10:00:00Z"}).encode()),
)
