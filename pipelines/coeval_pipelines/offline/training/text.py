"""Training sets in words, for the terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coeval.spec.types import iso
from coeval.training import TrainingSet
from coeval_pipelines.offline.training.apart import Apart, ValueApart
from coeval_pipelines.offline.training.diff import LARGE, MODERATE, Difference
from coeval_pipelines.offline.training.rebuild import Rebuilt
from coeval_pipelines.offline.training.registry import Kept

_SHOWN = 20


def built_lines(built: TrainingSet) -> list[str]:
    """What was built."""
    lineage = built.lineage
    lines = [
        f"{built.rows:,} rows x {len(lineage['columns']['features'])} features   {built.path}",
        f"content {lineage['content_hash'][:16]}   manifest {lineage['manifest'][:12]}   {built.engine.name}",
        *_report_lines(built.report),
    ]
    if lineage["erased"]:
        lines.append("Something that the set before may have held was erased since it was built.")
    return lines + _label_lines(lineage["parts"][-1])


def listed(kept: Kept) -> dict[str, Any]:
    """A training set in a list, JSON-ready."""
    lineage = kept.document.lineage
    names = ("name", "service", "rows", "content_hash", "built_at", "knowledge", "manifest", "erased")
    engines = list(dict.fromkeys(part["engine"]["name"] for part in lineage["parts"]))
    return {name: lineage[name] for name in names} | {"parts": len(lineage["parts"]), "engines": engines}


def list_lines(sets: Iterable[Kept], unfinished: Iterable[str] = (), unforgotten: Iterable[str] = ()) -> list[str]:
    """A line for each, for each name under which something is unfinished, and for each that holds what was erased."""
    rows = [
        (
            item["name"],
            item["service"],
            f"{item['rows']:,}",
            item["content_hash"][:12],
            iso(item["built_at"], seconds=True),
            ",".join(item["engines"]),
        )
        for item in map(listed, sets)
    ]
    rest = [f"{name}: unfinished. If nobody is at it: coeval training-set remove {name}" for name in unfinished]
    rest += [f"{name}: holds what was erased. Take it away: coeval training-set rebuild {name}" for name in unforgotten]
    if not rows:
        return ["No training set is kept. Build one: coeval training-set build SERVICE --spine FILE --name NAME", *rest]
    return _table(("name", "service", "rows", "content", "built", "engine"), rows) + rest


def show_lines(kept: Kept) -> list[str]:
    """Lineage, report and profile."""
    lineage, profile = kept.document.lineage, kept.document.profile
    lines = [
        f"{kept.name}   {lineage['service']}@{lineage['manifest'][:12]}   knowledge {lineage['knowledge']}",
        f"{lineage['rows']:,} rows   content {lineage['content_hash']}",
        f"{kept.path}   version {kept.version}",
    ]
    if lineage["erased"]:
        lines.append("Something that an earlier one may have held was erased.")
    for number, part in enumerate(lineage["parts"], start=1):
        lines += _part_lines(number, part)
    lines += ["", *_report_lines(kept.document.report), ""]
    rows = [_column(name, column, profile["rows"]) for name, column in profile["columns"].items()]
    return lines + _table(("column", "type", "nulls", "distinct", "min", "median", "max", "mean"), rows)


def diff_lines(found: Difference) -> list[str]:
    """What differs, and why."""
    lines = ["The same rows." if found.same else f"Rows {found.rows[0]:,} -> {found.rows[1]:,}"]
    lines += [f"Column {text}" for text in found.columns]
    moved = [shift for shift in found.shifts if shift.psi >= MODERATE / 10][:_SHOWN]
    if moved:
        rows = [
            (
                shift.column,
                f"{shift.psi:.3f}{' !' if shift.psi >= LARGE else ' *' if shift.psi >= MODERATE else ''}",
                " -> ".join(f"{share:.1%}" for share in shift.null_share),
                " -> ".join(map(_number, shift.mean)),
            )
            for shift in moved
        ]
        lines += ["", *_table(("column", "psi", "nulls", "mean"), rows), "", f"* from {MODERATE}, ! from {LARGE}"]
    elif not found.same:
        lines.append("No column is distributed otherwise.")
    return lines + [f"Why      {text}" for text in found.why or ("their lineage is the same",)]


def rebuilt_lines(found: Rebuilt) -> list[str]:
    """What a rebuild found."""
    if found.erased:
        return [f"Something that {found.name} may have held was erased: it holds what is left.", _hashes(found)]
    if found.differences:
        lines = [f"{found.name} cannot be built again as it was:", *(f"  {text}" for text in found.differences)]
        return lines + [f"  {text}" for text in apart_lines(found.apart)]
    return [f"The same: content {found.after[:16]}, by {found.engine.engine}."]


def apart_lines(found: Apart) -> list[str]:
    """Which features and rows differ; nothing where none does."""
    if not found.rows:
        return []
    features = ", ".join(f"{name} {count:,}" for name, count in found.features.items())
    return [f"{found.rows:,} rows differ: {features}", *map(_value_apart, found.values)]


def _value_apart(item: ValueApart) -> str:
    key = " ".join(f"{name}={value}" for name, value in item.key.items())
    kept, again = ("null" if value is None else value for value in (item.kept, item.again))
    return f"  {key} {item.feature}: kept {kept}, again {again}"


def _hashes(found: Rebuilt) -> str:
    return f"content {found.before[:16]} -> {found.after[:16]}"


def _part_lines(number: int, part: Mapping[str, Any]) -> list[str]:
    engine = part["engine"]
    built = f"{part['rows']:,} rows   built {iso(part['built_at'], seconds=True)}"
    lines = [
        "",
        f"part {number}   {built}   {engine['name']}: {engine['why']}",
        f"  spine      {part['spine']['fingerprint'][:16]}",
    ]
    for name, source in part["sources"].items():
        what = f"files {source['content_hash'][:16]}" if "files" in source else f"log version {source['version']}"
        lines.append(f"  {name:<10} {what}")
    return [*lines, f"  erasures   {part['erasures']}", *_label_lines(part)]


def _label_lines(part: Mapping[str, Any]) -> list[str]:
    labels = part["labels"]
    if labels is None:
        return []
    without = ", ".join(f"{name} {count:,}" for name, count in labels["without"].items())
    return [
        f"  labels     within {labels['delay']}; rows without: {without}; too early to tell: {labels['left_out']:,}"
    ]


def _report_lines(report: Mapping[str, Any]) -> list[str]:
    """What to know about the rows."""
    leaks = report["future_leaks"]
    lines = [f"{leaks} values from the future" if leaks is not None else "with all that is known now, late or not"]
    late, changed = report["late_share"], report["availability"]["share"]
    nulls = {name: share for name, share in report["null_share"].items() if share >= 0.5}
    lines += _worst("events came late", late) + _worst("rows differ with the other knowledge", changed)
    return lines + _worst("rows have no value", nulls)


def _worst(what: str, shares: Mapping[str, float]) -> list[str]:
    worst = sorted(((share, name) for name, share in shares.items() if share), reverse=True)[:3]
    return [f"{share:.1%} of {what}: {name}" for share, name in worst]


def _column(name: str, column: Mapping[str, Any], rows: int) -> tuple[str, ...]:
    distinct = column.get("distinct")
    said = "" if distinct is None else f"{'' if column['distinct_is_exact'] else '~'}{distinct:,}"
    middle = column.get("quantiles", {}).get("0.5")
    numbers = (_number(value) for value in (column.get("min"), middle, column.get("max"), column.get("mean")))
    return (name, column["type"], f"{column['nulls'] / max(rows, 1):.1%}", said, *numbers)


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:19]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
