"""The index of runs in a real browser: filter, sorting, links, and no sideways scroll."""

from dataclasses import replace
from pathlib import Path

import pytest
from browser import browser  # noqa: F401
from make_run import all_failed_run, full_run, one_cell_run, row
from test_view import T0

from serving_bench.harness.store import store
from serving_bench.reports import write_report
from serving_bench.reports.page.several_runs import index_rows, write_index

pytestmark = [pytest.mark.browser, pytest.mark.long]

_ROWS = """return [...document.querySelectorAll('.runs tbody tr')].filter((row) => row.offsetParent)
  .map((row) => row.cells[0].innerText)"""


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for month, make in ((1, full_run), (3, all_failed_run), (2, one_cell)):
        path = root / f"run {month}"
        make(path)
        created_at = f"2026-0{month}-01T00:00:00+00:00"
        store.write_record(path / "run.json", replace(store.read_run(path), created_at=created_at))
    write_report(root / "run 2")
    return write_index(root, index_rows(root))


def one_cell(path: Path) -> None:
    one_cell_run(path, [row(0, T0)])


@pytest.fixture
def page(browser, index):  # noqa: F811
    browser.set_window_size(1280, 900)
    browser.get(index.as_uri())
    return browser


def test_rows_are_filtered_by_all_words(page):
    field = page.find_element("id", "filter")
    assert page.execute_script(_ROWS) == ["2026-03-01 00:00", "2026-02-01 00:00", "2026-01-01 00:00"]
    field.send_keys("VLLM awq")
    assert page.execute_script(_ROWS) == ["2026-03-01 00:00"]
    assert page.find_element("css selector", "output").text == "1 of 3"
    field.clear()
    field.send_keys("nothing")
    assert page.execute_script(_ROWS) == []


def test_a_head_sorts_by_its_column_from_the_keyboard(page):
    heads = page.find_elements("css selector", ".runs thead button")
    cells = heads[-1]
    cells.send_keys("\n")
    # 0, 1 and 15 cells are measured; as text 15 would stand before 0 or 1 at one end.
    assert page.execute_script(_ROWS) == ["2026-03-01 00:00", "2026-02-01 00:00", "2026-01-01 00:00"]
    cells.send_keys("\n")
    assert page.execute_script(_ROWS) == ["2026-01-01 00:00", "2026-02-01 00:00", "2026-03-01 00:00"]
    sorts = page.execute_script(
        "return [...document.querySelectorAll('.runs th[scope=col]')].map((head) => head.ariaSort)"
    )
    assert sorts == [*[None] * 8, "descending"]


def test_a_row_leads_to_its_report(page):
    page.find_element("css selector", ".runs tbody a").click()
    assert "run%202/report.html" in page.current_url
    assert page.title.startswith("How does llama_cpp fp16 serve")
