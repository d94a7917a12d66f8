"""The page in a real browser: drawn, quiet, without network, in both themes and on a narrow screen."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
from browser import UNDRAWN, draw_all, open_all, requested, set_theme, show
from browser import browser as browser
from make_run import engines_run, every_load_run, full_run
from waiting import wait_until

from reports import write_report

pytestmark = [pytest.mark.browser, pytest.mark.long]

_BACKGROUND = "return getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_report(full_run(tmp_path_factory.mktemp("full")))


@pytest.fixture(scope="module")
def every_load(tmp_path_factory):
    return write_report(every_load_run(tmp_path_factory.mktemp("loads")))


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    return write_report(engines_run(tmp_path_factory.mktemp("engines")))


@dataclass(frozen=True)
class Shown:
    """What the browser shows now."""

    path: Path
    width: int
    theme: str


@pytest.fixture(scope="module")
def loaded(browser, request) -> Shown:
    """A page with all that is folded open, by (fixture of its path, width, theme). pytest runs all tests of
    one after each other, so each is loaded once."""
    which, width, theme = request.param
    shown = Shown(request.getfixturevalue(which), width, theme)
    browser.get_log("browser")
    show(browser, shown.path, width, theme)
    open_all(browser)
    browser.execute_script("window.shown = arguments[0]", str(shown))
    return shown


@pytest.fixture
def page(browser, loaded) -> Shown:
    """For tests that leave it as it is."""
    assert browser.execute_script("return window.shown") == str(loaded), "a test in between showed another"
    return loaded


def on(*whiches: str, widths: tuple[int, ...] = (1280, 390), themes: tuple[str, ...] = ("light",)):
    """Runs a test on each of these pages."""
    pages = list(product(whiches, widths, themes))
    return pytest.mark.parametrize(
        "loaded", pages, indirect=True, ids=["-".join(map(str, each)) for each in pages]
    )


@on("path", "engines", themes=("light", "dark"))
def test_every_chart_is_drawn_and_the_console_is_silent(browser, page):
    assert browser.execute_script(UNDRAWN) == []
    assert browser.execute_script("return document.querySelectorAll('.chart').length") > 15
    assert browser.get_log("browser") == []


def test_the_page_needs_no_network(browser, path):
    browser.get_log("performance")
    show(browser, path)
    open_all(browser)
    asked = [url for url in requested(browser) if not url.startswith(("data:", "blob:"))]
    assert asked == [path.as_uri()]


@on("path", "every_load", "engines")
def test_the_page_does_not_scroll_sideways(browser, page):
    assert browser.execute_script("return document.documentElement.scrollWidth") <= page.width
    assert browser.execute_script(
        "return [...document.querySelectorAll('.chart')].every("
        "(place) => place.getBoundingClientRect().right <= innerWidth)"
    )


@on("path", widths=(1280,))
def test_hostile_text_runs_nothing(browser, page):
    assert browser.execute_script("return document.title") != "pwned"
    assert browser.execute_script("return document.querySelectorAll('main img').length") == 0


def test_charts_follow_the_theme_while_the_page_is_open(browser, path):
    show(browser, path, theme="light")
    draw_all(browser)
    colour = "return document.querySelector('[data-chart] .xtick text').style.fill"
    light = browser.execute_script(_BACKGROUND), browser.execute_script(colour)
    set_theme(browser, "dark")
    # A busy browser tells the page a moment later, and the page draws its charts again.
    assert wait_until(lambda: browser.execute_script(_BACKGROUND) != light[0])
    # Only charts near the screen follow by themselves.
    browser.execute_script("document.querySelector('[data-chart] .xtick').scrollIntoView()")
    assert wait_until(lambda: browser.execute_script(colour) != light[1])


@on("path", widths=(1280,))
def test_folded_parts_and_tables_take_the_keyboard(browser, page):
    focusable = "return [...document.querySelectorAll('.scroll')].every((box) => box.tabIndex === 0)"
    assert browser.execute_script(focusable)
    links = browser.execute_script("return [...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))")
    sections = browser.execute_script("return [...document.querySelectorAll('section[id]')].map((s) => s.id)")
    assert links == ["answer", *sections]


@on("path")
def test_a_narrow_screen_says_that_the_main_table_scrolls(browser, page):
    hint = "return getComputedStyle(document.querySelector('#values .scroll'), '::before').content"
    assert ("scroll" in browser.execute_script(hint)) is (page.width == 390)


@on("path", widths=(390,))
def test_a_narrow_screen_shows_the_first_two_values_of_the_main_table(browser, page):
    edge = "return document.querySelector('#values tbody td:nth-child(3) span').getBoundingClientRect().right"
    assert browser.execute_script(edge) <= 390


def test_the_ledger_scrolls_in_its_box_and_its_terms_stay(browser, engines):
    show(browser, engines, 390)
    moved = """
      const box = document.querySelector('#fairness .scroll'), term = box.querySelector('tbody th');
      const before = term.getBoundingClientRect().left;
      box.scrollLeft = 400;
      const shift = term.getBoundingClientRect().left - before;
      return [box.scrollLeft, shift, getComputedStyle(term).backgroundColor];"""
    scrolled, shift, background = browser.execute_script(moved)
    assert (scrolled, shift) == (400, 0)
    assert "rgba" not in background  # what scrolls below it must not show


@on("engines")
def test_what_is_off_in_the_ledger_is_red_and_said(browser, page):
    cells = browser.execute_script("""
      return [...document.querySelectorAll('#fairness td')].filter((cell) => cell.querySelector('.off'))
        .map((cell) => [cell.innerText.includes('\u2715'), getComputedStyle(cell).backgroundColor]);""")
    plain = browser.execute_script(
        "return getComputedStyle(document.querySelector('#fairness td:not(:has(.off))')).backgroundColor"
    )
    assert len(cells) > 4
    assert all(is_said and background != plain for is_said, background in cells)


@on("engines")
def test_names_and_figures_of_start_up_stay_inside_its_chart(browser, page):
    outside = """
      const frame = document.querySelector('[data-chart=startup]').getBoundingClientRect();
      return [...document.querySelectorAll('[data-chart=startup] .annotation-text')]
        .filter((text) => text.getBoundingClientRect().right > frame.right + 1 ||
          text.getBoundingClientRect().left < frame.left - 1).map((text) => text.textContent);"""
    assert browser.execute_script(outside) == []
    texts = "[...document.querySelectorAll('[data-chart=startup] .annotation-text')]"
    figures = browser.execute_script(f"return {texts}.filter(text => text.textContent.endsWith(' s')).length")
    assert figures == 16


@on("engines")
def test_names_of_start_up_do_not_touch_their_bars(browser, page):
    touching = """
      const boxes = (kind) => [...document.querySelectorAll(`[data-chart=startup] ${kind}`)]
        .map((each) => each.getBoundingClientRect()).filter((box) => box.width > 0);
      const bars = boxes('.bars .point');
      return [bars.length, boxes('.annotation-text').filter((text) =>
        bars.some((bar) => text.bottom > bar.top - 1 && text.top < bar.bottom)).length];"""
    bars, count = browser.execute_script(touching)
    assert (bars > 16, count) == (True, 0)


@on("path")
def test_names_of_facts_are_not_cut_inside_a_word(browser, page):
    cut = """
      const cells = [...document.querySelectorAll('.words tbody th')]
        .filter((cell) => cell.firstChild instanceof Text);
      return cells.flatMap((cell) =>
        [...cell.firstChild.textContent.matchAll(/\\w+/g)].filter((word) => {
          const range = document.createRange();
          range.setStart(cell.firstChild, word.index);
          range.setEnd(cell.firstChild, word.index + word[0].length);
          return range.getClientRects().length > 1;
        }).map((word) => word[0]))"""
    assert browser.execute_script(cut) == []


@on("path", widths=(1280,))
def test_no_row_of_charts_ends_with_an_empty_half(browser, page):
    gaps = """
      return [...document.querySelectorAll('.grid:not(.small)')].map((grid) =>
        grid.getBoundingClientRect().right - grid.lastElementChild.getBoundingClientRect().right)"""
    assert max(browser.execute_script(gaps)) < 1
