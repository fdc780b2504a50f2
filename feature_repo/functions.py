"""The functions behind derived features: pure, over numpy columns, the same code in serving and in training.

Numbers come as float64 with NaN for null; features are named `view__feature`, request inputs plainly. Null in, null
out; what cannot be divided is null.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def spend_vs_usual(inputs: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Is this basket, and this week, large for this household?"""
    basket = inputs["basket_amount"]
    week = inputs["household_spend__sum_amount_7d"]
    month = inputs["household_spend__sum_amount_30d"]
    usual_line = inputs["household_spend__mean_amount_30d"]
    return {
        "basket_in_usual_lines": _ratio(basket, usual_line),
        "basket_share_of_week": _ratio(basket, basket + week),
        "week_pace": _ratio(week / 7, month / 30),
    }


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = part / np.where(whole == 0, np.nan, whole)
    return result
