"""The section on the same requests: what its parts say they are about, for the page's filters."""

from __future__ import annotations

import re

import pytest
from page_data import charts_of
from repeated_run import repeated_run, three

from reports import write_report


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_report(repeated_run(tmp_path_factory.mktemp("paired"), three())).read_text(encoding="utf-8")


def section_of(page: str) -> str:
    return page.partition('<section id="paired"')[2].partition("</section>")[0]


def test_each_load_is_a_part_of_its_own(page) -> None:
    assert re.findall(r'<div data-load="([^"]+)">', section_of(page)) == ["4 users", "1 user"]
    folded = section_of(page).partition('<div data-load="1 user">')[2]
    assert folded.startswith("<details><summary>At 1 user</summary>")


def test_rows_and_lines_name_their_deployment_load_and_turn(page) -> None:
    rows = re.findall(
        r'<tr data-deployment="([^"]+)" data-load="([^"]+)"(?: data-turn="(\d)")?>', section_of(page)
    )
    others = ("llama_cpp gguf-q8_0", "vllm fp16")
    assert set(rows) == {
        (name, load, turn) for name in others for load in ("4 users", "1 user") for turn in ("", "1", "2")
    }
    charts = charts_of(page)
    found = [trace["meta"]["of"] for trace in charts["paired-0"]["traces"]]
    assert {each["deployment"] for each in found} == set(others)
    assert {each["load"] for each in found} == {"4 users"}
