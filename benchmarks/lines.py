"""Lines over time as one SVG picture: a panel for each, so that no two share an axis. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT, _COLUMNS, _MARGIN = 360, 150, 2, 34


@dataclass(frozen=True, slots=True)
class Line:
    """A named line; points that are not numbers are gaps."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def draw(lines: Sequence[Line], unit: str) -> str:
    """An SVG document; each panel begins at zero."""
    rows = -(-len(lines) // _COLUMNS)
    places = [(index % _COLUMNS * _WIDTH, index // _COLUMNS * _HEIGHT) for index in range(len(lines))]
    panels = "".join(
        f'<g transform="translate({left},{top})">{_panel(line, unit)}</g>\n'
        for line, (left, top) in zip(lines, places, strict=True)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_COLUMNS * _WIDTH}" height="{rows * _HEIGHT}" '
        f'font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n{panels}</svg>\n'
    )


def _panel(line: Line, unit: str) -> str:
    points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
    if not points:
        return f'<text x="{_MARGIN}" y="16">{escape(line.name)}: nothing seen</text>'
    right, top = max(x for x, _ in points) or 1.0, max(y for _, y in points) or 1.0
    width, height = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN
    path = " ".join(
        f"{_MARGIN + max(0.0, x) / right * width:.1f},{_MARGIN + height - y / top * height:.1f}" for x, y in points
    )
    base = _MARGIN + height
    return (
        f'<text x="{_MARGIN}" y="16" font-weight="bold">{escape(line.name)}</text>'
        f'<text x="{_MARGIN}" y="{_MARGIN - 4}" fill="#666">{top:,.0f}</text>'
        f'<text x="{_WIDTH - _MARGIN}" y="{base + 14}" text-anchor="end" fill="#666">{right:,.0f} {escape(unit)}</text>'
        f'<path d="M{_MARGIN},{_MARGIN} V{base} H{_WIDTH - _MARGIN}" fill="none" stroke="#bbb"/>'
        f'<polyline points="{path}" fill="none" stroke="#1f5fa8" stroke-width="1.5"/>'
    )
