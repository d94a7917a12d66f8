"""The same requests of two deployments: which are pairs, their deltas, and whether the answers agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from make_run import MS, S, deployment, row, write_cell
from repeated_run import BLOCKS, Made, repeated_run

from harness.contracts import Load
from harness.store import store
from reports.data.run import open_run
from reports.data.tables import common_shares, read_answers
from reports.verdicts.load_cases import load_cases_of
from reports.verdicts.request_pairs import paired

FP16, Q8 = deployment("llama_cpp", "fp16"), deployment("llama_cpp", "gguf-q8_0")
VLLM = deployment("vllm", "fp16")
ONE = (Load(concurrency=4),)


def pairs_of(path, made, **given):
    """By label, of the run's only load."""
    run = open_run(repeated_run(path, made, **{"loads": ONE, **given}))
    case = load_cases_of(run)[0]
    return {each.a.deployment: each for each in paired(run, case.groups, case.baseline)}


def rewritten(path, number, rows):
    """The cell with other requests."""
    run = open_run(path)
    cell = next(each for each in run.planned_cells if each.number == number)
    write_cell(path, cell.planned, cell.start, rows, cell.summary)


def test_deltas_are_of_the_same_repeat_conversation_and_turn(tmp_path):
    # Of a block with factor f a first token takes 100 ms x f on one and 80 ms x f on the other.
    found = pairs_of(tmp_path, [Made(FP16), Made(Q8, 0.8)])["llama_cpp gguf-q8_0"]
    ttft = found.deltas["ttft_s"]
    assert (found.blocks, ttft.faster_share) == (5, 1.0)
    # 8 s of a request each 300 ms x f on the slower of the two
    counts = [int(np.ceil(8 / (0.3 * factor))) for factor in BLOCKS]
    assert found.n == ttft.n == sum(counts)
    deltas = np.repeat([-0.02 * factor for factor in BLOCKS], counts)
    assert ttft.levels == pytest.approx([np.percentile(deltas, level) for level in (5, 25, 50, 75, 95)])


def test_requests_that_only_one_answered_or_that_failed_are_no_pairs(tmp_path):
    fails = Made(Q8, 1.0, changes=lambda number: {"outcome": "timeout"} if number == 3 else {})
    found = pairs_of(tmp_path, [Made(FP16), fails], repeats=1)["llama_cpp gguf-q8_0"]
    assert found.n == 26  # of 27 in the window


def test_a_request_outside_of_a_window_is_no_pair(tmp_path):
    path = repeated_run(tmp_path, [Made(FP16), Made(Q8)], ONE, repeats=1)
    begin_ns = open_run(path).planned_cells[1].summary.window_start_ns
    early = [row(0, begin_ns - S), *(row(k, begin_ns + k * S // 4) for k in range(1, 6))]
    rewritten(path, 1, early)
    run = open_run(path)
    case = load_cases_of(run)[0]
    assert paired(run, case.groups, case.baseline)[0].n == 5


def test_other_seeds_are_other_conversations(tmp_path):
    path = repeated_run(tmp_path, [Made(FP16), Made(Q8)], ONE, repeats=2)
    text = (path / "run.json").read_bytes()
    record = store.read_run(path)
    starts = list(record.plan.starts)
    cell = replace(starts[1].cells[0], seed=8)
    starts[1] = replace(starts[1], cells=(cell,))
    store.write_record(path / "run.json", replace(record, plan=replace(record.plan, starts=tuple(starts))))
    assert text != (path / "run.json").read_bytes()
    run = open_run(path)
    case = load_cases_of(run)[0]
    assert paired(run, case.groups, case.baseline)[0].blocks == 1


def test_e2e_is_of_pairs_of_one_length(tmp_path):
    uneven = Made(Q8, 0.9, changes=lambda number: {"output_tokens": 9} if number == 0 else {})
    found = pairs_of(tmp_path, [Made(FP16), uneven], repeats=1)["llama_cpp gguf-q8_0"]
    assert found.deltas["e2e_s"].n == found.deltas["ttft_s"].n - 1


def test_e2e_that_is_withheld_of_a_deployment_is_withheld_here(tmp_path):
    short = Made(Q8, changes=lambda number: {"output_tokens": 7})
    found = pairs_of(tmp_path, [Made(FP16), short])["llama_cpp gguf-q8_0"]
    assert "7.0 tokens where 10.0 were asked for" in found.deltas["e2e_s"].why_none
    assert found.deltas["e2e_s"].n == 0
    assert found.deltas["ttft_s"].n > 0


def test_few_pairs_give_a_median_and_no_tail(tmp_path):
    ttft = pairs_of(tmp_path, [Made(FP16), Made(Q8, 0.8)], repeats=1, requests=15)["llama_cpp gguf-q8_0"]
    assert ttft.deltas["ttft_s"].at(50) == pytest.approx(-0.02)
    assert ttft.deltas["ttft_s"].at(5) is None
    assert ttft.deltas["ttft_s"].at(95) is None


def test_answers_agree_where_every_character_does_and_by_turn(tmp_path):
    # Of second turns every answer differs behind 6 of 12 characters; first turns agree.
    other = Made(Q8, text=lambda conversation, turn: "sixsix" + ("SEVENS" if turn else "sevens"))
    same = Made(FP16, text=lambda conversation, turn: "sixsixsevens")
    found = pairs_of(tmp_path, [same, other], repeats=1)["llama_cpp gguf-q8_0"]
    assert (found.agreement.n, found.agreement.agree, found.agreement.common_share) == (27, 14, 0.5)
    first, second = found.by_turn
    assert (first.turn, first.agreement.agree_share, first.agreement.common_share) == (0, 1.0, None)
    assert (second.turn, second.agreement.agree, second.agreement.common_share) == (1, 0, 0.5)


def test_reasoning_is_part_of_an_answer(tmp_path):
    thinks = Made(Q8, changes=lambda number: {"reasoning_text": "hm"})
    found = pairs_of(tmp_path, [Made(FP16), thinks], repeats=1)["llama_cpp gguf-q8_0"]
    assert found.agreement.agree == 0


def test_other_prompts_are_not_the_same_requests(tmp_path):
    longer = Made(Q8, changes=lambda number: {"input_tokens": 80})
    found = pairs_of(tmp_path, [Made(FP16), Made(VLLM), longer])
    assert found["llama_cpp gguf-q8_0"].why_none == "their prompts are not the same"
    assert found["vllm fp16"].n > 0


def test_the_order_of_sending_does_not_matter(tmp_path):
    """As several users play the conversations in another order on each deployment."""
    path = repeated_run(tmp_path, [Made(FP16), Made(Q8)], ONE, repeats=1)
    for number, places in ((0, [*range(7, 20), *range(7)]), (1, range(20))):
        begin_ns = open_run(path).planned_cells[number].summary.window_start_ns
        rows = []
        for place, k in enumerate(places):
            sent_ns = begin_ns + place * S // 4
            late_ns = (100 + 10 * k + 5 * number) * MS
            chunks = tuple(sent_ns + late_ns + j * 20 * MS for j in range(5))
            rows.append(
                row(0, sent_ns, conversation=k, turn=0, user=place % 3, chunk_ns=chunks, output_text=str(k))
            )
        rewritten(path, number, rows)
    run = open_run(path)
    case = load_cases_of(run)[0]
    (found,) = paired(run, case.groups, case.baseline)
    assert found.deltas["ttft_s"].at(50) == pytest.approx(0.005)
    assert found.deltas["ttft_s"].faster_share == 0.0
    assert (found.agreement.n, found.agreement.agree) == (20, 20)


def test_common_characters_are_counted_from_the_beginning(tmp_path):
    path = repeated_run(tmp_path, [Made(FP16)], ONE, repeats=1, requests=4)
    texts = ["", "abc", "abcdefgh", "ünïcode"]
    begin_ns = open_run(path).planned_cells[0].summary.window_start_ns
    rewritten(path, 0, [row(k, begin_ns + k * S, output_text=text) for k, text in enumerate(texts)])
    answers = read_answers(path, 0)
    pairs = [(0, 0), (1, 2), (2, 1), (0, 1), (3, 3)]
    shares = common_shares(answers, np.array([a for a, _ in pairs]), answers, np.array([b for _, b in pairs]))
    assert list(shares) == pytest.approx([1.0, 3 / 8, 3 / 8, 0.0, 1.0])
