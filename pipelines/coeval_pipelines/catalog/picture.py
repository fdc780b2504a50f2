"""Lineage as a picture: a small layered layout and its SVG. Pure, and it needs nothing from outside.

Kinds are columns. An edge that skips columns gets a waypoint in each, so that it passes between boxes; rows are sorted
by the mean of their neighbours' rows until crossings no longer fall.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from coeval_pipelines.catalog.lineage import RANKS, Lineage, Node

_HEIGHT, _ROW, _GAP, _MARGIN = 44, 62, 72, 20
_LETTER = 7.4
_SWEEPS = 12

_STYLE = """
.lineage text{font:13px ui-sans-serif,system-ui,sans-serif;fill:var(--ink,#1b1f24)}
.lineage .kind{font-size:10px;letter-spacing:.05em;text-transform:uppercase;fill:var(--soft,#667085)}
.lineage rect{fill:var(--box,#fff);stroke:var(--line,#c3c9d2);stroke-width:1.2}
.lineage .edge{fill:none;stroke:var(--edge,#98a2b3);stroke-width:1.4}
.lineage .bar-topic,.lineage .bar-files{fill:#7a8699}.lineage .bar-source{fill:#3b82b8}
.lineage .bar-view{fill:#2f9e77}.lineage .bar-derived_view{fill:#b7791f}.lineage .bar-service{fill:#8b5fbf}
.lineage .old rect{stroke-dasharray:4 3}
"""
_DARK = "--ink:#e6e8eb;--soft:#9aa4b2;--box:#1d2229;--line:#3a424d;--edge:#667085"
_ALONE = f"@media(prefers-color-scheme:dark){{.lineage{{{_DARK}}}}}"
"""In a page, its colours are the page's."""


@dataclass(frozen=True, slots=True)
class _Waypoint:
    """Where an edge passes a column that it skips."""

    edge: tuple[Node, Node]
    rank: int


_Place = Node | _Waypoint


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is, in pixels: boxes by node (left, top, width), edges as points, the size of the whole."""

    boxes: Mapping[Node, tuple[float, float, float]]
    edges: tuple[tuple[tuple[float, float], ...], ...]
    width: float
    height: float


def layout(graph: Lineage) -> Layout:
    """Place the nodes in columns by kind, so that edges cross little."""
    chains = {edge: _chain(edge) for edge in graph.edges}
    columns = _ordered(graph, chains)
    widths = {rank: max((_width(node) for node in column), default=0.0) for rank, column in columns.items()}
    tallest = max((len(column) for column in columns.values()), default=1)
    lefts: dict[int, float] = {}
    x = float(_MARGIN)
    for rank in sorted(columns):
        lefts[rank] = x
        x += widths[rank] + (_GAP if widths[rank] else 0)
    tops = {
        place: _MARGIN + (row + (tallest - len(column)) / 2) * _ROW
        for column in columns.values()
        for row, place in enumerate(column)
    }
    boxes = {node: (lefts[RANKS[node.kind]], tops[node], widths[RANKS[node.kind]]) for node in graph.nodes}
    edges = tuple(tuple(_points(chain, boxes, tops, lefts, widths)) for chain in chains.values())
    return Layout(boxes, edges, x - _GAP + _MARGIN, 2 * _MARGIN + tallest * _ROW - (_ROW - _HEIGHT))


def _chain(edge: tuple[Node, Node]) -> tuple[_Place, ...]:
    start, end = (RANKS[node.kind] for node in edge)
    return (edge[0], *(_Waypoint(edge, rank) for rank in range(start + 1, end)), edge[1])


def _width(place: _Place) -> float:
    return max(len(place.name), len(place.kind)) * _LETTER + 30 if isinstance(place, Node) else 0.0


def _rank(place: _Place) -> int:
    return place.rank if isinstance(place, _Waypoint) else RANKS[place.kind]


def _ordered(graph: Lineage, chains: Mapping[tuple[Node, Node], tuple[_Place, ...]]) -> dict[int, list[_Place]]:
    columns: dict[int, list[_Place]] = {rank: [] for rank in sorted({RANKS[node.kind] for node in graph.nodes})}
    for place in (*graph.nodes, *(place for chain in chains.values() for place in chain[1:-1])):
        columns.setdefault(_rank(place), []).append(place)
    pairs = [pair for chain in chains.values() for pair in pairwise(chain)]
    before: dict[_Place, list[_Place]] = {}
    after: dict[_Place, list[_Place]] = {}
    for left, right in pairs:
        before.setdefault(right, []).append(left)
        after.setdefault(left, []).append(right)
    best, fewest = {rank: list(column) for rank, column in columns.items()}, _crossings(columns, pairs)
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        for rank in sorted(columns, reverse=not forward):
            columns[rank] = _by_mean(columns, columns[rank], before if forward else after)
        crossings = _crossings(columns, pairs)
        if crossings < fewest:
            best, fewest = {rank: list(column) for rank, column in columns.items()}, crossings
    return best


def _by_mean(
    columns: Mapping[int, list[_Place]], column: list[_Place], neighbours: Mapping[_Place, list[_Place]]
) -> list[_Place]:
    rows = _rows(columns)
    mean: Callable[[_Place], float] = lambda place: (  # noqa: E731
        sum(rows[other] for other in neighbours[place]) / len(neighbours[place]) if place in neighbours else rows[place]
    )
    return sorted(column, key=mean)


def _rows(columns: Mapping[int, list[_Place]]) -> dict[_Place, float]:
    """Rows from 0 to 1, so that columns of different height compare."""
    return {place: (row + 0.5) / len(column) for column in columns.values() for row, place in enumerate(column)}


def _crossings(columns: Mapping[int, list[_Place]], pairs: list[tuple[_Place, _Place]]) -> int:
    rows = _rows(columns)
    by_column: dict[int, list[tuple[float, float]]] = {}
    for left, right in pairs:
        by_column.setdefault(_rank(left), []).append((rows[left], rows[right]))
    return sum(
        (a[0] - b[0]) * (a[1] - b[1]) < 0
        for ends in by_column.values()
        for index, a in enumerate(ends)
        for b in ends[index + 1 :]
    )


def _points(
    chain: tuple[_Place, ...],
    boxes: Mapping[Node, tuple[float, float, float]],
    tops: Mapping[_Place, float],
    lefts: Mapping[int, float],
    widths: Mapping[int, float],
) -> Iterator[tuple[float, float]]:
    for number, place in enumerate(chain):
        y = tops[place] + _HEIGHT / 2
        left = lefts[_rank(place)]
        right = left + widths[_rank(place)]
        if number > 0:
            yield left, y
        if number < len(chain) - 1:
            yield right, y


def svg(graph: Lineage, *, links: bool = False, old: frozenset[str] = frozenset()) -> str:
    """The picture; with `links`, boxes lead to `#id` of the page around it; names in `old` are drawn as deprecated."""
    placed = layout(graph)
    width, height = round(placed.width), round(placed.height)
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="lineage" role="img" aria-label="Lineage" {size}>'
    style = f"<style>{_STYLE}{'' if links else _ALONE}</style>"
    edges = "".join(f'<path class="edge" d="{_path(points)}"/>' for points in placed.edges)
    boxes = "".join(_box(node, box, links, node.name in old) for node, box in placed.boxes.items())
    return f"{head}{style}{edges}{boxes}</svg>"


def _path(points: tuple[tuple[float, float], ...]) -> str:
    (x, y), *rest = points
    parts = [f"M{x:.1f},{y:.1f}"]
    for next_x, next_y in rest:
        middle = (x + next_x) / 2
        parts.append(f"C{middle:.1f},{y:.1f} {middle:.1f},{next_y:.1f} {next_x:.1f},{next_y:.1f}")
        x, y = next_x, next_y
    return " ".join(parts)


def _box(node: Node, box: tuple[float, float, float], links: bool, old: bool) -> str:
    x, y, width = box
    kind = node.kind.replace(" ", "_")
    text = (
        f'<g class="node{" old" if old else ""}"><title>{escape(node.title)}</title>'
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_HEIGHT}" rx="6"/>'
        f'<rect class="bar-{kind}" style="stroke:none" x="{x:.1f}" y="{y:.1f}" width="4" height="{_HEIGHT}" rx="2"/>'
        f'<text class="kind" x="{x + 14:.1f}" y="{y + 16:.1f}">{escape(node.kind)}</text>'
        f'<text x="{x + 14:.1f}" y="{y + 33:.1f}">{escape(node.name)}</text></g>'
    )
    return f'<a href="#{escape(node.id)}">{text}</a>' if links and RANKS[node.kind] else text
