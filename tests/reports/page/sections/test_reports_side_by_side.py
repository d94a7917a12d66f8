"""Verdicts on the page: the answer, the values side by side, and what is said where there are none."""

import math
import re

import pytest
from make_run import HOSTILE, deployment
from page_data import plain, section_of
from repeated_run import LOADS, Made, repeated_run, three

from serving_bench.harness.contracts import CompareTerms, Load, SearchTerms
from serving_bench.reports import open_run, write_report
from serving_bench.reports.page.drawing.charts import log_ticks
from serving_bench.reports.page.looks import Look, ratio_frame, ratio_picture
from serving_bench.reports.page.sections import side_by_side
from serving_bench.reports.stats.intervals import Verdict
from serving_bench.reports.verdicts.comparisons import comparisons_of
from serving_bench.reports.words.verdict_words import heading_of, ratio_text, title_of, word_of

FP16, Q8 = deployment("llama_cpp", "fp16"), deployment("llama_cpp", "gguf-q8_0")
VLLM, AWQ = deployment("vllm", "fp16"), deployment("vllm", "awq")
ONE = (Load(concurrency=4),)
NOISE = (1.01, 1.0, 0.99, 1.0, 1.01)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return repeated_run(tmp_path_factory.mktemp("three"), three())


@pytest.fixture(scope="module")
def page(run_dir):
    return write_report(run_dir).read_text(encoding="utf-8")


# --- words -----------------------------------------------------------------------------------------


def ratio(kind, mean, low, high, **more) -> Verdict:
    return Verdict(kind, mean, low, high, k=5, **more)


@pytest.mark.parametrize(
    ("name", "kind", "word"),
    [
        ("output_tokens_per_s", "better", "faster"),
        ("ttft_s.p50", "worse", "slower"),
        ("memory_peak_bytes", "better", "smaller"),
        ("ttft_s.p50", "same", "same within 5 %"),
        ("ttft_s.p50", "unknown", "cannot tell"),
        ("ttft_s.p50", "none", "no verdict"),
    ],
)
def test_a_verdict_is_a_word_of_its_metric(name, kind, word):
    assert word_of(name, Verdict(kind), 0.05) == word


@pytest.mark.parametrize(
    ("name", "ends", "word"),
    [("output_tokens_per_s", (1.02, 1.04), "faster, by less than 5 %"),
     ("ttft_s.p50", (1.02, 1.04), "slower, by less than 5 %"),
     ("ttft_s.p50", (0.96, 0.98), "faster, by less than 5 %"),
     ("ttft_s.p50", (0.99, 1.04), "same within 5 %")],
)  # fmt: skip
def test_what_is_ahead_within_the_margin_is_not_said_to_be_the_same(name, ends, word):
    assert word_of(name, Verdict("same", 1.0, *ends), 0.05) == word


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        (ratio("better", 1.312, 1.238, 1.3815), "1.31x [1.24, 1.38]"),
        (ratio("better", 0.0412, 0.0381, 0.0449), "0.041x [0.038, 0.045]"),
        # Where the interval leaves 1 out, no end reads as 1.
        (ratio("better", 1.031, 1.0011, 1.0613), "1.031x [1.001, 1.061]"),
        (ratio("unknown", 1.5, 0.00001, 2e9), "1.50x [<0.01, >1,000]"),
        (ratio("same", 1.0110, 1.0109, 1.0111), "1.01x [1.01, 1.01]"),
        (ratio("same", 1.0003, 1.0002, 1.0004), "1.0003x [1.0002, 1.0004]"),
        # Beside the mean no more than three digits, however narrow the interval.
        (ratio("better", 0.58123, 0.57912, 0.58334), "0.581x [0.579, 0.583]"),
        (ratio("better", 0.581234, 0.581229, 0.581239), "0.581x [0.581, 0.581]"),
        (ratio("worse", 1.2133, 1.2131, 1.2135), "1.21x [1.21, 1.21]"),
        (ratio("worse", 38.114, 29.634, 49.021), "38.1x [29.6, 49.0]"),
        (ratio("same", 1.0004, 0.9961, 1.0047), "1.00x [1.00, 1.00]"),
        (ratio("same", 1.0, 1.0, 1.0), "1.00x [1.00, 1.00]"),
        (Verdict("none", 1.1, 0.0, float("inf"), k=1), ""),
        (Verdict("none"), ""),
    ],
)
def test_a_ratio_stands_with_its_interval_or_not_at_all(verdict, text):
    assert ratio_text("output_tokens_per_s", verdict) == text


def test_an_additive_metric_is_a_difference_in_its_unit():
    verdict = ratio("worse", -0.021, -0.03, -0.012, is_log=False)
    assert ratio_text("success_share", verdict) == "−2.1 [−3.0, −1.2] %"


def test_a_heading_names_value_and_unit():
    assert heading_of("ttft_s.p95") == "TTFT p95 ms"
    assert heading_of("output_tokens_per_s") == "output tokens/s"
    assert heading_of("cost_per_million_output_tokens", "EUR") == "cost per million output tokens EUR"
    assert title_of("memory_peak_bytes") == "peak memory"


# --- section ---------------------------------------------------------------------------------------


def test_the_section_has_rule_ratio_interval_and_word(page):
    text = plain(section_of(page, "side"))
    assert "(96 % confidence, corrected for 3 comparisons). Same: within 5 %." in text
    assert "a block is one repeat" in text
    # Against the leader of each column, who is 1.25 times as fast in half of the memory.
    assert re.search(r"vllm fp16 .*?0\.80x, slower (?:▲ \d )?\[0\.\d\d, 0\.\d\d\]", text)
    assert re.search(r"vllm fp16 .*?2\.00x, larger (?:▲ \d )?\[2\.00, 2\.00\]", text)
    assert text.index("At 4 users") < text.index("At 1 user")


def test_a_word_has_its_class_so_that_colour_is_never_alone(page):
    said = re.findall(r'class="verdict (\w+)"[^>]*>(?:[\d.]+x, )?(\w+)', section_of(page, "side"))
    assert {word for kind, word in said if kind == "worse"} == {"slower", "larger"}


def test_the_load_told_first_is_open(page):
    shown, *folded = re.split(r"<summary>At ", section_of(page, "side"))
    assert "<h3>At 4 users</h3>" in shown
    assert [each.partition("<")[0] for each in folded] == ["1 user"]


def test_without_verdicts_the_section_says_why_and_has_the_values(tmp_path):
    found = side_by_side.values(open_run(repeated_run(tmp_path, three(), ONE, repeats=2)))
    text = plain(found.body)
    assert "No verdicts: a verdict needs 3 starts of each deployment or more, here 2." in text
    assert 'class="verdict' not in found.body
    assert [chart.id for chart in found.charts] == ["startup"]


def test_a_pair_without_a_verdict_says_why(tmp_path):
    def replaced(start):
        return {"resolved": {"kernel_stand_in": f"pure Python {HOSTILE}"}} if start.deployment == Q8 else {}

    path = repeated_run(tmp_path, three(), ONE, start_changes=replaced)
    found = side_by_side.values(open_run(path)).body
    assert "llama_cpp gguf-q8_0: pure Python" in plain(found)
    assert "<script>" not in found


def test_a_metric_that_may_be_0_is_compared_by_differences(tmp_path):
    terms = CompareTerms(metrics=("success_share",))
    fails = Made(Q8, changes=lambda number: {"outcome": "timeout"} if number % 5 == 1 else {})
    path = repeated_run(tmp_path, [Made(FP16), fails], ONE, compare=terms)
    found = side_by_side.values(open_run(path))
    assert [chart.id for chart in found.charts] == ["startup"]
    assert re.search(r"\[−?[\d.]+, −?[\d.]+\] %", plain(found.body))


def test_one_deployment_has_values_and_no_verdicts(tmp_path):
    found = side_by_side.values(open_run(repeated_run(tmp_path, [Made(FP16)], LOADS, repeats=3)))
    assert "No verdicts: no two deployments serve the same model." in found.body


def test_a_search_compares_its_answers_elsewhere(tmp_path):
    run = open_run(repeated_run(tmp_path, [Made(FP16), Made(Q8)], ONE, repeats=3, search=SearchTerms()))
    assert "a search tries different loads" in str(comparisons_of(run).why_none)
    assert 'class="verdict' not in side_by_side.values(run).body


@pytest.mark.parametrize(
    ("low", "high"), [(0.97, 1.03), (0.9, 1.3), (0.5, 1.1), (0.4, 6.0), (0.05, 20), (1e-3, 9)]
)
def test_ticks_of_ratios_are_few_and_have_one(low, high):
    ticks = log_ticks(low, high)["tickvals"]
    assert 1.0 in ticks
    assert 2 <= len(ticks) <= 9
    assert all(low <= tick <= high for tick in ticks)


def drawn(ratio, frame):
    """The middle, both ends and 1 as they are drawn, in px."""
    svg = ratio_picture(Look("vllm fp16", "--c-blue"), ratio, frame)
    one, low, high = (float(found) for found in re.findall(r' x[12]="([\d.]+)"', svg)[1:4])
    return float(re.search(r"translate\(([\d.]+) ", svg)[1]), low, high, one


def test_a_ratio_is_drawn_with_its_interval_beside_1():
    frame = ratio_frame([(1.2, 1.1, 1.3), (0.9, 0.8, 0.95)])
    assert frame == (0.8, 1.3)
    at, low, high, one = drawn((1.2, 1.1, 1.3), frame)
    assert 5 < one < low < at < high == 145
    assert (at - one) / (high - one) == pytest.approx(math.log(1.2) / math.log(1.3), abs=0.01)
    assert drawn((0.9, 0.8, 0.95), frame)[1] == 5
    assert ratio_frame([]) == (0.9, 1.1)


def test_an_interval_beyond_any_sense_does_not_squeeze_the_others():
    frame = ratio_frame([(1.2, 1.1, 1.3), (0.9, 1e-5, 1e6)])
    assert frame == (0.02, 50)
    at, low, high, one = drawn((1.2, 1.1, 1.3), frame)
    assert one < low < at < high
    assert drawn((0.9, 0.0, 1e6), frame)[1:3] == (5, 145)


# --- what it is about ------------------------------------------------------------------------------


def test_rows_say_which_deployment_and_load_they_are_about(page):
    rows = re.findall(r'<tr data-deployment="([^"]+)" data-load="([^"]+)"', section_of(page, "side"))
    assert {("vllm fp16", "4 users"), ("llama_cpp fp16", "1 user")} <= set(rows)
    starts = re.findall(r'<tr data-deployment="[^"]+" data-load="[^"]+" data-start="(\d)"', page)
    assert set(starts) == set("12345")
