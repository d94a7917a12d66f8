"""The timeline in a real browser: drawn, chosen, filtered, and its table."""

from __future__ import annotations

import pytest
from browser import browser as browser
from browser import draw_all, show
from make_run import full_run

from reports import write_report

pytestmark = [pytest.mark.browser, pytest.mark.long]

TITLE = "return document.getElementById('timeline-title').textContent"
PLACE = "const place = document.querySelector('[data-chart=timeline]');"
ROWS = """
  const rows = [...document.querySelectorAll('#timeline-table tbody tr')];
  return rows.map((row) => row.innerText.split('\\t'));"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_report(full_run(tmp_path_factory.mktemp("full")))


def choose(browser, **chosen: str) -> None:
    browser.execute_script("window.bench.choose(arguments[0])", chosen)


def pick(browser, name: str) -> None:
    browser.execute_script(
        """const choice = document.getElementById('timeline-cell');
           choice.value = [...choice.options].find((each) => each.textContent === arguments[0]).value;
           choice.dispatchEvent(new Event('change'));""",
        name,
    )
    draw_all(browser)


def drawn(browser) -> dict[str, list]:
    """Lengths of the bars by phase, in seconds."""
    return browser.execute_script(
        PLACE + "const bars = place.data.filter((trace) => trace.type === 'bar');"
        "return Object.fromEntries(bars.map((trace) => [trace.name, [...trace.x]]))"
    )


def test_lanes_queue_and_memory_share_one_time_axis(browser, path):
    show(browser, path)
    draw_all(browser)
    axes = browser.execute_script(
        PLACE + "return Object.keys(place._fullLayout).filter((key) => /^[xy]axis\\d*$/.test(key)).sort()"
    )
    assert axes == ["xaxis", "yaxis", "yaxis2", "yaxis3"]
    assert browser.execute_script(TITLE) == "llama_cpp fp16, 4 users, start 1"
    bars = drawn(browser)
    # All of the cell: 240 that ended well, each with its three phases, and one that failed.
    assert {name: len(lengths) for name, lengths in bars.items()} == {
        "due, not yet sent": 241,
        "sent, no token yet (queue and prefill)": 240,
        "first token to end (decoding)": 240,
        "failed": 1,
    }
    assert bars["due, not yet sent"][0] == pytest.approx(0.001)


def test_a_failed_request_is_marked(browser, path):
    show(browser, path)
    draw_all(browser)
    crosses = browser.execute_script(
        PLACE + "return place.data.filter((t) => t.mode === 'markers').flatMap((t) => t.customdata)"
    )
    assert len(crosses) == 1
    assert crosses[0].endswith("http_error")


def test_another_cell_is_drawn_when_chosen(browser, path):
    show(browser, path)
    draw_all(browser)
    before = drawn(browser)
    pick(browser, "vllm fp16, 1 user, start 2")
    assert browser.execute_script(TITLE) == "vllm fp16, 1 user, start 2"
    assert drawn(browser) != before


def test_the_table_has_the_requests_of_the_cell_that_is_shown(browser, path):
    show(browser, path)
    draw_all(browser)
    assert browser.execute_script(ROWS) == []
    browser.execute_script("document.querySelector('#timeline details').open = true")
    draw_all(browser)
    rows = browser.execute_script(ROWS)
    assert len(rows) == 241
    assert rows[0][0] == "1"
    pick(browser, "vllm fp16, 1 user, start 1")
    assert len(browser.execute_script(ROWS)) == 61


def test_the_timeline_follows_the_filters(browser, path):
    show(browser, path)
    choose(browser, deployment="vllm fp16", load="1 user", start="2")
    assert browser.execute_script(TITLE) == "vllm fp16, 1 user, start 2"
    offered = browser.execute_script(
        "const left = document.querySelectorAll('#timeline-cell option:not([data-filtered])');"
        "return [...left].map((option) => option.textContent)"
    )
    assert offered == ["vllm fp16, 1 user, start 2"]
    choose(browser, deployment="", load="", start="")
    assert browser.execute_script(TITLE) == "vllm fp16, 1 user, start 2"
