"""Claims about what the registered catalog looks like: lineage as tree, diagram and picture, and the page."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from coeval.spec.expressions import Expression
from coeval.spec.manifest import Manifest
from coeval.spec.model import BatchSource, Computed, Expected, Field, RowView
from coeval.spec.types import BOOL, INT64, STRING, TIMESTAMP
from coeval_pipelines.catalog.docs import expected_text, page, write_docs
from coeval_pipelines.catalog.lineage import Lineage, Node, around, lineage, mermaid, tree
from coeval_pipelines.catalog.picture import layout, svg
from tests.support.catalog import CARD, manifest

EVIL = '</script><img src=x onerror=alert(1)> & "quoted"'
POINTS = Expression("column", INT64, value="points")
HOMES = BatchSource("homes", "homes.parquet", "parquet", (CARD, Field("since", TIMESTAMP, False)), "since")


@pytest.fixture(scope="module")
def catalog() -> Manifest:
    """The catalog of the tests, with everything that a page can show and a description that tries to break out."""
    base = manifest()
    pair, spend = base.windowed_views
    (latest,) = base.row_views
    feature = replace(spend.features[0], description=EVIL, pii="sensitive", expected=Expected("0", "100"))
    spend = replace(
        spend,
        features=(feature, *spend.features[1:]),
        description=EVIL,
        owner="risk@bank",
        deprecated="Use card_spend_2, which counts refunds.",
        where=Expression("not", BOOL, (Expression("is_null", BOOL, (POINTS,)),)),
        columns=(Computed(Field("same_points", INT64), POINTS),),
    )
    home = RowView("card_home", ("card",), (CARD,), "homes", (Field("city", STRING, pii="personal"),), stream=False)
    return replace(base, batch_sources=(HOMES,), windowed_views=(pair, spend), row_views=(home, latest))


class _Page(HTMLParser):
    """What a browser would see: tags that close, ids, links, text."""

    VOID = ("meta", "input", "br", "img", "link")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name == "href" and value]
        self.sources += [value for name, value in found.items() if name == "src" and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_well_formed_loads_nothing_and_every_link_leads_somewhere(catalog: Manifest) -> None:
    seen = _Page(page(catalog))
    assert len(seen.ids) == len(set(seen.ids))
    assert all(link.startswith("#") for link in seen.links)
    assert {link.removeprefix("#") for link in seen.links} <= set(seen.ids)
    assert seen.sources == []
    assert "link" not in seen.tags


def test_the_page_has_every_object_and_every_feature(catalog: Manifest) -> None:
    seen = _Page(page(catalog))
    kinds = {
        "service": catalog.services,
        "view": catalog.views.values(),
        "derived view": catalog.derived_views,
        "source": catalog.sources.values(),
        "entity": catalog.entities,
    }
    assert {Node(kind, item.name).id for kind, items in kinds.items() for item in items} <= set(seen.ids)
    said = set(seen.text)
    for view in (*catalog.views.values(), *catalog.derived_views):
        assert {field.name for field in view.features} <= said
    for expected in (
        "Use card_spend_2, which counts refunds.", "deprecated", "sensitive", "personal", "0 to 100", "risk@bank",
        "count(*) over 1h by 5m", "card_id (int64)", "tests.support.functions:against_usual", "homes.parquet (parquet)",
    ):  # fmt: skip
        assert expected in said, expected
    text = " ".join(seen.text)
    assert "WHERE points IS NOT NULL" in text
    assert "same_points = points" in text
    assert "32 of 24h" in text


def test_descriptions_are_text_and_never_markup(catalog: Manifest) -> None:
    html = page(catalog)
    assert "<img" not in html
    assert html.count("</script>") == 1
    assert EVIL in "".join(_Page(html).text)


def test_the_files_are_the_page_the_picture_and_the_manifest(catalog: Manifest, tmp_path: Path) -> None:
    names = [path.name for path in write_docs(catalog, tmp_path / "site")]
    assert names == ["index.html", "lineage.svg", "manifest.json"]
    assert Manifest.from_json((tmp_path / "site" / "manifest.json").read_text()) == catalog
    assert ET.parse(tmp_path / "site" / "lineage.svg").getroot().tag.endswith("}svg")


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (Expected(), ""),
        (Expected("0"), "at least 0"),
        (Expected("", "9"), "at most 9"),
        (Expected("0", "9", ("1", "2")), "0 to 9; one of 1, 2"),
    ],
)
def test_expected_values_read_as_words(expected: Expected, text: str) -> None:
    assert expected_text(expected) == text


def test_lineage_leads_from_topics_and_files_to_services(catalog: Manifest) -> None:
    graph = lineage(catalog)
    assert [node.title for node in graph.reads(Node("view", "card_home"))] == ["homes (source)"]
    assert [node.title for node in graph.readers(Node("view", "card_spend"))] == [
        "against_usual (derived view)",
        "risk (service)",
    ]
    assert list(tree(graph, "card_spend")) == [
        "card_spend (view)",
        "  comes from",
        "  └── payments (source)",
        "      └── payments (topic)",
        "  feeds",
        "  ├── against_usual (derived view)",
        "  │   └── risk (service)",
        "  └── risk (service)",
    ]
    assert "homes (source) from files homes.parquet" in list(tree(graph))


def test_lineage_around_a_name_leaves_out_what_has_nothing_to_do_with_it(catalog: Manifest) -> None:
    graph = around(lineage(catalog), "card_home")
    assert [node.title for node in graph.nodes] == ["homes.parquet (files)", "homes (source)", "card_home (view)"]
    assert around(lineage(catalog), "nothing").nodes == ()


def test_lineage_is_json_and_mermaid(catalog: Manifest) -> None:
    graph = lineage(catalog)
    document = json.loads(json.dumps(graph.document()))
    ids = {node["id"] for node in document["nodes"]}
    assert len(ids) == len(graph.nodes)
    assert all({edge["from"], edge["to"]} <= ids for edge in document["edges"])
    text = list(mermaid(graph))
    assert text[0] == "flowchart LR"
    assert sum("-->" in line for line in text) == len(graph.edges)


def test_names_never_share_an_id() -> None:
    names = ["a b", "a-b", "a_b", "a.b", "a-20-b", "ab"]
    assert len({Node("topic", name).id for name in names}) == len(names)


def test_boxes_of_a_picture_never_overlap_and_edges_end_at_them(catalog: Manifest) -> None:
    placed = layout(lineage(catalog))
    boxes = list(placed.boxes.values())
    for index, (x, y, width) in enumerate(boxes):
        assert 0 <= x < x + width <= placed.width
        assert 0 <= y <= y + 44 <= placed.height
        assert all(abs(y - other_y) >= 44 for other_x, other_y, _ in boxes[index + 1 :] if other_x == x)
    starts = {(x + width, y + 22) for x, y, width in boxes}
    ends = {(x, y + 22) for x, y, _ in boxes}
    assert all(points[0] in starts and points[-1] in ends for points in placed.edges)


def test_edges_that_need_not_cross_do_not() -> None:
    """Two chains given in opposite orders are laid out side by side."""
    a, b = Node("source", "a"), Node("source", "b")
    one, two = Node("view", "z_of_a"), Node("view", "a_of_b")
    placed = layout(Lineage((a, b, two, one), ((a, one), (b, two))))
    rows = {node.name: top for node, (_, top, _) in placed.boxes.items()}
    assert (rows["a"] < rows["b"]) == (rows["z_of_a"] < rows["a_of_b"])


def test_a_picture_is_xml_with_a_box_a_node_and_marks_what_is_deprecated(catalog: Manifest) -> None:
    graph = lineage(catalog)
    root = ET.fromstring(svg(graph, old=frozenset({"card_spend"})))
    groups = [element for element in root.iter() if element.tag.endswith("}g")]
    assert len(groups) == len(graph.nodes)
    assert sum(element.get("class") == "node old" for element in groups) == 1
    assert not re.search(r"(href|url\()", svg(graph))


def test_an_empty_catalog_has_a_page_and_a_picture() -> None:
    empty = Manifest("bank", "bank")
    assert _Page(page(empty)).ids
    ET.fromstring(svg(lineage(empty)))
