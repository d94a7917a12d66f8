"""What a reader's browser makes of the page: themes, a narrow screen, the keyboard, names in charts."""

import pytest
from browser import browser as browser
from browser import draw_all, open_all, set_theme, show
from make_run import engines_run, full_run
from repeated_run import repeated_run, three
from waiting import wait_until

from serving_bench.reports import write_report

pytestmark = [pytest.mark.browser, pytest.mark.long]

_BACKGROUND = "return getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_report(full_run(tmp_path_factory.mktemp("full")))


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    return write_report(engines_run(tmp_path_factory.mktemp("engines")))


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


def test_boxes_that_scroll_take_the_keyboard(browser, path):
    show(browser, path)
    open_all(browser)
    focusable = "return [...document.querySelectorAll('.scroll')].every((box) => box.tabIndex === 0)"
    assert browser.execute_script(focusable)


@pytest.mark.parametrize("width", [1280, 390])
def test_a_narrow_screen_shows_two_values_of_the_main_table_and_says_that_it_scrolls(browser, path, width):
    show(browser, path, width)
    hint = "return getComputedStyle(document.querySelector('#values .scroll'), '::before').content"
    assert ("scroll" in browser.execute_script(hint)) is (width == 390)
    edge = "return document.querySelector('#values tbody td:nth-child(3) span').getBoundingClientRect().right"
    assert browser.execute_script(edge) <= width


def test_charts_on_the_screen_are_not_cut_off_where_it_becomes_narrower(browser, path):
    """An observer of the same frame, made after the page's own, sees what the browser is about to show."""
    show(browser, path)
    draw_all(browser)
    widths = browser.execute_async_script("""
      const done = arguments[0], [place] = document.querySelectorAll('#throughput .chart');
      document.querySelector('main').style.width = '366px';
      place.scrollIntoView();  // after it, since all above becomes longer
      new ResizeObserver(() => done([place.clientWidth, place.querySelector('.main-svg').clientWidth]))
        .observe(place)""")
    assert widths[0] == widths[1] < 366


def test_the_ledger_scrolls_in_its_box_and_what_is_off_in_it_is_red(browser, engines):
    show(browser, engines, 390)
    open_all(browser)
    moved = """
      const box = document.querySelector('#fairness .scroll'), term = box.querySelector('tbody th');
      const before = term.getBoundingClientRect().left;
      box.scrollLeft = 400;
      const shift = term.getBoundingClientRect().left - before;
      return [box.scrollLeft, shift, getComputedStyle(term).backgroundColor];"""
    scrolled, shift, background = browser.execute_script(moved)
    assert (scrolled, shift) == (400, 0)
    assert "rgba" not in background  # what scrolls below it must not show
    cells = browser.execute_script("""
      return [...document.querySelectorAll('#fairness td')].map((cell) =>
        [Boolean(cell.querySelector('.off')), cell.innerText.includes('\u2715'),
          getComputedStyle(cell).backgroundColor]);""")
    off, plain = ([each for each in cells if each[0] is is_off] for is_off in (True, False))
    assert len(off) > 4
    assert all(is_said for _, is_said, _ in off)
    assert not {colour for *_, colour in off} & {colour for *_, colour in plain}


@pytest.mark.parametrize("width", [1280, 390])
def test_names_of_start_up_stay_inside_its_chart_and_off_its_bars(browser, engines, width):
    show(browser, engines, width)
    open_all(browser)
    bars, figures, outside, touching = browser.execute_script("""
      const chart = document.querySelector('[data-chart=startup]'), frame = chart.getBoundingClientRect();
      const boxes = (kind) => [...chart.querySelectorAll(kind)]
        .map((each) => each.getBoundingClientRect()).filter((box) => box.width > 0);
      const bars = boxes('.bars .point'), names = boxes('.annotation-text');
      const texts = [...chart.querySelectorAll('.annotation-text')].map((each) => each.textContent);
      const isOn = (box, bar) => box.bottom > bar.top - 1 && box.top < bar.bottom;
      return [bars.length, texts.filter((text) => text.endsWith(' s')).length,
        names.filter((box) => box.right > frame.right + 1 || box.left < frame.left - 1).length,
        names.filter((box) => bars.some((bar) => isOn(box, bar))).length];""")
    assert (bars > 16, figures, outside, touching) == (True, 16, 0, 0)


@pytest.mark.parametrize("width", [1280, 390])
def test_names_of_facts_are_not_cut_inside_a_word(browser, path, width):
    show(browser, path, width)
    open_all(browser)
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


def test_no_row_of_charts_ends_with_an_empty_half(browser, path):
    show(browser, path)
    open_all(browser)
    gaps = """
      return [...document.querySelectorAll('.grid:not(.small)')].map((grid) =>
        grid.getBoundingClientRect().right - grid.lastElementChild.getBoundingClientRect().right)"""
    assert max(browser.execute_script(gaps)) < 1


def test_an_option_is_not_broken_over_two_lines_and_no_name_lies_under_the_filter(browser, tmp_path):
    show(browser, write_report(repeated_run(tmp_path / "run", three(), repeats=2)), 390)
    lines = """
      const code = document.querySelector('.advice code');
      const words = [...code.querySelectorAll('span')].filter((each) => each.textContent === '--resume');
      return words.map((each) => each.getClientRects().length)"""
    assert browser.execute_script(lines) == [1]
    names, button, fades = browser.execute_script("""
      const nav = document.querySelector('nav'), style = getComputedStyle(nav);
      return [nav.getBoundingClientRect().right,
        document.querySelector('.filters > summary').getBoundingClientRect().left,
        style.maskImage || style.webkitMaskImage]""")
    assert names <= button
    assert "gradient" in fades
    # The last name can be scrolled out of what fades.
    last = """
      const nav = document.querySelector('nav');
      nav.scrollLeft = nav.scrollWidth;
      const right = (each) => each.getBoundingClientRect().right;
      return right(nav) - right(nav.querySelector('li:last-child'))"""
    assert browser.execute_script(last) >= 20
