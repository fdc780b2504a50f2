"""The parity report in a real browser: what an engineer needs at 3 a.m. is on the first screen, and it can be printed.

It needs a Chromium, which is nothing that `make setup` brings: see `tests.support.browser.MISSING`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coeval_parity.report import render_html
from coeval_parity.result import ParityResult
from tests.support import parity_pages
from tests.support.browser import MISSING, Browser, browsing, find_chromium

WIDTH, HEIGHT = 1280, 800
PAGES: dict[str, Callable[[], ParityResult]] = {
    "passing": parity_pages.passing,
    "failing": parity_pages.failing,
    "big": parity_pages.big,
}
BOTTOMS = "[...document.querySelectorAll({!r})].map(item => item.getBoundingClientRect().bottom)"
TAB, ENTER = 9, 13


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages, each with runs before it, two of which have pages."""
    folder, found = tmp_path_factory.mktemp("pages"), {}
    for name, make in PAGES.items():
        result = make()
        links = {result.run - ago: f"parity-{result.run - ago}.html" for ago in (1, 2)}
        found[name] = folder / f"{name}.html"
        found[name].write_text(render_html(result, parity_pages.history(result), links))
    return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests."""
    program = find_chromium()
    if program is None:
        pytest.skip(MISSING)
    with browsing(program, tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture(autouse=True)
def quiet(browser: Browser) -> Iterator[None]:
    """No page says anything on the console, or asks for anything but itself."""
    browser.said.clear()
    browser.asked.clear()
    yield
    assert browser.said == []
    assert browser.asked
    assert all(address.startswith("file:") and address.endswith(".html") for address in browser.asked)


def bottoms(browser: Browser, selector: str) -> list[float]:
    """How far down the window the elements end, in pixels."""
    found = browser.value(BOTTOMS.format(selector))
    assert found, selector
    return found  # type: ignore[no-any-return]


def test_verdict_breaches_and_what_to_type_are_on_the_first_screen(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["failing"], width=WIDTH, height=HEIGHT)
    for selector in ("h1", ".breaches li", ".facts a", "#next > .card", "#next > .card code"):
        assert max(bottoms(browser, selector)) <= HEIGHT, selector
    assert len(bottoms(browser, "#next > .card")) == 3
    browser.open(pages["big"], width=WIDTH, height=HEIGHT)
    for selector in ("h1", ".breaches li", "#next > .card:first-of-type code"):
        assert max(bottoms(browser, selector)) <= HEIGHT, selector


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_runs_over_the_side(
    browser: Browser, pages: dict[str, Path], name: str, width: int, dark: bool
) -> None:
    browser.open(pages[name], width=width, height=HEIGHT, dark=dark)
    browser.value("document.querySelectorAll('details').forEach(item => item.open = true)")
    assert browser.value("document.documentElement.scrollWidth") == width
    assert browser.value("matchMedia('(prefers-color-scheme: dark)').matches") is dark
    assert browser.value("getComputedStyle(document.body).backgroundColor") == (
        "rgb(20, 23, 26)" if dark else "rgb(250, 249, 246)"
    )


@pytest.mark.parametrize("name", PAGES)
def test_pictures_are_taken_in_light_and_dark_and_are_not_blank(
    browser: Browser, pages: dict[str, Path], name: str, tmp_path: Path
) -> None:
    shots = []
    for dark in (False, True):
        browser.open(pages[name], width=WIDTH, height=HEIGHT, dark=dark)
        shot = tmp_path / f"{name}-{dark}.png"
        browser.picture(shot)
        shots.append(shot.read_bytes())
    assert shots[0] != shots[1]
    # A page of one colour is a few kilobytes.
    assert min(map(len, shots)) > 30_000


def test_every_pattern_of_a_cause_is_found(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["big"], width=WIDTH, height=HEIGHT)
    fills = browser.value(
        "[...new Set([...document.querySelectorAll('rect[class^=box-]')].map(item => getComputedStyle(item).fill))]"
    )
    assert len(fills) > 9
    for fill in fills:
        name = fill.partition("#")[2].rstrip('")')
        assert not name or browser.value(f"document.getElementById({name!r}) !== null"), fill


def test_the_keyboard_reaches_what_to_do_and_opens_every_detail(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["failing"], width=WIDTH, height=HEIGHT)
    browser.press("Tab", TAB)
    assert browser.value("document.activeElement.className") == "skip"
    assert browser.value("document.activeElement.getBoundingClientRect().left") >= 0
    browser.press("Enter", ENTER)
    assert browser.value("location.hash") == "#next"
    reached, opened = 0, 0
    total = browser.value("document.querySelectorAll('summary').length")
    for _ in range(400):
        browser.press("Tab", TAB)
        if browser.value("document.activeElement === document.body"):
            break
        assert browser.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        if browser.value("document.activeElement.tagName") == "SUMMARY":
            reached += 1
            if not browser.value("document.activeElement.parentElement.open"):
                browser.press("Enter", ENTER)
                opened += 1
    assert reached == total
    assert opened > 3
    assert browser.value("[...document.querySelectorAll('details')].every(item => item.open)")


def test_a_link_to_the_worst_key_leads_to_it(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["failing"], width=WIDTH, height=HEIGHT)
    browser.value("document.querySelector('#next .card a').click()")
    top = browser.value("document.querySelector(location.hash).getBoundingClientRect().top")
    assert 0 <= top < HEIGHT
    assert browser.value("document.querySelector(location.hash).textContent.includes('card_id=4711')")
    targets = browser.value("[...document.querySelectorAll('a[href^=\"#\"]')].map(item => item.getAttribute('href'))")
    assert all(browser.value(f"document.querySelector({target!r}) !== null") for target in targets)


def test_on_paper_every_failing_key_is_open_and_no_table_is_cut(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    browser.open(pages["failing"], width=WIDTH, height=HEIGHT, dark=True)
    closed = "#key-2 .difference:not([open]) .events"
    assert browser.value(f"document.querySelector({closed!r}).checkVisibility()") is False
    paper = tmp_path / "failing.pdf"
    browser.print(paper)
    assert paper.read_bytes().startswith(b"%PDF")
    # The width of A4 and of letter, on its side, less the margins.
    dark = {"name": "prefers-color-scheme", "value": "dark"}
    browser.call("Emulation.setEmulatedMedia", media="print", features=[dark])
    browser.resize(965, 700)
    tables = "[...document.querySelectorAll('.failing .difference .events')]"
    found = browser.value(f"{tables}.map(item => [item.checkVisibility(), item.getBoundingClientRect().right])")
    assert len(found) == 5
    assert all(visible and right <= 965 for visible, right in found)
    assert browser.value("document.documentElement.scrollWidth") == 965
    assert browser.value("getComputedStyle(document.documentElement).getPropertyValue('--ink')") == "#1d2126"
