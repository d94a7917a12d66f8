"""Every kind of run makes a page that opens from a file without network, quiet, whole, at each width."""

from dataclasses import replace
from functools import cache

import pytest
from browser import browser as browser
from browser import open_all, problems, requested, show
from make_run import (
    all_failed_run,
    deployment,
    empty_run,
    engines_run,
    every_load_run,
    full_run,
    one_cell_run,
    row,
)
from make_sweep import SIX, sweep_run
from repeated_run import Made, repeated_run
from test_searches import write_search

from serving_bench.harness.contracts import Load
from serving_bench.harness.store import store
from serving_bench.reports import write_report

pytestmark = [pytest.mark.browser, pytest.mark.long]

T0 = 102_000_000_000


def one_cell(path):
    one_cell_run(path, [row(k, T0 + k * 300_000_000) for k in range(20)])


def one_request(path):
    one_cell_run(path, [row(0, T0)])


def cut_short(path):
    """Interrupted while its last start was measured: half of the cells have no record."""
    full_run(path)
    store.write_record(path / "run.json", replace(store.read_run(path), status="interrupted"))
    for number in range(8, 16):
        (path / "cells" / f"{number:03d}" / "cell.json").unlink(missing_ok=True)


def hundred_cells(path):
    engines = ("llama_cpp", "vllm", "sglang", "tgi", "transformers")
    made = [
        Made(deployment(engine, quantization), 1.0 + 0.07 * at + 0.3 * number)
        for at, engine in enumerate(engines)
        for number, quantization in enumerate(("fp16", "awq"))
    ]
    repeated_run(path, made, (Load(concurrency=1), Load(concurrency=8)), repeats=5, requests=25)


def two_scenarios(path):
    """The second cell of each start is of another scenario."""
    full_run(path)
    record = store.read_run(path)
    starts = []
    for start in record.plan.starts:
        first, second = start.cells
        starts.append(replace(start, cells=(first, replace(second, scenario=_other(second)))))
    store.write_record(path / "run.json", replace(record, plan=replace(record.plan, starts=tuple(starts))))
    for cell in store.read_cells(path):
        if cell.number % 2:
            changed = replace(cell, scenario=_other(cell))
            store.write_record(path / "cells" / f"{cell.number:03d}" / "cell.json", changed)


def _other(cell):
    return replace(cell.scenario, name="rag", label="rag")


# What writes each, what its page says at its top, and how many charts it has at least.
KINDS = {
    "full": (full_run, "No winner", 16),
    "engines": (engines_run, "No winner", 16),
    "every_load": (every_load_run, "trace x2", 16),
    "empty": (empty_run, "cut short", 0),
    "all_failed": (all_failed_run, "No cell has a value that counts", 0),
    "one_request": (one_request, "How does llama_cpp fp16 serve", 1),
    "one_cell": (one_cell, "How does llama_cpp fp16 serve", 4),
    "one_deployment": (lambda path: sweep_run(path, SIX[:1], (1, 4), 2, 10.0), "How does vllm fp16 serve", 8),
    "cut_short": (cut_short, "This run was cut short", 8),
    "two_scenarios": (two_scenarios, "rag", 8),
    "search": (lambda path: write_search(path, [[4, 5, 4], [8, 10, 8]]), "users", 3),
    "hundred_cells": (hundred_cells, "Too close to call: ", 15),
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Writes the page of a kind, once, and gives its path."""
    root = tmp_path_factory.mktemp("kinds")

    @cache
    def write(kind):
        KINDS[kind][0](root / kind)
        return write_report(root / kind)

    return write


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_this_kind_has_a_sensible_page(browser, pages, kind):
    _, said, charts = KINDS[kind]
    browser.get_log("browser")
    browser.get_log("performance")
    show(browser, pages(kind))
    open_all(browser)
    assert problems(browser) == []
    assert len(browser.find_elements("css selector", ".chart")) >= charts
    assert [each.text for each in browser.find_elements("tag name", "h1")] != [""]
    assert said in browser.execute_script(
        "return document.querySelector('main').innerText.split(/Decision|Values/)[0]"
    )
    asked = [url for url in requested(browser) if not url.startswith(("data:", "blob:"))]
    assert asked == [pages(kind).as_uri()]


@pytest.mark.parametrize(("width", "theme"), [(390, "dark"), (3840, "light")])
@pytest.mark.parametrize("kind", KINDS)
def test_it_fits_its_screen(browser, pages, kind, width, theme):
    browser.get_log("browser")
    show(browser, pages(kind), width, theme)
    open_all(browser)
    assert problems(browser) == []
