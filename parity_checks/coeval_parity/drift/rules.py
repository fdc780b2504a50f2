"""What counts as drift: thresholds by measure and by feature, how much chance is allowed. It reads one JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic import Field as Bound

from coeval.errors import UsageError


class Kind(StrEnum):
    """How a feature's values are compared."""

    NUMBER = "number"
    """By size: bins of equally many baseline rows, and the distribution functions."""
    CATEGORY = "category"
    """By the shares of the most frequent values, and of all others together."""
    IDENTIFIER = "identifier"
    """Values that name something: only whether they are there, and how many different ones."""
    SKIP = "skip"
    """Not at all."""


@dataclass(frozen=True, slots=True)
class Limits:
    """From when on a distance matters, whatever chance says. See docs/drift.md for what each measures."""

    psi: float = 0.25
    ks: float = 0.15
    js: float = 0.2
    wasserstein: float = 0.3
    nulls: float = 0.05
    distinct: float = 0.5


@dataclass(frozen=True, slots=True)
class Rules:
    """What counts as drift. `features` maps patterns of names (`*`, `?`) to limits and kinds; the last that fits wins.

    `alpha` is the chance that a run in which nothing changed finds anything, as far as rows are independent; `per` the
    column whose rows are not (None: the finest entity key that is there). A window may be `rhythm` times as far off as
    the worst of the windows of the same weekday before it. Below `rows` rows nothing is judged.
    """

    limits: Limits = field(default_factory=Limits)
    features: Mapping[str, tuple[Mapping[str, float], Kind | None]] = field(default_factory=dict)
    alpha: float = 0.01
    per: str | None = None
    rhythm: float = 1.5
    rows: int = 50
    bins: int = 10
    categories: int = 20

    def of(self, feature: str) -> tuple[Limits, Kind | None]:
        """The limits of a feature, and its kind where a rule names it."""
        limits, kind = self.limits, None
        for pattern, (changed, named) in self.features.items():
            if fnmatchcase(feature, pattern):
                limits, kind = replace(limits, **changed), named or kind
        return limits, kind


_Distance = Annotated[float, Bound(ge=0)]


class _LimitsFile(BaseModel):
    model_config = ConfigDict(extra="forbid")
    psi: _Distance | None = None
    ks: _Distance | None = None
    js: _Distance | None = None
    wasserstein: _Distance | None = None
    nulls: _Distance | None = None
    distinct: _Distance | None = None

    def stated(self) -> dict[str, float]:
        """The limits that are named."""
        return self.model_dump(exclude_none=True, exclude={"kind"})


class _FeatureFile(_LimitsFile):
    kind: Kind | None = None


class _RulesFile(BaseModel):
    model_config = ConfigDict(extra="forbid")
    limits: _LimitsFile = _LimitsFile()
    features: dict[str, _FeatureFile] = {}
    alpha: Annotated[float, Bound(gt=0, lt=1)] = 0.01
    per: str | None = None
    rhythm: _Distance = 1.5


def read_rules(path: Path | None) -> Rules:
    """The rules of a JSON file, or those that hold without one.

    Raises:
        UsageError: the file is not there, or says something that is not known.
    """
    if path is None:
        return Rules()
    try:
        found = _RulesFile.model_validate(json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise UsageError(f"There are no drift rules at {path}.", "Write them, or leave out --rules.") from error
    except (ValidationError, ValueError) as error:
        said = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(map(str, said["loc"])) or "the file"
        raise UsageError(
            f"The drift rules {path} cannot be read: {where}: {said['msg']}.", "See docs/drift.md."
        ) from error
    features = {name: (item.stated(), item.kind) for name, item in found.features.items()}
    limits = replace(Limits(), **found.limits.stated())
    return Rules(limits, features, found.alpha, found.per, found.rhythm)
