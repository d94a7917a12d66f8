"""Filters, legends, links and names where lines end, in a real browser; charts and rows made here."""

from __future__ import annotations

import pytest
from browser import browser as browser
from browser import draw_all, show
from make_run import full_run

from reports import open_run
from reports.page.document import bar, document, write_page
from reports.page.drawing.charts import Chart, about, axis, line, rendered
from reports.page.looks import looks
from reports.page.markup import Head, Of, Row, details, join, table, tag

pytestmark = [pytest.mark.browser, pytest.mark.long]

A, B = "llama_cpp fp16", "vllm fp16"
LOADS = ("1 user", "4 users")
FINDING = f"{A} is below {B}"
SHOWN = """
  const gd = document.querySelector(`[data-chart=${arguments[0]}]`);
  return (gd.data || []).map((trace) => [trace.name, [...trace.x], [...trace.y], Boolean(trace.error_y)]);"""


def by_load(run) -> Chart:
    """A line per deployment, a point per load; two starts; a front of the whole; a finding of both."""
    traces = [{"type": "scatter", "name": "", "x": [1, 4], "y": [10, 11]}]
    for label, low in ((A, 10.0), (B, 20.0)):
        bars = {"type": "data", "array": [20, 20]}
        made = line(looks(run)[label], [1, 4], [low, low + 1], error_y=bars, text=["n = 61", "n = 60"])
        points = [Of(load=load) for load in LOADS]
        starts = {1: ([low - 1, low], ["30", "60"]), 2: ([low + 1, None], ["31", "0"])}
        traces.append(about(made, Of(label), points=points, by_start=starts))
    rows = [Row([label, load, "1"], Of(label, load)) for label in (A, B) for load in LOADS]
    layout = {"xaxis": axis("users"), "yaxis": axis("ms", rangemode="tozero")}
    columns = ["deployment", "load", "ms"]
    return Chart("lines", "ms by load", traces, layout, columns, rows, finding=FINDING, names_ends=True)


def by_turn(run) -> Chart:
    """A line that tells no starts apart, of one load."""
    trace = about(line(looks(run)[A], [1, 2], [5.0, 6.0]), Of(A))
    rows = [Row([A, str(turn), "5"], Of(A)) for turn in (1, 2)]
    return Chart("turns", "By turn", [trace], {}, ["deployment", "turn", "ms"], rows, of=Of(load="1 user"))


def against(run) -> Chart:
    """Deployments against a baseline."""
    traces = [about(line(looks(run)[label], [1], [at]), Of(label)) for at, label in ((1.0, A), (1.2, B))]
    layout = {
        "annotations": [{"x": 1, "y": 1, "text": label, "of": Of(label).to_builtins()} for label in (A, B)]
    }
    more = {"finding": f"{B} above {A}", "has_baseline": True}
    return Chart("ratios", "ratios", traces, layout, ["deployment"], [[A], [B]], **more)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Three charts, a table of its own, what is folded, and what is about no deployment."""
    where = tmp_path_factory.mktemp("made")
    run = open_run(full_run(where / "run"))
    charts = [by_load(run), by_turn(run), against(run)]
    rows = [Row([label, load, "7"], Of(label, load)) for label in (A, B) for load in LOADS]
    long = Row(["note"] * 3)
    own = table(["deployment", "load", "value"], rows)
    folded = details("Only of four users", table(["deployment", "value"], [Row([B, "1"], Of(B, "4 users"))]))
    heads = [Head("deployment"), *(Head(load, Of(load=load)) for load in LOADS)]
    across = table(heads, [Row([label, "low", "high"], Of(label)) for label in (A, B)])
    only = table([Head("fact"), Head(A, Of(A))], [["size", "2"]])
    first = tag("section", tag("h2", "First"), rendered(charts), id="first")
    parts = (tag("h3", "Part"), folded, tag("h3", "Facts"), table(["a", "b", "c"], [long]))
    second = tag("section", tag("h2", "Second"), own, *parts, id="second")
    deep = details("Deep", tag("p", "found", id="deep"), tag("div", "", style="height:2000px"))
    third = tag("section", tag("h2", "Third"), deep, id="third")
    fourth = tag("section", tag("h2", "Fourth"), across, only, id="fourth")
    main = tag("main", tag("h1", "Made"), first, second, third, fourth, id="main")
    names = {"first": "First", "second": "Second", "third": "Third", "fourth": "Fourth"}
    write_page(where / "page.html", lambda: document("Made", join([bar(run, names), main]), charts))
    return where / "page.html"


@pytest.fixture
def page(browser, path):
    show(browser, path)
    draw_all(browser)
    return browser


def choose(browser, name: str, value: str) -> None:
    """As a reader does: by the select, then all is drawn anew."""
    done = browser.execute_script(
        """
        const select = document.querySelector(`select[data-filter=${arguments[0]}]`);
        select.value = arguments[1];
        select.dispatchEvent(new Event("change"));
        return select.value;""",
        name,
        value,
    )
    assert done == value
    draw_all(browser)


def shown(browser, chart: str):
    """Name, x, y and whether it has intervals, of each trace that is drawn."""
    return browser.execute_script(SHOWN, chart)


def visible(browser, selector: str) -> list[str]:
    return browser.execute_script(
        """return [...document.querySelectorAll(arguments[0])].filter((e) => e.checkVisibility())
             .map((e) => e.textContent)""",
        selector,
    )


def test_a_load_leaves_its_points_its_rows_and_what_is_about_all(page):
    choose(page, "load", "4 users")
    assert [(name, x, y) for name, x, y, _ in shown(page, "lines") if name] == [
        (A, [4], [11]),
        (B, [4], [21]),
    ]
    assert visible(page, "#second > .scroll tbody tr") == [f"{A}4 users7", f"{B}4 users7", "note" * 3]
    assert visible(page, "#chart-turns") == []  # all of it is about the other load
    assert visible(page, "#shown") == ["Showing at 4 users: 2 of 3 charts"]


def test_what_is_of_the_whole_goes_with_a_part_of_it(page):
    assert [name for name, *_ in shown(page, "lines")] == ["", A, B]
    choose(page, "load", "4 users")
    assert [name for name, *_ in shown(page, "lines")] == [A, B]


def test_one_start_replaces_the_means_and_has_no_intervals(page):
    assert all(has for name, _, _, has in shown(page, "lines") if name)
    choose(page, "start", "1")
    assert shown(page, "lines") == [[A, [1, 4], [9, 10], False], [B, [1, 4], [19, 20], False]]
    assert visible(page, "#chart-lines .of-all") == []


def test_a_hover_has_the_n_of_the_start_that_is_drawn(page):
    said = "return document.querySelector('[data-chart=lines]').data.at(-1).text"
    assert page.execute_script(said) == ["n = 61", "n = 60"]
    choose(page, "start", "1")
    assert page.execute_script(said) == ["start 1, n = 30", "start 1, n = 60"]
    choose(page, "load", "4 users")
    assert page.execute_script(said) == ["start 1, n = 60"]


def test_what_cannot_follow_a_start_says_so(page):
    choose(page, "start", "2")
    assert visible(page, "#chart-turns .of-all") == ["of all starts"]
    assert "of all starts" in visible(page, "#second > .of-all")
    choose(page, "start", "")
    assert visible(page, ".of-all") == []


def test_load_and_start_go_together(page):
    choose(page, "load", "1 user")
    choose(page, "start", "2")
    assert shown(page, "lines") == [[A, [1], [11], False], [B, [1], [21], False]]


@pytest.mark.parametrize(("name", "value"), [("start", "1"), ("load", "4 users"), ("deployment", B)])
def test_a_finding_is_the_title_of_the_whole_alone(page, name, value):
    title = "#chart-lines :is(figcaption, .quantity)"
    said = "return document.querySelector('[data-chart=lines]').ariaLabel"
    assert visible(page, title) == [f"{FINDING}#", "ms by load"]
    choose(page, name, value)
    assert visible(page, title) == ["ms by load#"]
    assert page.execute_script(said) == "ms by load; data in the table below"
    choose(page, name, "")
    assert visible(page, title) == [f"{FINDING}#", "ms by load"]
    assert page.execute_script(said) == f"{FINDING}; data in the table below"


def test_a_column_goes_with_what_it_is_about(page):
    assert visible(page, "#fourth tr") == [
        "deployment1 user4 users",
        f"{A}lowhigh",
        f"{B}lowhigh",
        f"fact{A}",
        "size2",
    ]
    choose(page, "load", "4 users")
    assert visible(page, "#fourth :is(th, td)")[:6] == ["deployment", "4 users", A, "high", B, "high"]
    choose(page, "load", "")
    choose(page, "deployment", B)
    assert visible(page, "#fourth tr") == [
        "deployment1 user4 users",
        f"{B}lowhigh",
    ]  # of the other no column is left


def test_reset_shows_everything_again(page):
    before = visible(page, "main *")
    for name, value in (("load", "1 user"), ("start", "1"), ("deployment", B)):
        choose(page, name, value)
    assert visible(page, "main *") != before
    page.execute_script("document.getElementById('reset').click()")
    draw_all(page)
    assert visible(page, "main *") == before
    assert len(shown(page, "lines")) == 3


def test_a_part_of_which_nothing_is_left_goes_with_its_heading(page):
    assert visible(page, "#second h3") == ["Part", "Facts"]
    choose(page, "load", "1 user")
    assert visible(page, "#second h3") == ["Facts"]
    assert visible(page, "#second details") == []


def test_a_legend_entry_isolates_its_deployment_everywhere_and_again_shows_all(page):
    press = f"document.querySelector('.legend [data-isolate=\"{B}\"]').click()"
    page.execute_script(press)
    draw_all(page)
    assert [name for name, *_ in shown(page, "lines")] == [B]
    assert visible(page, "#second > .scroll tbody tr")[:-1] == [f"{B}1 user7", f"{B}4 users7"]
    pressed = "return [...document.querySelectorAll('[aria-pressed=true]')].map((e) => e.dataset.isolate)"
    assert page.execute_script(pressed) == [B]
    assert page.execute_script("return document.getElementById('filter-deployment').value") == B
    page.execute_script(press)
    draw_all(page)
    assert len(shown(page, "lines")) == 3
    assert page.execute_script(pressed) == []


def test_against_a_baseline_the_others_are_dimmed(page):
    choose(page, "deployment", B)
    opacity = "return document.querySelector('[data-chart=ratios]').data.map((t) => [t.name, t.opacity ?? 1])"
    assert page.execute_script(opacity) == [[A, 0.25], [B, 1]]
    assert visible(page, "[data-chart=ratios] .annotation-text") == [A, B]
    assert visible(page, "#chart-ratios :is(figcaption, .quantity)") == [f"{B} above {A}#", "ratios"]


def test_legends_take_the_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    entry = page.find_element("css selector", f'.legend [data-isolate="{A}"]')
    entry.send_keys(Keys.ENTER)
    assert entry.get_attribute("aria-pressed") == "true"
    assert visible(page, "#shown")[0].startswith(f"Showing {A}")


def test_lines_are_named_where_they_end_and_names_follow_the_filters(page):
    texts = "[...document.querySelectorAll('[data-chart=lines] .annotation-text')]"
    names = f"return {texts}.map((each) => each.textContent)"
    assert page.execute_script(names) == [A, B]
    outside = """
      const frame = document.querySelector('[data-chart=lines]').getBoundingClientRect();
      return [...document.querySelectorAll('[data-chart=lines] .annotation-text')]
        .filter((e) => e.getBoundingClientRect().right > frame.right).length"""
    assert page.execute_script(outside) == 0
    choose(page, "deployment", B)
    assert page.execute_script(names) == [B]


def test_a_narrow_chart_has_no_names_in_it(browser, path):
    show(browser, path, 390)
    draw_all(browser)
    texts = "return document.querySelectorAll('[data-chart=lines] .annotation-text').length"
    assert browser.execute_script(texts) == 0


def test_a_link_opens_what_its_target_is_folded_into(browser, path):
    browser.get("about:blank")
    show(browser, path)
    assert visible(browser, "#deep") == []
    browser.execute_script("location.hash = 'deep'")
    browser.set_script_timeout(10)
    browser.execute_async_script("setTimeout(arguments[0], 0)")
    assert visible(browser, "#deep") == ["found"]
    top = browser.execute_script("return document.getElementById('deep').getBoundingClientRect().top")
    edge = browser.execute_script("return document.querySelector('.bar').getBoundingClientRect().bottom")
    assert edge <= top < edge + 100


def test_a_page_that_is_opened_at_a_link_shows_it(browser, path):
    browser.get("about:blank")
    browser.get(path.as_uri() + "#deep")
    assert visible(browser, "#deep") == ["found"]


def test_a_link_to_what_is_filtered_out_shows_it(page):
    choose(page, "load", "4 users")
    follow(page, "#chart-turns")
    assert len(visible(page, "#chart-turns")) == 1
    assert visible(page, "#shown") == []


def address(browser) -> str:
    return browser.execute_script("return location.hash")


def follow(browser, href: str) -> None:
    """A click on a link of the page, in the bar or at a heading."""
    browser.execute_script("document.querySelector(`a[href='${arguments[0]}']`).click()", href)
    browser.execute_async_script("setTimeout(arguments[0], 0)")


def back(browser) -> None:
    browser.execute_async_script(
        "window.addEventListener('hashchange', () => setTimeout(arguments[0], 0), { once: true });"
        "history.back()"
    )


def test_what_is_shown_is_in_the_address_and_a_page_opened_there_shows_it(page, path):
    choose(page, "load", "4 users")
    choose(page, "deployment", B)
    assert address(page) == "#?deployment=vllm+fp16&load=4+users"
    follow(page, "#second")
    there, said = address(page), visible(page, "#shown")
    assert there == "#second?deployment=vllm+fp16&load=4+users"
    page.get("about:blank")
    page.get(path.as_uri() + there)
    draw_all(page)
    assert said == visible(page, "#shown") != []
    assert [name for name, *_ in shown(page, "lines")] == [B]
    page.find_element("id", "reset").click()
    assert address(page) == "#second"


def test_a_link_with_filters_of_its_own_replaces_those_that_were_chosen(page):
    choose(page, "start", "1")
    page.execute_script("location.hash = 'second?load=1+user'")
    page.execute_async_script("setTimeout(arguments[0], 0)")
    assert address(page) == "#second?load=1+user"
    assert [said.partition(":")[0] for said in visible(page, "#shown")] == ["Showing at 1 user"]


def test_filters_of_an_address_outlast_that_they_leave_nothing_of_its_figure(browser, path):
    browser.get("about:blank")
    browser.get(path.as_uri() + "#chart-turns?load=4+users")
    draw_all(browser)
    assert address(browser) == "#chart-turns?load=4+users"
    assert visible(browser, "#chart-turns") == []
    assert [said.partition(":")[0] for said in visible(browser, "#shown")] == ["Showing at 4 users"]


def test_back_returns_to_what_was_shown(page):
    follow(page, "#first")
    choose(page, "load", "4 users")
    follow(page, "#second")
    page.find_element("id", "reset").click()
    back(page)
    assert address(page) == "#first?load=4+users"
    assert len(visible(page, "#shown")) == 1
    page.execute_script("history.forward()")
    page.execute_async_script("setTimeout(arguments[0], 100)")
    assert address(page) == "#second"
    assert visible(page, "#shown") == []


def test_a_link_to_where_the_reader_is_adds_nothing_to_the_history(page):
    choose(page, "load", "4 users")
    follow(page, "#second")
    long = page.execute_script("return history.length")
    follow(page, "#second")
    assert page.execute_script("return history.length") == long


def test_an_address_that_asks_for_what_the_page_has_not_filters_nothing(browser, path):
    browser.get("about:blank")
    browser.get(path.as_uri() + "#second?load=9+users&start=&other=1")
    draw_all(browser)
    assert visible(browser, "#shown") == []
    assert address(browser) == "#second"


def test_headings_and_figures_have_links_with_names(page):
    links = page.execute_script(
        "return [...document.querySelectorAll('.anchor')].map((a) => [a.hash, a.ariaLabel])"
    )
    assert ["#first", "Link to First"] in links
    assert ["#chart-lines", f"Link to {FINDING}"] in links


def test_the_bar_folds_its_filters_on_a_narrow_screen(browser, path):
    show(browser, path, 390)
    assert visible(browser, ".filters > summary") == ["Filter"]
    assert visible(browser, "select") == []
    browser.execute_script("document.querySelector('.filters > summary').click()")
    assert len(visible(browser, "select")) == 3
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390


def test_a_page_whose_charts_cannot_be_unpacked_says_so_and_keeps_its_tables(browser, path):
    script = browser.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument",
        {"source": "window.atob = () => { throw new Error('damaged') }"},
    )
    show(browser, path)
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    [said] = visible(browser, "#no-charts")
    assert "The charts cannot be drawn here" in said
    assert visible(browser, ".chart") == []
    assert len(visible(browser, "#second > .scroll")) == 2


def test_without_a_script_the_page_says_that_tables_have_the_numbers(browser, path):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(path.as_uri())
        box = browser.find_element("id", "no-charts")
        assert box.is_displayed()
        assert "numbers are in the table" in box.text
        assert not browser.find_element("css selector", ".filters").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
