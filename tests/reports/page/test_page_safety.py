"""What a page's own policy and script hold against: markup that came through, addresses that name nothing,
and a part of the script that fails; in a real browser."""

import re
from pathlib import Path

import pytest
from browser import browser as browser
from browser import draw_all, show
from make_run import full_run

from serving_bench.reports import write_report
from serving_bench.reports.page.several_runs import index_rows, write_index

pytestmark = [pytest.mark.browser, pytest.mark.long]

# What an escape that was forgotten would let through.
INJECTED = """
  <img src="data:," onerror="document.title = 'pwned'"><svg onload="document.title = 'pwned'"></svg>
  <script>document.title = 'pwned'</script>
  <script type="text/plain" id="plotly">cHduZWQ=</script>"""
ANY_SCRIPT = "script-src 'unsafe-inline'"
DRAWN = "return document.querySelectorAll('.chart .main-svg').length"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return Path(tmp_path_factory.mktemp("safety"))


@pytest.fixture(scope="module")
def report(root) -> Path:
    return write_report(full_run(root / "run"))


@pytest.fixture(scope="module")
def index(root, report) -> Path:
    return write_index(root, index_rows(root))


def with_injected(page: Path, policy: str = "") -> Path:
    """A copy whose body has such markup, after its own; under that policy for scripts, if one is given."""
    whole, count = re.subn("</main>", lambda _: f"{INJECTED}</main>", page.read_text(encoding="utf-8"))
    assert count == 1
    if policy:
        whole, count = re.subn(r"script-src [^;]*", policy, whole, count=1)
        assert count == 1
    made = page.with_name(f"injected-{page.name}")
    made.write_text(whole, encoding="utf-8")
    return made


def title_after_loading(browser, page: Path) -> str:
    show(browser, page)
    browser.execute_async_script("setTimeout(arguments[0], 50)")  # handlers of what failed to load
    return browser.title


@pytest.mark.parametrize("which", ["report", "index"])
def test_markup_that_came_through_does_not_run(browser, request, which):
    page = request.getfixturevalue(which)
    assert title_after_loading(browser, with_injected(page)) != "pwned"
    assert title_after_loading(browser, with_injected(page, ANY_SCRIPT)) == "pwned"


def test_each_script_of_a_page_is_one_that_its_policy_names(report, index):
    assert [page.read_text().count("'sha256-") for page in (report, index)] == [3, 2]
    assert not any("script-src 'unsafe" in page.read_text() for page in (report, index))


def test_the_index_carries_neither_charts_nor_what_draws_them(index):
    page = index.read_text(encoding="utf-8")
    assert not [word for word in ("startFilters", "Plotly", 'id="plotly"') if word in page]
    assert len(page) < 40_000


@pytest.mark.parametrize("address", ["#%", "#%E0%A4%A", "#nowhere", "#%?load=%"])
def test_an_address_that_names_nothing_stops_no_chart_and_no_filter(browser, report, address):
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get(report.as_uri() + address)
    draw_all(browser)
    assert browser.execute_script(DRAWN) > 0
    browser.execute_script("location.hash = arguments[0]", f"{address}%")
    browser.find_element("css selector", ".key [data-isolate]").click()
    assert browser.find_element("id", "shown").text.startswith("Showing ")
    assert browser.get_log("browser") == []


def test_a_part_of_the_script_that_fails_takes_no_chart_with_it_and_is_told(browser, report):
    fails = """const listen = window.addEventListener.bind(window);
      window.addEventListener = (type, ...given) => {
        if (type === 'beforeprint') throw new Error('no printer');
        listen(type, ...given);
      };"""
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": fails})
    browser.get_log("browser")
    show(browser, report)
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    draw_all(browser)
    assert browser.execute_script(DRAWN) > 0
    [said] = browser.get_log("browser")
    assert "startPrinting:" in said["message"]
    assert "no printer" in said["message"]


def test_the_menus_say_where_the_reader_is(browser, report):
    here = """return [...document.querySelectorAll('nav [aria-current=location]')].map((link) => link.hash)"""
    show(browser, report)
    draw_all(browser)
    for name in ("memory", "latency", "trust"):
        browser.execute_async_script(
            "document.getElementById(arguments[0]).scrollIntoView();"
            "requestAnimationFrame(() => requestAnimationFrame(arguments[1]))",
            name,
        )
        assert browser.execute_script(here) == [f"#{name}"]
