"""Filters, legends, links and names where lines end, in a real browser; charts and rows made here."""

import pytest
from browser import browser as browser
from browser import draw_all, show
from make_run import full_run

from serving_bench.reports import open_run
from serving_bench.reports.page.document import bar, document, write_page
from serving_bench.reports.page.drawing.charts import about, axis, line
from serving_bench.reports.page.looks import Head, Of, Row, join, looks, table, tag
from serving_bench.reports.page.parts import Chart, rendered

pytestmark = [pytest.mark.browser, pytest.mark.long]

A, B = "llama_cpp fp16", "vllm fp16"
LOADS = ("1 user", "4 users")
FINDING = f"{A} is below {B}"
SHOWN = """
  const gd = document.querySelector(`[data-chart=${arguments[0]}]`);
  return (gd.data || []).map((trace) => [trace.name, [...trace.x], [...trace.y], Boolean(trace.error_y)]);"""


def folds(title, *content):
    return tag("details", tag("summary", title), *content)


def by_load(run) -> Chart:
    """A line per deployment, a point per load; two starts; a front of the whole; a finding of both."""
    traces = [{"type": "scatter", "name": "", "x": [1, 4], "y": [10, 11]}]
    for label, low in ((A, 10.0), (B, 20.0)):
        bars = {"type": "data", "array": [20, 20]}
        made = line(looks(run)[label], [1, 4], [low, low + 1], error_y=bars, text=["n = 61", "n = 60"])
        points = [Of(load=load) for load in LOADS]
        starts = {1: ([low - 1, low], ["30", "60"]), 2: ([low + 1, None], ["31", "0"])}
        traces.append(about(made, Of(label), points=points, by_start=starts))
    rows = [
        Row({"deployment": label, "load": load, "ms": "1"}, Of(label, load))
        for label in (A, B)
        for load in LOADS
    ]
    layout = {"xaxis": axis("users"), "yaxis": axis("ms", rangemode="tozero")}
    return Chart("lines", "ms by load", traces, layout, rows, finding=FINDING, names_ends=True)


def by_turn(run) -> Chart:
    """A line that tells no starts apart, of one load."""
    trace = about(line(looks(run)[A], [1, 2], [5.0, 6.0]), Of(A))
    rows = [Row({"deployment": A, "turn": str(turn), "ms": "5"}, Of(A)) for turn in (1, 2)]
    return Chart("turns", "By turn", [trace], {}, rows, of=Of(load="1 user"))


def against(run) -> Chart:
    """A chart whose title is a finding."""
    traces = [about(line(looks(run)[label], [1], [at]), Of(label)) for at, label in ((1.0, A), (1.2, B))]
    layout = {
        "annotations": [{"x": 1, "y": 1, "text": label, "of": Of(label).to_builtins()} for label in (A, B)]
    }
    finding, rows = f"{B} above {A}", [Row({"deployment": label}) for label in (A, B)]
    return Chart("ratios", "ratios", traces, layout, rows, finding=finding)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Three charts, a table of its own, what is folded, and what is about no deployment."""
    where = tmp_path_factory.mktemp("made")
    run = open_run(full_run(where / "run"))
    charts = [by_load(run), by_turn(run), against(run)]
    own = table(
        [
            Row({"deployment": label, "load": load, "value": "7"}, Of(label, load))
            for label in (A, B)
            for load in LOADS
        ]
    )
    of_four = Row({"deployment": B, "value": "1"}, Of(B, "4 users"))
    folded = folds("Only of four users", table([of_four]))
    low, high = (Head(load, Of(load=load)) for load in LOADS)
    across = table([Row({"deployment": label, low: "low", high: "high"}, Of(label)) for label in (A, B)])
    only = table([Row({"fact": "size", Head(A, Of(A)): "2"})])
    first = tag("section", tag("h2", "First"), rendered(charts), id="first")
    parts = (tag("h3", "Part"), folded, tag("h3", "Facts"), table([Row(dict.fromkeys("abc", "note"))]))
    second = tag("section", tag("h2", "Second"), own, *parts, id="second")
    deep = folds("Deep", tag("p", "found", id="deep"), tag("div", "", style="height:2000px"))
    third = tag("section", tag("h2", "Third"), deep, id="third")
    fourth = tag("section", tag("h2", "Fourth"), across, only, id="fourth")
    main = tag("main", tag("h1", "Made"), first, second, third, fourth, id="main")
    names = {"first": "First", "second": "Second", "third": "Third", "fourth": "Fourth"}
    write_page(where / "page.html", document("Made", join([bar(run, names), main]), charts))
    return where / "page.html"


@pytest.fixture
def page(browser, path):
    show(browser, path)
    draw_all(browser)
    return browser


def choose(browser, **wanted: str) -> None:
    """As a reader does: by the selects, then all is drawn anew."""
    for name, value in wanted.items():
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


def settled(browser, script: str = "", *given: str, wait_ms: int = 0) -> None:
    """Run a script, and wait until what it began is done."""
    browser.execute_script(script, *given)
    browser.execute_async_script(f"setTimeout(arguments[0], {wait_ms})")


def opened(browser, path, address: str):
    browser.get("about:blank")
    browser.get(path.as_uri() + address)
    draw_all(browser)
    return browser


def address(browser) -> str:
    return browser.execute_script("return location.hash")


def follow(browser, href: str) -> None:
    """A click on a link of the page, in the bar or at a heading."""
    settled(browser, "document.querySelector(`a[href='${arguments[0]}']`).click()", href)


# --- what is left ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        # What is of the whole, as a front, goes with a part of it; a start has no intervals.
        ({}, [["", [1, 4], [10, 11], False], [A, [1, 4], [10, 11], True], [B, [1, 4], [20, 21], True]]),
        ({"load": "4 users"}, [[A, [4], [11], True], [B, [4], [21], True]]),
        ({"start": "1"}, [[A, [1, 4], [9, 10], False], [B, [1, 4], [19, 20], False]]),
        ({"load": "1 user", "start": "2"}, [[A, [1], [11], False], [B, [1], [21], False]]),
        ({"deployment": B}, [[B, [1, 4], [20, 21], True]]),
    ],
)
def test_a_chart_has_what_was_chosen_and_all_again_after_a_reset(page, wanted, left):
    before = visible(page, "main *")
    choose(page, **wanted)
    assert shown(page, "lines") == left
    assert (visible(page, "main *") != before) is bool(wanted)
    settled(page, "document.getElementById('reset').click()")
    draw_all(page)
    assert visible(page, "main *") == before
    assert len(shown(page, "lines")) == 3


def test_a_load_leaves_its_rows_and_what_is_about_all(page):
    choose(page, load="4 users")
    assert visible(page, "#second > .scroll tbody tr") == [f"{A}4 users7", f"{B}4 users7", "note" * 3]
    assert visible(page, "#chart-turns") == []  # all of it is about the other load
    assert visible(page, "#shown") == ["Showing at 4 users: 2 of 3 charts"]


def test_a_hover_has_the_n_of_the_start_that_is_drawn(page):
    said = "return document.querySelector('[data-chart=lines]').data.at(-1).text"
    assert page.execute_script(said) == ["n = 61", "n = 60"]
    choose(page, start="1")
    assert page.execute_script(said) == ["start 1, n = 30", "start 1, n = 60"]
    choose(page, load="4 users")
    assert page.execute_script(said) == ["start 1, n = 60"]


def test_what_cannot_follow_a_start_says_so(page):
    choose(page, start="2")
    assert visible(page, "#chart-lines .of-all") == []
    assert visible(page, "#chart-turns .of-all") == ["over all starts"]
    assert "over all starts" in visible(page, "#second > .of-all")
    choose(page, start="")
    assert visible(page, ".of-all") == []


@pytest.mark.parametrize("wanted", [{"start": "1"}, {"load": "4 users"}, {"deployment": B}])
def test_a_finding_is_the_title_of_the_whole_alone(page, wanted):
    title = "#chart-lines :is(figcaption, .quantity)"
    said = "return document.querySelector('[data-chart=lines]').ariaLabel"
    for is_part in (False, True, False):
        choose(page, **(wanted if is_part else dict.fromkeys(wanted, "")))
        assert visible(page, title) == (["ms by load#"] if is_part else [f"{FINDING}#", "ms by load"])
        name = "ms by load" if is_part else FINDING
        assert page.execute_script(said) == f"{name}; data in the table below"


def test_a_column_goes_with_what_it_is_about(page):
    loads, facts = "deployment1 user4 users", [f"fact{A}", "size2"]
    assert visible(page, "#fourth tr") == [loads, f"{A}lowhigh", f"{B}lowhigh", *facts]
    choose(page, load="4 users")
    assert visible(page, "#fourth :is(th, td)")[:6] == ["deployment", "4 users", A, "high", B, "high"]
    choose(page, load="", deployment=B)
    assert visible(page, "#fourth tr") == [loads, f"{B}lowhigh"]  # of the other no column is left


def test_a_part_of_which_nothing_is_left_goes_with_its_heading(page):
    assert visible(page, "#second h3") == ["Part", "Facts"]
    choose(page, load="1 user")
    assert visible(page, "#second h3") == ["Facts"]
    assert visible(page, "#second details") == []


def test_a_legend_entry_isolates_its_deployment_everywhere_and_again_shows_all(page):
    from selenium.webdriver.common.keys import Keys

    pressed = "return [...document.querySelectorAll('[aria-pressed=true]')].map((e) => e.dataset.isolate)"
    entry = page.find_element("css selector", f'.legend [data-isolate="{B}"]')
    for is_chosen in (True, False):
        entry.send_keys(Keys.ENTER)
        draw_all(page)
        assert len(shown(page, "lines")) == (1 if is_chosen else 3)
        assert page.execute_script(pressed) == ([B] if is_chosen else [])
        assert page.find_element("id", "filter-deployment").get_attribute("value") == (B if is_chosen else "")
        assert len(visible(page, "#second > .scroll tbody tr")) == (3 if is_chosen else 5)


def test_what_is_said_of_others_in_a_chart_goes_with_them(page):
    choose(page, deployment=B)
    assert visible(page, "[data-chart=ratios] .annotation-text") == [B]
    assert visible(page, "#chart-ratios :is(figcaption, .quantity)") == ["ratios#"]


def test_lines_are_named_where_they_end_and_names_follow_the_filters(page, path):
    names = "[data-chart=lines] .annotation-text"
    assert visible(page, names) == [A, B]
    outside = """
      const frame = document.querySelector('[data-chart=lines]').getBoundingClientRect();
      return [...document.querySelectorAll('[data-chart=lines] .annotation-text')]
        .filter((e) => e.getBoundingClientRect().right > frame.right).length"""
    assert page.execute_script(outside) == 0
    choose(page, deployment=B)
    assert visible(page, names) == [B]
    show(page, path, 390)  # too narrow for names
    draw_all(page)
    assert visible(page, names) == []


# --- links -----------------------------------------------------------------------------------------


def test_a_link_opens_what_its_target_is_folded_into(browser, path):
    opened(browser, path, "")
    assert visible(browser, "#deep") == []
    settled(browser, "location.hash = 'deep'")
    assert visible(browser, "#deep") == ["found"]
    top = browser.execute_script("return document.getElementById('deep').getBoundingClientRect().top")
    edge = browser.execute_script("return document.querySelector('.bar').getBoundingClientRect().bottom")
    assert edge <= top < edge + 100
    assert visible(opened(browser, path, "#deep"), "#deep") == ["found"]


def test_a_link_to_what_is_filtered_out_shows_it(page):
    choose(page, load="4 users")
    follow(page, "#chart-turns")
    assert len(visible(page, "#chart-turns")) == 1
    assert visible(page, "#shown") == []


def test_what_is_shown_is_in_the_address_and_a_page_opened_there_shows_it(page, path):
    choose(page, load="4 users", deployment=B)
    assert address(page) == "#?deployment=vllm+fp16&load=4+users"
    follow(page, "#second")
    there, said = address(page), visible(page, "#shown")
    assert there == "#second?deployment=vllm+fp16&load=4+users"
    opened(page, path, there)
    assert said == visible(page, "#shown") != []
    assert [name for name, *_ in shown(page, "lines")] == [B]
    page.find_element("id", "reset").click()
    assert address(page) == "#second"


@pytest.mark.parametrize(
    ("asked", "left", "said"),
    [
        ("#second?load=1+user", "#second?load=1+user", ["Showing at 1 user"]),
        # They outlast that they leave nothing of the figure.
        ("#chart-turns?load=4+users", "#chart-turns?load=4+users", ["Showing at 4 users"]),
        ("#second?load=9+users&start=&other=1", "#second", []),  # which the page has not
    ],
)
def test_an_address_replaces_what_was_chosen_as_far_as_the_page_has_it(page, path, asked, left, said):
    for is_new in (False, True):
        if is_new:
            opened(page, path, asked)
        else:
            choose(page, start="1")
            settled(page, "location.hash = arguments[0]", asked)
        assert address(page) == left
        assert [each.partition(":")[0] for each in visible(page, "#shown")] == said
        assert bool(visible(page, "#chart-turns")) is (left != "#chart-turns?load=4+users")


def test_back_returns_to_what_was_shown(page):
    follow(page, "#first")
    choose(page, load="4 users")
    follow(page, "#second")
    long = page.execute_script("return history.length")
    follow(page, "#second")  # where the reader is already
    assert page.execute_script("return history.length") == long
    page.find_element("id", "reset").click()
    page.execute_async_script(
        "window.addEventListener('hashchange', () => setTimeout(arguments[0], 0), { once: true });"
        "history.back()"
    )
    assert address(page) == "#first?load=4+users"
    assert len(visible(page, "#shown")) == 1
    settled(page, "history.forward()", wait_ms=100)
    assert address(page) == "#second"
    assert visible(page, "#shown") == []


def test_headings_and_figures_have_links_with_names(page):
    links = page.execute_script(
        "return [...document.querySelectorAll('.anchor')].map((a) => [a.hash, a.ariaLabel])"
    )
    assert ["#first", "Link to First"] in links
    assert ["#chart-lines", f"Link to {FINDING}"] in links


# --- where there is less ---------------------------------------------------------------------------


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
