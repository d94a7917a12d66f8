"""The first screen: question, traffic, answer, table, reasons to distrust; and the answer in one line."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from make_run import (
    HOSTILE,
    S,
    all_failed_run,
    deployment,
    empty_run,
    full_run,
    row,
    start_record,
    starts_run,
)
from repeated_run import Made, repeated_run, three
from test_reports_decision import BROKEN, FAST, MIDDLE, UNCLEAR, run_of, searched, up_to

from serving_bench.harness.contracts import (
    CompareTerms,
    GuardFinding,
    Load,
    QualityRecord,
    ScenarioChoice,
    Skip,
    quoted,
)
from serving_bench.harness.store import store
from serving_bench.reports import open_run
from serving_bench.reports.checks.examine import findings_of
from serving_bench.reports.data.run import Run
from serving_bench.reports.page.answer import opening
from serving_bench.reports.page.document import page
from serving_bench.reports.page.looks import looks
from serving_bench.reports.words.answer import Said, answers_of, headline
from serving_bench.reports.words.described import what_was_run
from serving_bench.reports.words.verdict_words import bound_words, clipped

FOUR = (Load(concurrency=4),)
BASE, OTHER = Made(deployment("llama_cpp", "fp16")), Made(deployment("vllm", "awq"), 0.8)


class Table:
    """The heads and the rows of a table, as text, and the deployments that its rows are about."""

    def __init__(self, page: str) -> None:
        whole = page.partition('<table class="standing">')[2].partition("</table>")[0]
        head, _, body = whole.partition("<tbody>")
        self.heads = [as_text(each) for each in re.findall(r"<th\b.*?</th>", head, re.S)]
        rows = re.findall(r"<tr\b.*?</tr>", body, re.S)
        self.rows = [
            [as_text(cell) for cell in re.findall(r"<t[hd]\b.*?</t[hd]>", row, re.S)] for row in rows
        ]
        self.about = [unescape(label) for label in re.findall(r'<tr[^>]*data-deployment="(.*?)"', body)]

    def column(self, begins: str) -> list[str]:
        at = next(place for place, head in enumerate(self.heads) if head.startswith(begins))
        return [row[at] for row in self.rows]


def as_text(page: str) -> str:
    return unescape(" ".join(re.sub("<[^>]*>", " ", page).split()))


def table_of(run: Run) -> Table:
    return Table(opening(run))


def plain(run: Run) -> str:
    return as_text(opening(run))


def made_run(path: Path, made: Sequence[Made], loads: Sequence[Load] = FOUR, **given: Any) -> Run:
    return open_run(repeated_run(path, made, loads, **given))


# --- the table -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("decided")
    return made_run(path, three(), (Load(concurrency=1), Load(concurrency=4)))


def test_the_winner_stands_first_in_a_table_of_all_with_ratios_to_it(decided: Run) -> None:
    table = table_of(decided)
    assert [row[0] for row in table.rows] == ["llama_cpp gguf-q8_0", "vllm fp16", "llama_cpp fp16"]
    assert table.about == [row[0] for row in table.rows]
    assert table.heads[1] == "output tokens/s at 4 users"
    ratios = table.column("against the leader")
    assert ratios[0] == "1.00x"
    assert all(re.fullmatch(r"0\.80x \[0\.\d\d, 0\.\d\d\]", ratio) for ratio in ratios[1:])
    assert table.column("peak memory GiB")[0].startswith("0.5")


def test_what_is_decided_is_bold_and_the_winner_is_marked(decided: Run) -> None:
    text = opening(decided)
    assert text.count('<span class="winner">') == 1
    assert '<b class="lead">' in text.partition('<span class="winner">')[2].partition("</tr>")[0]
    assert (
        "A winner beats every other ranked deployment, each in its own paired t test over 5 repeats (96 % "
        "confidence). Bold: the decided leader of a column."
    ) in text
    assert (
        "Each interval against the leader is that of its own test (96 % confidence); that all of them hold "
        "is less sure."
    ) in plain(decided)
    drawn = re.findall(r'<svg class="ratio" .*?</svg>', text)
    assert len({re.search(r'class="one" x1="([\d.]+)"', each)[1] for each in drawn}) == 1  # type: ignore[index]
    assert [each.count('aria-hidden="true"') for each in drawn] == [1, 1, 1]


def test_a_ratio_is_drawn_with_the_deployments_own_mark(decided: Run) -> None:
    text = opening(decided)
    for look in looks(decided).values():
        row = next(row for row in text.split("<tr") if f'data-deployment="{look.label}"' in row)
        own = re.search(r"<(?:circle|rect|path) [^>]*>", row)[0]  # type: ignore[index]
        assert row.count(own) == 2, look


def test_the_legend_has_the_order_of_the_rows(decided: Run) -> None:
    legend = page(decided).partition('class="key legend"')[2].partition("</header>")[0]
    assert re.findall(r'data-isolate="(.*?)"', legend) == table_of(decided).about


def test_one_interval_against_the_leader_is_the_answers_own(tmp_path: Path) -> None:
    assert "that all of them hold" not in plain(made_run(tmp_path, [BASE, OTHER]))


def test_a_lead_in_a_share_and_the_lack_of_one_are_told_without_a_ratio(tmp_path: Path) -> None:
    some_fail = replace(OTHER, changes=lambda k: {"outcome": "reset"} if k % 10 == 0 else {})
    given = {
        "compare": CompareTerms(metrics=("success_share",)),
        "settings": {"compare.metric": ["success_share"]},
    }
    [said] = answers_of(made_run(tmp_path, [BASE, some_fail], **given))
    assert said.lead == "Serve llama_cpp fp16"
    assert said.text.startswith("It is ahead of vllm awq in success at 4 users (96 % confidence)")
    as_many = replace(BASE, changes=lambda k: {"outcome": "reset"} if k % 10 == 5 else {})
    [said] = answers_of(made_run(tmp_path / "level", [as_many, some_fail], **given))
    assert said.lead.startswith("Too close to call: ")
    assert said.text.startswith("No test tells them apart in success at 4 users (96 % confidence, 5 repeats)")


def test_if_nothing_is_the_engines_own_speed_no_deployment_can_be_judged(tmp_path: Path) -> None:
    run = made_run(
        tmp_path, [BASE, OTHER], start_changes=lambda start: {"resolved": {"kernel_stand_in": True}}
    )
    [said] = answers_of(run)
    assert said.lead == "No winner"
    assert said.text.startswith(
        "At 4 users no deployment can be judged: llama_cpp fp16: its kernels are stand-ins"
    )


def test_without_a_test_there_are_values_best_first_and_no_ratio(tmp_path: Path) -> None:
    run = made_run(tmp_path, [BASE, OTHER], repeats=2)
    table = table_of(run)
    assert [row[0].split()[0] for row in table.rows] == ["vllm", "llama_cpp"]
    assert not any("leader" in head for head in table.heads)
    text = plain(run)
    assert "No winner. At 4 users: a verdict needs 3 repeats in which all have a value, here 2." in text
    assert f"More repeats may settle it: bench run --resume {tmp_path} repeats=5" in text


def test_a_run_that_was_cut_short_is_resumed_before_it_is_advised_more_repeats(tmp_path: Path) -> None:
    whole = made_run(tmp_path, [BASE, OTHER], repeats=2)
    shutil.rmtree(tmp_path / f"cells/{whole.planned_cells[-1].number:03d}")
    store.write_record(tmp_path / "run.json", replace(whole.record, status="interrupted"))
    [answer] = answers_of(open_run(tmp_path))
    assert answer.note == f"What was not measured may settle it: bench run --resume {tmp_path}"


def test_more_repeats_are_not_advised_where_no_window_had_a_request(tmp_path: Path) -> None:
    run = made_run(tmp_path, [BASE, OTHER], repeats=2, requests=0)
    assert "More repeats may settle it" not in plain(run)
    assert [row[1] for row in table_of(run).rows] == ["–", "–"]


def test_more_repeats_are_not_advised_where_work_is_not_the_same(tmp_path: Path) -> None:
    longer = replace(OTHER, changes=lambda number: {"input_tokens": 999})
    text = plain(made_run(tmp_path, [BASE, longer], repeats=2))
    assert "No winner. At 4 users: their prompts are not the same" in text
    assert "More repeats may settle it" not in text


DIED = {"status": "failed", "error": "it died"}


def test_the_load_is_the_highest_that_all_have_been_measured_at(tmp_path: Path) -> None:
    def changes(cell: Any, start: Any) -> dict[str, Any]:
        return DIED if (start.deployment.engine, cell.load.concurrency) == ("vllm", 4) else {}

    loads = (Load(concurrency=1), Load(concurrency=4))
    text = plain(made_run(tmp_path, [BASE, OTHER], loads, repeats=3, cell_changes=changes))
    assert "Serve vllm awq. It has 1.25x the output tokens/s of llama_cpp fp16 at 1 user (at least" in text


def test_a_deployment_that_failed_stands_last_with_the_reason(tmp_path: Path) -> None:
    made = [BASE, replace(OTHER, slow=1.0), three()[1]]
    run = made_run(tmp_path, made, repeats=3, cell_changes=lambda _, start: DIED if is_vllm(start) else {})
    assert table_of(run).rows[-1][:2] == ["vllm awq not ranked: it failed: it died", "–"]
    assert "Not compared: vllm awq." in plain(run)


def is_vllm(start: Any) -> bool:
    return bool(start.deployment.engine == "vllm")


@pytest.mark.parametrize(
    ("scenario", "heads"),
    [("fixed", ["prefill tokens/s", "decode tokens/s"]), ("agent_loop", ["time per task", "tasks finished"])],
)
def test_the_table_has_what_only_such_traffic_has(tmp_path: Path, scenario: str, heads: list[str]) -> None:
    rows = [row(k, (103 + k) * S, turns=1, turn=0, conversation=k) for k in range(6)]
    path = starts_run(tmp_path, rows, rows, rows, scenario=ScenarioChoice(scenario, {}, scenario))
    shown = table_of(open_run(path)).heads
    for head in heads:
        assert any(each.lower().startswith(head) for each in shown), shown


def test_one_deployment_that_was_interrupted_is_not_said_to_have_lost(tmp_path: Path) -> None:
    """Of two models, each of which has an answer of its own."""
    made, cut = [BASE, Made(deployment("vllm", "awq", "other-lm"))], {"status": "interrupted"}
    cut["error"] = "interrupted"
    run = made_run(tmp_path, made, repeats=3, cell_changes=lambda _, start: cut if is_vllm(start) else {})
    text = plain(run)
    assert "Not measured. At 4 users, other-lm: vllm awq: interrupted." in text
    assert "No winner" not in text
    assert "it failed" not in text


BUSY = GuardFinding("foreign_load", quoted("other programs used 71 % of the processor"), "during", "suspect")


SUSPECT = {"validity": "suspect", "guard": (BUSY,)}


def test_rows_of_a_disturbed_machine_bear_the_mark_of_side_by_side(tmp_path: Path) -> None:
    def changes(cell: Any, start: Any) -> dict[str, Any]:
        return {} if is_vllm(start) and start.repeat == 1 else SUSPECT

    run = made_run(tmp_path, [BASE, OTHER], repeats=2, cell_changes=changes)
    assert [row[0] for row in table_of(run).rows] == ["vllm awq", "llama_cpp fp16 ▲ starts 1, 2 suspect"]


@pytest.mark.parametrize(
    ("slow", "said"),
    [
        ((1.0, 8.0), "– for TTFT or TPOT: fewer than 11 requests."),
        ((8.0, 8.0), "No TTFT or TPOT: fewer than 11 requests."),
        ((1.0, 1.0), None),
    ],
)
def test_a_latency_without_a_value_says_why_below_the_table(
    tmp_path: Path, slow: tuple[float, float], said: str | None
) -> None:
    made = [replace(each, slow=by) for each, by in zip((BASE, OTHER), slow, strict=True)]
    run = made_run(tmp_path, made, repeats=2)
    below = as_text(opening(run).partition('<table class="standing">')[2].partition("</table>")[2])
    assert (f" {said} " in f" {below} ") if said else "fewer than 11 requests" not in below
    assert any(head.startswith("TTFT") for head in table_of(run).heads) is (min(slow) == 1.0)


def test_a_reason_that_holds_for_all_deployments_says_so(tmp_path: Path) -> None:
    def changes(cell: Any, start: Any) -> dict[str, Any]:
        text = f"other programs used {70 + start.index} % of the processor"
        return {"validity": "suspect", "guard": (replace(BUSY, fact=quoted(text)),)}

    text = plain(made_run(tmp_path, three(), repeats=2, cell_changes=changes))
    assert "so there is no verdict: all 3 deployments: 2 starts." in text
    busy = "other programs used 70 % of the processor (during)."
    assert f": all 3 deployments, such as llama_cpp fp16 at 4 users (start 1): {busy}" in text


@pytest.mark.parametrize(
    ("is_busy", "said"),
    [
        (
            lambda start: not is_vllm(start),
            "The machine was busy or not fit : 2 deployments: {busy} (during).",
        ),
        (lambda start: start.index == 2, "not fit : vllm fp16 at 4 users (start 1): {busy}"),
    ],
)
def test_a_reason_names_one_deployment_or_says_how_many_it_holds_for(tmp_path: Path, is_busy: Any, said: str):
    changed = {"cell_changes": lambda _, start: SUSPECT if is_busy(start) else {}}
    text = plain(made_run(tmp_path, three(), repeats=3, **changed))
    assert said.format(busy="other programs used 71 % of the processor") in text


def test_with_an_slo_those_that_miss_it_stand_last_and_say_so(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"tgi fp16": BROKEN, "vllm fp16": MIDDLE, "vllm awq": FAST})
    first_last = ["vllm awq", "vllm fp16", "tgi fp16 not ranked: it misses the SLO"]
    assert [row[0] for row in table_of(run).rows] == first_last
    lead = (
        "Serve vllm awq. It has 1.33x the output tokens/s of vllm fp16 at 4 users within the SLO (at least 1."
    )
    assert lead in plain(run)
    assert "Not compared: tgi fp16." in plain(run)


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ((FAST, BROKEN), "Serve vllm awq. It is the only one known to keep the SLO at 4 users"),
        ((FAST, UNCLEAR),
         "vllm awq. It is the only one known to keep the SLO at 4 users: output tokens/s 166.7"),
        ((BROKEN, UNCLEAR),
         "No winner. No deployment is known to keep the SLO (p95 TTFT 300 ms, 98 % success) at any load"),
        ((FAST,), "vllm awq. It is known to keep the SLO at 4 users: output tokens/s 166.7"),
    ],
)  # fmt: skip
def test_who_alone_is_known_to_keep_the_slo_is_served(tmp_path: Path, does: Any, said: str) -> None:
    run = run_of(tmp_path, dict(zip(("vllm awq", "tgi fp16"), does, strict=False)))
    assert said in plain(run)
    assert headline(run).startswith(said.partition(" (")[0])


def test_a_search_has_a_row_per_deployment_at_its_own_highest_load(tmp_path: Path) -> None:
    does = {"vllm awq": up_to(16, FAST), "vllm fp16": up_to(2, replace(MIDDLE, counts=(140, 141, 140)))}
    run = searched(tmp_path, does, (1, 2, 3, 16, 17))
    table = table_of(run)
    said = "Serve vllm awq. It keeps the SLO up to 16 users on each of 3 starts, next best vllm fp16 up to 2 "
    assert headline(run).startswith(said)
    assert table.column("keeps the SLO up to") == ["16 users", "2 users"]
    assert table.column("output tokens/s there")[0].startswith("166.7")


def test_several_models_have_an_answer_and_a_table_each(tmp_path: Path) -> None:
    other = [replace(deployment("vllm", q, "other-lm"), label=f"vllm other {q}") for q in ("fp16", "awq")]
    text = opening(made_run(tmp_path, [BASE, OTHER, Made(other[0]), Made(other[1], 0.5)], repeats=5))
    assert text.count('<table class="standing">') == 2
    assert re.findall(r"<h2>(.*?)\s*</h2>", text)[:2] == ["Serve vllm awq.", "Serve vllm other awq."]
    assert "of llama_cpp fp16 at 4 users, tiny-lm (at least" in as_text(text)


def test_with_an_slo_each_family_of_loads_has_an_answer(tmp_path: Path) -> None:
    rate = Load(concurrency=None, rate_per_s=2.0, arrival="constant")
    run = run_of(tmp_path, {"vllm awq": FAST, "tgi fp16": MIDDLE}, (Load(concurrency=1), rate))
    assert len(answers_of(run)) == 2


# --- the sentences ---------------------------------------------------------------------------------


def said(path: Path, made: Sequence[Made], **given: Any) -> Said:
    [found] = answers_of(made_run(path, made, **given))
    return found


UNSTEADY = (1.0, 1.1, 0.95, 1.06, 0.97)


def test_a_winner_is_said_with_its_lead_how_sure_and_unless_what(tmp_path: Path) -> None:
    small = Made(deployment("llama_cpp", "gguf-q4_0"), 0.9, 0.4)
    found = said(tmp_path, [BASE, OTHER, small])
    assert found.lead == "Serve vllm awq"
    assert re.fullmatch(
        r"It has 1\.1\dx the output tokens/s of the next best, llama_cpp gguf-q4_0, at 4 users "
        r"\(at least 1\.\d\dx, 96 % confidence\), with 2\.50x the memory\.",
        found.text,
    ), found.text
    assert found.unless == (
        "If peak memory matters most: llama_cpp gguf-q4_0 needs the least (0.31 against 0.77 GiB)."
    )


@pytest.mark.parametrize(
    ("ratio", "bound", "words"),
    [(1.14, 1.0647, ("1.14x", "1.06x")), (1.14, 1.0699, ("1.14x", "1.06x")),
     (1.0049, 1.0031, ("1.005x", "1.003x")), (1.00004, 1.00002, ("1.00004x", "1.00002x")),
     (0.8, 0.951, ("0.80x", "0.96x")), (0.9991, 0.9998, ("0.9991x", "0.9998x"))],
)  # fmt: skip
def test_a_bound_is_never_said_to_be_more_than_it_is_nor_rounded_to_1(ratio, bound, words) -> None:
    assert bound_words(ratio, bound) == words


@pytest.mark.parametrize(
    ("fp16", "next_best", "said"),
    [
        (2, 1, ", on 4.0x the threads (4 against 1)."),
        (1, 2, ", on 2.0x the threads (4 against 2)."),
        (1, 4, "; llama_cpp fp16 used 1 thread, vllm awq 4."),
        (4, 4, "96 % confidence)."),
    ],
)
def test_means_are_held_against_the_next_best_and_of_another_are_its_own(
    tmp_path: Path, fp16: int, next_best: int, said: str
) -> None:
    def changes(start: Any) -> dict[str, Any]:
        threads = {"fp16": fp16, "awq": 4, "gguf-q4_0": next_best}[start.deployment.quantization]
        return {"resolved": {"threads": threads}}

    made = [BASE, OTHER, Made(deployment("llama_cpp", "gguf-q4_0"), 0.9)]
    run = made_run(tmp_path, made, start_changes=changes)
    # The cores that were measured say it better.
    assert "threads" not in answers_of(run)[0].text
    for path in tmp_path.rglob("host.parquet"):
        path.unlink()
    [found] = answers_of(open_run(tmp_path))
    assert found.text.endswith(said), found.text


def test_two_too_close_to_call_are_named_with_the_repeats_that_would_tell(tmp_path: Path) -> None:
    near = replace(BASE, slow=0.85, per_repeat=UNSTEADY)
    found = said(tmp_path, [near, replace(OTHER, slow=0.9), replace(three()[2], slow=2.0)])
    assert found.lead == "Too close to call: llama_cpp fp16 or vllm awq"
    assert re.fullmatch(
        r"The first has 1\.0\dx \[0\.\d+, 1\.\d+\] the output tokens/s of the second at 4 users "
        r"\(96 % confidence, 5 repeats\)\.",
        found.text,
    ), found.text
    assert re.match(
        r"If the measured lead is real, about \d+ repeats would settle it, in \d+ more minutes: bench run ",
        found.note,
    )


def test_the_minutes_that_would_tell_are_without_those_of_quality(tmp_path: Path) -> None:
    """It is asked on the first start alone."""

    def asked_for_an_hour(start: Any) -> dict[str, Any]:
        stopped_ns = start_record(start, (1000 + 200 * start.index) * S).stopped_ns + 3600 * S
        quality = QualityRecord("5e" * 32, 20, 3600.0, 4, 16.0, {})
        return {} if start.repeat else {"stopped_ns": stopped_ns, "quality": quality}

    made = [replace(BASE, slow=0.85, per_repeat=UNSTEADY), replace(OTHER, slow=0.9)]
    made.append(replace(three()[2], slow=2.0))
    plain = said(tmp_path / "plain", made).note.partition(": bench run")[0]
    asked = said(tmp_path / "asked", made, start_changes=asked_for_an_hour).note.partition(": bench run")[0]
    assert "more minutes" in plain
    assert asked == plain


def test_a_lead_that_60_repeats_would_not_tell_asks_to_choose_by_something_else(tmp_path: Path) -> None:
    near = replace(BASE, per_repeat=(1.0, 1.3, 0.77, 1.25, 0.8))
    found = said(tmp_path, [near, replace(OTHER, slow=1.0)])
    assert found.note == (
        "If the measured lead is real, even 60 repeats would not settle it: choose by another column."
    )


def test_equals_are_said_to_be_the_same_and_memory_may_choose(tmp_path: Path) -> None:
    steady = (1.0, 1.004, 0.998, 1.001, 0.997)
    found = said(tmp_path, [BASE, replace(OTHER, slow=1.0, memory=0.5, per_repeat=steady)])
    assert found.lead == "Serve vllm awq"
    assert found.text == (
        "It has the same output tokens/s as llama_cpp fp16 within 5 % at 4 users, and needs less memory "
        "(0.39 against 0.77 GiB)."
    )
    assert found.unless == ""
    found = said(tmp_path / "alike", [BASE, replace(OTHER, slow=1.0, per_repeat=steady)])
    assert found.lead in ("Serve llama_cpp fp16 or vllm awq", "Serve vllm awq or llama_cpp fp16")
    assert found.text == "They have the same output tokens/s within 5 % at 4 users."


def test_a_server_that_ran_already_gets_no_advice_of_more_repeats(tmp_path: Path) -> None:
    found = said(tmp_path, [BASE, OTHER], start_changes=lambda start: {"attached": True})
    assert (found.lead, found.note) == (
        "No winner", "A winner needs servers that bench starts itself: leave out engine.base_url."
    )  # fmt: skip


def test_one_deployment_is_told_and_not_compared(tmp_path: Path) -> None:
    found = said(tmp_path, [BASE])
    assert found.lead == "llama_cpp fp16"
    begins = r"It is the only one measured at 4 users: output tokens/s .* \[.*\], TTFT p50 .* \[.*\] ms\."
    assert re.fullmatch(begins, found.text), found.text


def test_the_reference_server_is_told_ahead_and_never_to_be_served(tmp_path: Path) -> None:
    fast, slow = (replace(deployment("reference", "-", "-"), label=f"reference {name}") for name in "ab")
    [said] = answers_of(made_run(tmp_path, [Made(fast), Made(slow, 2.0)]))
    assert said.lead == "reference a"
    assert "x the output tokens/s of reference b at 4 users" in said.text
    assert said.note.startswith("It measures bench itself: there is nothing to serve.")


def test_the_headline_is_the_answer_with_the_reasons_to_distrust_it(decided: Run) -> None:
    assert re.fullmatch(
        r"Serve llama_cpp gguf-q8_0\. It has 1\.2\dx the output tokens/s of the next best, \w+ fp16, at 4 "
        r"users "
        rf"\(▲ {len(findings_of(decided))} reasons? to distrust\)",
        headline(decided),
    )


# --- around it -------------------------------------------------------------------------------------


def test_the_traffic_is_one_line_with_what_matters_of_the_scenario(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"vllm awq": FAST})
    assert what_was_run(run) == (
        "chat_multi_turn, 2 turns · 4 users · 3 starts of each · windows of 8 s · "
        "SLO: p95 TTFT 300 ms, 98 % success · 2026-01-02"
    )


def test_reasons_beyond_the_first_five_are_folded_and_named_only(full: Run) -> None:
    box = opening(full).partition('class="why-box doubts"')[2].partition("</div>")[0]
    assert len(findings_of(full)) > 5
    assert box.partition("<details>")[0].count("<li") == 5
    assert f"<summary>{len(findings_of(full)) - 5} more</summary>" in box
    assert "…" not in box
    assert len(re.findall('href="#distrust-', box)) == len(findings_of(full))


def test_what_was_not_run_is_said_below(tmp_path: Path) -> None:
    path = repeated_run(tmp_path, [BASE, OTHER], FOUR, repeats=3)
    record = store.read_run(path)
    skips = (
        *(Skip(f"tgi {q}", quoted("no program here serves it.")) for q in "abcd"),
        Skip(f"x {HOSTILE}", quoted("y")),
    )
    store.write_record(path / "run.json", replace(record, plan=replace(record.plan, skips=skips)))
    assert "Not run : tgi a, tgi b, tgi c, tgi d and 1 more." in plain(open_run(path))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (empty_run, "No answer. No cell has a value that counts: llama_cpp fp16: its"),
        (all_failed_run, "No answer. No cell has a value that counts: llama_cpp fp16: exited"),
        (full_run, "No winner. At 1 user: a verdict needs 3 repeats"),
    ],
)
def test_a_run_without_an_answer_says_why(tmp_path: Path, make: Any, said: str) -> None:
    run = open_run(make(tmp_path))
    assert said in plain(run)
    assert "<script>" not in opening(run)
    assert "<img" not in opening(run)
    has_values = any(cell.counts for cell in run.planned_cells)
    assert ('<table class="standing">' in opening(run)) == has_values


# --- in a line -------------------------------------------------------------------------------------


def test_a_headline_is_one_short_line_whatever_its_names(tmp_path: Path) -> None:
    one, other = (
        replace(each.deployment, label=f"{name}\n{HOSTILE * 3}")
        for each, name in ((BASE, "vllm"), (OTHER, "tgi"))
    )
    line = headline(made_run(tmp_path, [Made(one), Made(other, 0.5)], repeats=3))
    assert len(line) <= 160
    assert "\n" not in line
    assert "… (▲ " in line


@pytest.mark.parametrize(
    ("text", "most", "left"),
    [("short", 5, "short"), ("two words here", 10, "two words…"), ("unbreakable", 5, "unbr…")],
)
def test_a_text_is_cut_between_words(text: str, most: int, left: str) -> None:
    assert clipped(text, most) == left
    assert len(left) <= most
