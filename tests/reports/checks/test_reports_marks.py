"""A number with a reason to distrust it bears a mark wherever the page shows it, one without bears none."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from make_run import S, begin_run, deployment, failed_row, row, summary, write_cell, write_start
from page_data import section_of

from serving_bench.harness.contracts import Load, Objective, SearchTerms
from serving_bench.reports import open_run
from serving_bench.reports.checks.examine import CHECKS, clean_of, findings_of, mark_text, marks_of
from serving_bench.reports.checks.finding import Finding
from serving_bench.reports.page.cells import mark_html
from serving_bench.reports.page.document import page
from serving_bench.reports.words.grounds import where

T0 = 102 * S
LOADS = (Load(concurrency=1), Load(concurrency=4))


def rows_of(first_ms=100):
    sent = [T0 + k * S // 3 for k in range(180)]
    chunks = [tuple(at + (first_ms + 10 * j) * 1_000_000 for j in range(10)) for at in sent]
    return [row(k, at, chunk_ns=each) for k, (at, each) in enumerate(zip(sent, chunks, strict=True))]


def written(path, quantizations=("fp16", "awq"), failing=1, repeats=3, **start_changes):
    """Two deployments, two loads, three starts each; of vllm with 4 users 6 of 186 requests fail in each
    start but those from `failing` on."""
    pairs = zip(("llama_cpp", "vllm"), quantizations, strict=False)
    plan = begin_run(path, [deployment(*pair) for pair in pairs], LOADS, repeats=repeats)
    for start in plan.starts:
        write_start(path, start, memory_kind="device", **start_changes)
        for cell in start.cells:
            is_failing = (
                start.deployment.engine == "vllm" and cell.load == LOADS[1] and start.repeat < failing
            )
            rows = rows_of() + [failed_row(200 + k, T0 + S) for k in range(6 if is_failing else 0)]
            write_cell(path, cell, start, rows, summary(100 * S, duration_s=60.0))
    return open_run(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return written(tmp_path_factory.mktemp("marked"))


@pytest.fixture(scope="module")
def html(run):
    return page(run)


class Page(HTMLParser):
    """The cells of each table's rows (text, and the links of marks in them), the ids, and all marks."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.ids, self.marks, self.section = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.section = found["id"] if tag == "section" else self.section
        if tag == "tr":
            self.rows.append((self.section, []))
        elif tag in ("td", "th"):
            self.rows[-1][1].append(["", []])
        elif tag == "a" and found.get("class") == "doubt":
            self.marks.append(found)
            if self.rows and self.rows[-1][1]:
                self.rows[-1][1][-1][1].append(found["href"])

    def handle_data(self, data):
        if self.rows and self.rows[-1][1]:
            self.rows[-1][1][-1][0] += data

    def row(self, section, *begins):
        """The first row of a section whose first cells begin so."""
        return next(
            cells
            for where, cells in self.rows
            if where == section and all(cell[0].startswith(b) for cell, b in zip(cells, begins, strict=False))
        )


def group_of(run, engine, load):
    return next(group for group in run.groups if (group.engine, group.load) == (engine, load))


def test_only_the_cells_and_metrics_of_a_finding_are_marked(run):
    doubted, other = group_of(run, "vllm", "4 users"), group_of(run, "vllm", "1 user")
    assert [each.check for each in marks_of(run, doubted.cells, "ttft_s.p95")] == ["requests_failed"]
    both = marks_of(run, [*other.cells, *doubted.cells], "memory_peak_bytes", "e2e_s.p50")
    assert [each.check for each in both] == ["requests_failed"]
    assert marks_of(run, doubted.cells, "memory_peak_bytes") == ()
    assert marks_of(run, other.cells, "ttft_s.p95") == marks_of(run, doubted.cells[1:2], "e2e_s.p50") == ()


def test_a_comparison_that_may_mislead_is_marked_beside_its_verdict(html):
    found = Page(html)
    assert any(links for _, links in found.row("side", "vllm"))
    assert not any(links for _, links in found.row("side", "llama_cpp"))


def test_every_mark_leads_to_a_reason_on_the_page_and_says_what_it_is(html):
    found = Page(html)
    assert found.marks
    assert {mark["href"].removeprefix("#") for mark in found.marks} <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    for mark in found.marks:
        assert re.match(r"\d+ reasons? to distrust this: \w", mark["aria-label"])
        assert mark["title"] in mark["aria-label"]


def test_the_top_has_every_reason_with_a_link_those_that_mark_a_number_first(run, html):
    box = html.partition('class="why-box doubts"')[2].partition("</div>")[0]
    links = re.findall(r'href="#distrust-(\w+)"', box)
    assert links == ["requests_failed", "quality_not_measured"] == [each.check for each in findings_of(run)]
    assert f"{len(links)} reasons to distrust this" in box


def test_reasons_are_told_with_their_cells_marking_ones_first(run, html):
    section = section_of(html, "trust")
    assert section.index("Numbers with a mark (") < section.index("Worth knowing (")
    assert 'id="distrust-requests_failed"' in section
    assert where(run, findings_of(run)[0]) in section
    clean, unlooked = clean_of(run)
    assert len(clean) + len(unlooked) == len(CHECKS) - 2
    assert f"Looked for and not found: {len(clean)} reasons" in section
    assert f"Not looked for: {len(unlooked)} reasons" in section
    assert "<li>The prefix cache was not empty at first</li>" in section
    assert "<li>Requests failed</li>" not in section


def test_what_had_nothing_to_look_at_is_not_said_to_be_not_found(run, tmp_path):
    """No guard, self-test, quality, speculation or form is in this run; of one start nothing disagrees."""
    clean, unlooked = clean_of(run)
    assert {
        "The machine was busy or not fit",
        "bench's own error is a part of TTFT",
        "The load was beyond bench's self-test",
        "Answers change under load",
        "Speculation changes answers",
        "Answers do not have the form asked for",
    } <= set(unlooked)
    assert {"Starts disagree", "Output lengths differ", "The client was late"} <= set(clean)
    alone = written(tmp_path, quantizations=("fp16",), repeats=1)
    assert {"Starts disagree", "Output lengths differ", "Quality is not known"} <= set(clean_of(alone)[1])


def searched(run):
    """The same cells as if a search had tried them."""
    slo = (Objective("ttft_s", 0.95, 0.5), Objective("success", 0.9))
    record = replace(run.record, slo=slo, search=SearchTerms("concurrency", 1.0, 4.0))
    return replace(run, record=record)


def test_a_search_that_tried_a_load_once_in_three_starts_has_not_few_starts(run):
    once = [c for c in run.planned_cells if (c.load == LOADS[0]) == (c.planned.repeat == 0)]
    few = replace(searched(run), planned_cells=tuple(once))
    assert "single_repeat" not in {each.check for each in findings_of(few)}
    plain = replace(run, planned_cells=tuple(once))
    assert "single_repeat" in {each.check for each in findings_of(plain)}


def test_a_mark_of_several_leads_to_all_and_one_of_none_is_nothing():
    two = [Finding("a", "First <b>", "", ""), Finding("b", "Second", "", "")]
    assert 'href="#distrust"' in mark_html(two)
    assert "First &lt;b&gt;; Second" in mark_html(two)
    assert (mark_text(two), mark_text([]), mark_html([])) == ("▲ 2", "", "")
