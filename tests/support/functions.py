"""Derived feature functions of the test catalog."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray


def against_usual(inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The payment over the usual payment."""
    return {"ratio": inputs["payment_amount"] / inputs["card_spend__mean_amount_30d"]}
