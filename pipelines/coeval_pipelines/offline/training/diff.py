"""What differs between two training sets, and why: from their documents alone. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from coeval_pipelines.offline.training.registry import Document

_BINS = 10
_LEAST = 1e-4
"""The share that an empty bucket is taken for."""
MODERATE, LARGE = 0.1, 0.25
"""Where the population stability index is usually called a moderate and a large shift."""


@dataclass(frozen=True, slots=True)
class Shift:
    """A column of both: its population stability index, and its share of nulls and mean in one and the other."""

    column: str
    psi: float
    null_share: tuple[float, float]
    mean: tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs. `same`: the same rows. `columns` are those of one alone, or of another type, in words."""

    same: bool
    rows: tuple[int, int]
    columns: tuple[str, ...]
    shifts: tuple[Shift, ...]
    why: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)


def difference(one: Document, other: Document) -> Difference:
    """What differs between two training sets; shifts of columns that both have, the greatest first."""
    ours, theirs = one.profile["columns"], other.profile["columns"]
    rows = (one.profile["rows"], other.profile["rows"])
    both = [name for name in ours if name in theirs and ours[name]["kind"] == theirs[name]["kind"]]
    shifts = [_shift(name, ours[name], theirs[name], rows) for name in both]
    return Difference(
        same=one.lineage["content_hash"] == other.lineage["content_hash"],
        rows=rows,
        columns=tuple(_columns(ours, theirs)),
        shifts=tuple(sorted(shifts, key=lambda item: (-item.psi, item.column))),
        why=tuple(_why(one.lineage, other.lineage)),
    )


def _columns(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    found = [f"- {name}" for name in ours if name not in theirs]
    found += [f"+ {name}" for name in theirs if name not in ours]
    return found + [
        f"{name} {ours[name]['type']} -> {theirs[name]['type']}"
        for name in ours
        if name in theirs and ours[name]["type"] != theirs[name]["type"]
    ]


def _shift(name: str, one: Mapping[str, Any], other: Mapping[str, Any], rows: tuple[int, int]) -> Shift:
    nulls = (one["nulls"] / max(rows[0], 1), other["nulls"] / max(rows[1], 1))
    return Shift(name, round(stability(one, other, rows), 4), nulls, (one.get("mean"), other.get("mean")))


def stability(one: Mapping[str, Any], other: Mapping[str, Any], rows: tuple[int, int]) -> float:
    """The population stability index of two profiles of a column: about ten buckets of the first, and nulls.

    A category's values count as one where a profile does not say how often each came: the rare ones, or all.
    """
    bins = _categories(one, other, rows) if one["kind"] == "category" else _ranges(one, other, rows)
    bins.append((one["nulls"], other["nulls"]))
    shares = ((max(a / max(rows[0], 1), _LEAST), max(b / max(rows[1], 1), _LEAST)) for a, b in bins)
    return sum((b - a) * math.log(b / a) for a, b in shares)


def _ranges(one: Mapping[str, Any], other: Mapping[str, Any], rows: tuple[int, int]) -> list[tuple[float, float]]:
    """How many values of each are in ranges that a tenth of the first's values is in."""
    ours, theirs = (dict(map(tuple, column.get("histogram", []))) for column in (one, other))
    bins: list[tuple[float, float]] = []
    mine = yours = 0.0
    for edge in sorted({*ours, *theirs}):
        mine, yours = mine + ours.get(edge, 0), yours + theirs.get(edge, 0)
        if mine >= (rows[0] - one["nulls"]) / _BINS:
            bins.append((mine, yours))
            mine = yours = 0.0
    return [*bins, (mine, yours)]


def _categories(one: Mapping[str, Any], other: Mapping[str, Any], rows: tuple[int, int]) -> list[tuple[float, float]]:
    """How often each value came in both, and all those of which one of them does not say."""
    ours, theirs = (dict(map(tuple, column["top"])) for column in (one, other))
    all_ours, all_theirs = (column["distinct"] <= len(column["top"]) for column in (one, other))
    said = [v for v in {*ours, *theirs} if (v in ours or all_ours) and (v in theirs or all_theirs)]
    bins = [(ours.get(value, 0), theirs.get(value, 0)) for value in sorted(said)]
    rest = [rows[0] - one["nulls"] - sum(a for a, _ in bins), rows[1] - other["nulls"] - sum(b for _, b in bins)]
    return [*bins, (rest[0], rest[1])]


def _why(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What of their lineage differs, in words."""
    found = [f"{name}: {one[name]} -> {other[name]}" for name in ("service", "knowledge") if one[name] != other[name]]
    if one["manifest"] != other["manifest"]:
        changed = [name for name, version in other["views"].items() if one["views"].get(name, version) != version]
        views = f"; other versions of {', '.join(changed)}" if changed else "; the views are the same"
        found.append(f"manifest: {one['manifest'][:12]} -> {other['manifest'][:12]}{views}")
    ours, theirs = one["parts"], other["parts"]
    if [part["spine"] for part in ours] != [part["spine"] for part in theirs]:
        found.append(f"spine: {_spines(ours)} -> {_spines(theirs)}")
    delays = [(part["labels"] or {}).get("delay", "none") for part in (ours[-1], theirs[-1])]
    if delays[0] != delays[1]:
        found.append(f"label delay: {delays[0]} -> {delays[1]}")
    found += [
        f"{name}: {_source(ours, name)} -> {_source(theirs, name)}"
        for name in dict.fromkeys([*ours[-1]["sources"], *theirs[-1]["sources"]])
        if _source(ours, name) != _source(theirs, name)
    ]
    if one["erasures"] != other["erasures"]:
        found.append(f"erasures: {one['erasures']} -> {other['erasures']}")
    return found


def _spines(parts: Any) -> str:
    return " + ".join(f"{part['spine']['fingerprint'][:12]} ({part['rows']:,} rows)" for part in parts)


def _source(parts: Any, name: str) -> str:
    """The versions of a log, or the contents of files, that parts were made of."""
    found = [part["sources"].get(name) for part in parts]
    said = [
        "not read"
        if item is None
        else f"files {item['content_hash'][:12]}"
        if "files" in item
        else f"log {item['version']}"
        for item in found
    ]
    return ", ".join(dict.fromkeys(said))
