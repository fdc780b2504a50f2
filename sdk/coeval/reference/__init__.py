"""The oracle: the contract in plain Python, slow and obvious. Pure; every engine is tested against it."""

from coeval.reference.explain import Contribution, Explanation, Part, explain
from coeval.reference.oracle import Value, training_set, value_at, visible_events

__all__ = ["Contribution", "Explanation", "Part", "Value", "explain", "training_set", "value_at", "visible_events"]
