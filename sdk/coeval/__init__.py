"""Coeval: a feature store whose online and offline values cannot drift apart.

`connect()` gives a store that serves `get_features` to models, and `get_training_set` to those who make them.
Importing this module loads neither an engine nor Feast, pandas or pyarrow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coeval.client import FeatureStore, connect
    from coeval.online.result import FeatureResult, Status
    from coeval.training import Labels, TrainingSet

__version__ = "0.1.0"
__all__ = ["FeatureResult", "FeatureStore", "Labels", "Status", "TrainingSet", "connect"]

_HOMES = {
    "FeatureStore": "coeval.client",
    "connect": "coeval.client",
    "FeatureResult": "coeval.online.result",
    "Labels": "coeval.training",
    "Status": "coeval.online.result",
    "TrainingSet": "coeval.training",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'coeval' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
