"""Systems against each other over sizes, both axes logarithmic, as one SVG picture. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 360, 60, 210, 34, 40
_COLOURS = ("#1f5fa8", "#c2571a", "#3a8a3a", "#8a3a8a", "#666666")


def draw(title: str, series: Mapping[str, Sequence[tuple[float, float]]], x_unit: str, y_unit: str) -> str:
    """An SVG document: a line per system through its points (x, y), all of them positive."""
    points = [point for line in series.values() for point in line]
    xs, ys = (sorted({point[axis] for point in points}) for axis in (0, 1))
    low, high = 10 ** math.floor(math.log10(ys[0])), 10 ** math.ceil(math.log10(ys[-1]))

    def place(x: float, y: float) -> tuple[float, float]:
        across = math.log(x / xs[0]) / max(math.log(xs[-1] / xs[0]), 1e-9)
        up = math.log(y / low) / math.log(high / low)
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    decades = [low * 10**step for step in range(round(math.log10(high / low)) + 1)]
    parts = [f'<text x="{_LEFT}" y="18" font-weight="bold">{escape(title)}</text>']
    for y in decades:
        _, at = place(xs[0], y)
        parts.append(f'<path d="M{_LEFT},{at:.1f} H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end" fill="#666">{y:g}</text>')
    for x in xs:
        at, _ = place(x, low)
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle" fill="#666">{x:g}</text>')
    parts.append(f'<text x="{_LEFT}" y="{_HEIGHT - 6}" fill="#666">{escape(x_unit)}; {escape(y_unit)} upwards</text>')
    for number, (name, line) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        placed = [place(x, y) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        x, y = placed[-1]
        parts.append(f'<text x="{x + 8:.1f}" y="{y + 4:.1f}" fill="{colour}">{escape(name)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" '
        f'font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )
