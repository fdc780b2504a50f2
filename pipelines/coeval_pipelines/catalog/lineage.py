"""Lineage: what comes from what, from topics and files to services, as a graph; as a tree and as Mermaid. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource

KINDS = ("topic", "files", "source", "view", "derived view", "service")
"""From where data comes to where it goes."""
RANKS = {"topic": 0, "files": 0, "source": 1, "view": 2, "derived view": 3, "service": 4}
"""The column of each kind in a picture."""


@dataclass(frozen=True, slots=True)
class Node:
    """A topic, files, a source, view, derived view or service."""

    kind: str
    name: str

    @property
    def id(self) -> str:
        """A name for links and diagrams: view-card_spend. Injective."""
        safe = "".join(letter if letter.isalnum() or letter in "_." else f"-{ord(letter):x}-" for letter in self.name)
        return f"{self.kind.replace(' ', '_')}-{safe}"

    @property
    def title(self) -> str:
        """As it is written in a tree."""
        return f"{self.name} ({self.kind})"


@dataclass(frozen=True, slots=True)
class Lineage:
    """Nodes, and edges from what is read to what reads it; both in a canonical order."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[Node, Node], ...]

    def readers(self, node: Node) -> list[Node]:
        """What reads it."""
        return [reader for read, reader in self.edges if read == node]

    def reads(self, node: Node) -> list[Node]:
        """What it reads."""
        return [read for read, reader in self.edges if reader == node]

    def document(self) -> dict[str, Any]:
        """As JSON-ready values."""
        nodes = [{"id": node.id, "kind": node.kind, "name": node.name} for node in self.nodes]
        return {"nodes": nodes, "edges": [{"from": read.id, "to": reader.id} for read, reader in self.edges]}


def lineage(manifest: Manifest) -> Lineage:
    """The lineage of everything in a manifest."""
    edges = sorted(set(_edges(manifest)), key=lambda edge: (_order(edge[0]), _order(edge[1])))
    alone = [Node("source", name) for name in manifest.sources]
    nodes = sorted({*alone, *(node for edge in edges for node in edge)}, key=_order)
    return Lineage(tuple(nodes), tuple(edges))


def _order(node: Node) -> tuple[int, str]:
    return KINDS.index(node.kind), node.name


def _edges(manifest: Manifest) -> Iterator[tuple[Node, Node]]:
    for source in manifest.sources.values():
        here = Node("source", source.name)
        if isinstance(source, EventSource):
            yield Node("topic", source.topic), here
            if source.history:
                yield Node("files", source.history), here
        else:
            yield Node("files", source.path), here
    for view in manifest.views.values():
        yield Node("source", view.source), Node("view", view.name)
    for derived in manifest.derived_views:
        yield from ((Node("view", ref.view), Node("derived view", derived.name)) for ref in derived.inputs)
    for service in manifest.services:
        here = Node("service", service.name)
        yield from ((Node("view", part.view), here) for part in service.views)
        yield from ((Node("derived view", part.view), here) for part in service.derived)


def around(whole: Lineage, name: str) -> Lineage:
    """All that leads to what has this name, and all that it leads to; empty where nothing has it."""
    named = [node for node in whole.nodes if node.name == name]
    kept = {*_closure(named, whole.reads), *_closure(named, whole.readers)}
    edges = tuple(edge for edge in whole.edges if edge[0] in kept and edge[1] in kept)
    return Lineage(tuple(node for node in whole.nodes if node in kept), edges)


def _closure(start: Iterable[Node], step: Any) -> set[Node]:
    found: set[Node] = set()
    waiting = list(start)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += step(node)
    return found


def tree(whole: Lineage, name: str = "") -> Iterator[str]:
    """Lines of text: from each source on, or, of a name, what it comes from and what it feeds."""
    if not name:
        for source in (node for node in whole.nodes if node.kind == "source"):
            origins = ", ".join(f"{node.kind} {node.name}" for node in whole.reads(source))
            yield f"{source.title} from {origins}"
            yield from _branches(whole.readers, source)
        return
    for node in (node for node in whole.nodes if node.name == name):
        yield node.title
        for label, step in (("comes from", whole.reads), ("feeds", whole.readers)):
            if step(node):
                yield f"  {label}"
                yield from (f"  {line}" for line in _branches(step, node))


def _branches(step: Any, node: Node, indent: str = "") -> Iterator[str]:
    members = step(node)
    for member in members:
        last = member == members[-1]
        yield f"{indent}{'└── ' if last else '├── '}{member.title}"
        yield from _branches(step, member, indent + ("    " if last else "│   "))


_SHAPES = {"topic": ("[(", ")]"), "files": ("[/", "/]"), "service": ("([", "])"), "derived view": ("{{", "}}")}


def mermaid(graph: Lineage) -> Iterator[str]:
    """A Mermaid flowchart, to be pasted into a page."""
    yield "flowchart LR"
    numbers = {node: f"n{number}" for number, node in enumerate(graph.nodes)}
    for node, number in numbers.items():
        left, right = _SHAPES.get(node.kind, ("[", "]"))
        text = node.name.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
        yield f'    {number}{left}"{text}<br/><small>{node.kind}</small>"{right}'
    yield from (f"    {numbers[read]} --> {numbers[reader]}" for read, reader in graph.edges)
