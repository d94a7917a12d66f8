"""Text from models, logs, settings and file names stays text: on the report, the index, the comparison, their
charts, and in Markdown. What cannot be seen is written out, so that nothing turns what stands after it."""

import base64
import gzip
import json
import os
import re
from pathlib import Path

import pytest
from browser import browser as browser
from browser import draw_all, open_all, problems, requested, show, visible_text
from make_hostile import NAME, NASTY, hostile_run

from serving_bench.reports import open_run, write_report
from serving_bench.reports.outputs.as_markdown import markdown_text
from serving_bench.reports.page.looks import escaped, packed_json
from serving_bench.reports.page.several_runs import index_rows, write_comparison, write_index
from serving_bench.reports.two_runs.compare import compare_runs

pytestmark = [pytest.mark.browser, pytest.mark.long]

UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
WHICH = ("report", "index", "comparison")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return Path(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def run_dir(root) -> Path:
    return hostile_run(root / NAME)


@pytest.fixture(scope="module")
def pages(root, run_dir) -> dict[str, Path]:
    made = {"report": write_report(run_dir, root / "report.html")}
    write_report(run_dir)
    other = hostile_run(root / f"{NAME} 2")
    made["comparison"] = write_comparison(compare_runs(run_dir, other), root / "compare.html")
    made["index"] = write_index(root, index_rows(root))
    return made


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("which", WHICH)
def test_nothing_in_a_text_is_run_drawn_or_asked_for(browser, pages, which, width):
    browser.get_log("browser")
    browser.get_log("performance")
    show(browser, pages[which], width)
    open_all(browser)
    assert browser.title != "pwned"
    assert (
        browser.find_elements(
            "css selector", "img, main script:not([type='text/plain']), main style, [onerror]"
        )
        == []
    )
    assert [
        each.text for each in browser.find_elements("css selector", "main b") if each.text == "bold"
    ] == []
    assert problems(browser) == []
    assert [url for url in requested(browser) if not url.startswith(("data:", "blob:"))] == [
        pages[which].as_uri()
    ]


@pytest.mark.parametrize("which", WHICH)
def test_what_cannot_be_seen_is_written_out(browser, pages, which):
    show(browser, pages[which])
    open_all(browser)
    shown = visible_text(browser)
    assert UNSEEN.findall(shown) == []
    assert "\\u202e" in shown
    assert UNSEEN.findall(pages[which].read_text(encoding="utf-8")) == []


def test_the_filters_know_a_deployment_with_such_a_name(browser, pages):
    show(browser, pages["report"])
    draw_all(browser)
    browser.execute_script("document.querySelector('.legend button').click()")
    draw_all(browser)
    labels = browser.execute_script(
        "return [...document.querySelectorAll('main tr[data-deployment]:not([data-filtered])')]"
        ".map((row) => row.dataset.deployment)"
    )
    assert len(set(labels)) == 1
    names = browser.execute_script(
        "return [...document.querySelectorAll('.chart')].filter((place) => place.checkVisibility())"
        ".flatMap((place) => place.data || [])"
        ".filter((trace) => trace.opacity !== 0.25).map((trace) => trace.meta?.of?.deployment)"
        ".filter(Boolean)"
    )
    assert set(names) == set(labels)


def test_markdown_has_no_markup_from_a_text(run_dir):
    written = markdown_text(open_run(run_dir))
    assert UNSEEN.findall(written) == []
    unfenced = re.sub(r"(?ms)^(`{3,}).*?^\1$", "", written)
    outside = re.sub(r"`[^`]*`", "", re.sub(r"\\.", "", unfenced))
    ours = {"<details>", "</details>", "<summary>", "</summary>", "<br>"}
    assert set(re.findall("<[^>]*>?", outside)) <= ours


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("a\u202eb", "a\\u202eb"),
        ("\\\u202e", "\\\\u202e"),
        ("\x00\x1b[0m", "\\u0000\\u001b[0m"),
        (os.fsdecode(b"\xff\xfe"), "\\udcff\\udcfe"),
        ("two\nlines\tof \U0001f600 שלום", "two\nlines\tof \U0001f600 שלום"),
    ],
)
def test_markup_and_data_write_it_the_same(given, said):
    assert escaped(given) == said
    data = packed_json("charts", {given: [given]}).partition(">")[2].partition("<")[0]
    assert json.loads(gzip.decompress(base64.b64decode(data))) == {said: [said]}


def test_the_text_tried(run_dir):
    assert UNSEEN.search(NASTY)
    assert UNSEEN.search(run_dir.name)
