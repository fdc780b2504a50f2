"""The functions behind derived features: pure, over numpy columns, the same code in serving and in training.

Numbers come as float64 with NaN for null; features are named `view__feature`, request inputs plainly.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def basket_vs_usual(inputs: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Is this basket large for this customer? Null where there is nothing to compare with."""
    usual = inputs["customer_spend__mean_amount_30d"]
    return {"basket_over_usual": inputs["basket_amount"] / np.where(usual == 0, np.nan, usual)}
