"""Pages as axe-core judges them: all its rules, everything unfolded, in both themes and on a narrow screen.

Rows beyond a table's first few, and charts beyond the first of their kind, are taken away before: they are
made like those, and cost axe most of its time.
"""

import os
from functools import cache
from importlib.metadata import PackageNotFoundError, files

import pytest
from browser import browser as browser
from browser import open_all, show
from make_run import all_failed_run, engines_run, every_load_run, full_run
from make_sides import A, B, sides_run
from make_sweep import SIX, sweep_run

from serving_bench.reports import write_report
from serving_bench.reports.page.several_runs import index_rows, write_comparison, write_index
from serving_bench.reports.two_runs.compare import compare_runs

pytestmark = [pytest.mark.browser, pytest.mark.long]

TRIM = """document.querySelectorAll('tbody').forEach((body) =>
  [...body.rows].slice(4).forEach((row) => row.remove()));
  const kinds = new Set();
  document.querySelectorAll('main figure').forEach((figure) => {
    const kind = figure.id.replace(/(ttft|tpot|itl|e2e)[-_]s|-p?\\d+/g, '');
    kinds.has(kind) ? figure.remove() : kinds.add(kind);
  });"""
RUN = """
  const done = arguments[0];
  const said = (rule, { target, html }) => `${rule}: ${target.join(' ')}: ${html.slice(0, 120)}`;
  axe.run(document, { resultTypes: ['violations'] }).then(({ violations, passes }) =>
    done([violations.flatMap(({ id, nodes }) => nodes.map((node) => said(id, node))), passes.length]),
    (error) => done([[String(error)], 0]))"""


@pytest.fixture(scope="module")
def axe() -> str:
    """The text of axe.min.js (tests/axe.lock)."""
    try:
        [found] = [each for each in files("axe-playwright-python") or () if each.name == "axe.min.js"]
    except PackageNotFoundError:
        message = "no axe-core here (make test-long installs it): accessibility is not checked"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Writes the page of a name, once, and gives its path."""
    root = tmp_path_factory.mktemp("pages")
    return cache(lambda which: MAKE[which](root / which))


def sweep(path):
    return write_report(sweep_run(path, SIX[:4], (4, 16), repeats=3, window_s=12.0))


def comparison(path):
    for name, ttft_ms in (("a", 100), ("b", 140)):
        sides_run(path / name, {A: [ttft_ms, ttft_ms + 1, ttft_ms], B: [120, 121, 119]})
    return write_comparison(compare_runs(path / "a", path / "b"), path / "compare.html")


def index(path):
    write_report(full_run(path / "one"))
    all_failed_run(path / "two")
    return write_index(path, index_rows(path))


MAKE = {
    "full": lambda path: write_report(full_run(path)),
    "engines": lambda path: write_report(engines_run(path)),
    "loads": lambda path: write_report(every_load_run(path)),
    "failed": lambda path: write_report(all_failed_run(path)),
    "sweep": sweep,
    "comparison": comparison,
    "index": index,
}  # fmt: skip


def violations(browser, axe: str) -> list[str]:
    browser.execute_script(TRIM)
    browser.execute_script(axe)
    browser.set_script_timeout(120)
    found, passed = browser.execute_async_script(RUN)
    assert found or passed > 10  # it looked
    return found


# Each page once, in turn at each width and theme; a rule that fails at one fails in most of them.
@pytest.mark.parametrize(
    ("which", "width", "theme"),
    [
        ("full", 390, "dark"),
        ("full", 1280, "light"),
        ("engines", 1280, "dark"),
        ("loads", 390, "light"),
        ("sweep", 1280, "light"),
        ("failed", 390, "dark"),
        ("comparison", 1280, "dark"),
        ("comparison", 390, "light"),
        ("index", 1280, "light"),
        ("index", 390, "dark"),
    ],
)
def test_axe_finds_nothing(browser, axe, pages, which, width, theme):
    show(browser, pages(which), width, theme)
    open_all(browser)
    assert violations(browser, axe) == []


def test_axe_finds_nothing_while_the_page_is_filtered(browser, axe, pages):
    show(browser, pages("sweep"), theme="dark")
    browser.execute_async_script("window.bench.ready.then(arguments[0])")
    browser.execute_script("window.bench.choose({ load: '16 users', start: '2' })")
    browser.execute_script("document.querySelector('.legend button').click()")
    open_all(browser)
    assert violations(browser, axe) == []


def test_axe_finds_nothing_in_the_filters_of_a_narrow_screen(browser, axe, pages):
    show(browser, pages("full"), 390)
    browser.execute_script("document.querySelector('.filters').open = true")
    assert violations(browser, axe) == []


def test_axe_would_find_something(browser, axe, pages):
    show(browser, pages("failed"))
    browser.execute_script("document.getElementById('main').append(document.createElement('button'))")
    [found] = violations(browser, axe)
    assert found.startswith("button-name: ")
