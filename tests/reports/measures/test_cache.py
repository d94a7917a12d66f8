"""Three truths about a prefix cache: what it could serve, what the server reports, what the times say."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from make_run import MS, S, one_cell_run, row, summary

from serving_bench.harness.contracts import Load, RequestRow, ScenarioChoice
from serving_bench.harness.servers.scrape import ServerSample
from serving_bench.harness.store import store
from serving_bench.reports.checks.examine import findings_of
from serving_bench.reports.data import Run, open_run
from serving_bench.reports.measures.traffic.cache import Served, doubts, served_of
from serving_bench.reports.outputs.tables import tables_of
from serving_bench.reports.page.document import page
from serving_bench.reports.words.claims import contradictions

# Of a request: how much of it was really cached, given what could be, and what the server says.
Cached = Callable[[int], int]
TALKS, TURNS = 24, 3
BASE_MS, PER_TOKEN_MS = 30.0, 0.5
RAG = ScenarioChoice("rag", {}, "rag")
SHARED = ScenarioChoice("shared_prefix", {"prefixes": 2}, "shared_prefix")
BLOCK = 16


def blocks(tokens: int) -> int:
    return tokens // BLOCK * BLOCK


def none(tokens: int) -> int:
    return 0


def talks(served: Cached, reported: Callable[[int], int | None], noise_ms: float = 2.0) -> list[RequestRow]:
    """One user's conversations: each turn finds its history, and takes as long as what is not cached."""
    rng, rows = Random(5), []
    for k in range(TALKS * TURNS):
        talk, turn = divmod(k, TURNS)
        history = 0 if not turn else 150 + 10 * (talk % 7) + 120 * (turn - 1)
        tokens = history + 90 + 12 * (talk % 9)
        read = tokens - served(history)
        ttft_ms = BASE_MS + PER_TOKEN_MS * read + rng.expovariate(1 / noise_ms) + 200 * (k % 17 == 3)
        sent_ns = 102 * S + k * S
        first_ns = sent_ns + int(ttft_ms * MS)
        chunks = (first_ns, first_ns + 20 * MS)
        rows.append(
            row(
                k, sent_ns, conversation=talk, turn=turn, chunk_ns=chunks, end_ns=chunks[-1] + MS,
                input_tokens=tokens, cached_tokens=reported(history), ideal_cached_tokens=history,
            )
        )  # fmt: skip
    return rows


def run_of(path: Path, rows: list[RequestRow], **fields) -> Run:
    given = {"load": Load(concurrency=1), "ideal_by": {"tokens": len(rows)}, **fields}
    return open_run(one_cell_run(path, rows, summary(100 * S, duration_s=200), **given).path)


def served(path: Path, *given, **fields) -> dict[str, Served]:
    return {each.part: each for each in served_of(run_of(path, *given, **fields))}


def test_the_times_tell_what_an_honest_server_reports(tmp_path):
    found = served(tmp_path, talks(blocks, blocks))
    assert list(found) == ["", "turn 1", "turn 2", "turn 3"]
    for each in found.values():
        assert each.inferred is not None, each.why
        assert each.reported is not None
        assert each.inferred.low <= each.reported <= each.inferred.high
        assert each.inferred.tokens == pytest.approx(each.reported, abs=0.1 * each.input_tokens)
        assert each.ideal - BLOCK <= each.reported <= each.ideal
    assert found["turn 1"].ideal == 0
    assert not doubts(found.values())
    [said] = contradictions(open_run(tmp_path))
    assert said.startswith("llama_cpp fp16 at 1 user, all requests: it reports ")
    assert said.endswith("]: the same within 10 % of the input.")


def test_a_wide_interval_confirms_nothing(tmp_path):
    run = run_of(tmp_path, talks(blocks, blocks, noise_ms=8.0))
    whole = served_of(run)[0]
    assert whole.inferred is not None, whole.why
    assert not doubts([whole])
    [said] = contradictions(run)
    assert said.endswith("]: too wide to tell.")


def test_a_server_that_claims_hits_it_had_not_is_found_out(tmp_path):
    run = run_of(tmp_path, talks(none, blocks))
    found = {each.part: each for each in served_of(run)}
    for part in ("turn 2", "turn 3"):
        told = found[part].inferred
        assert told is not None
        assert told.tokens < 0.1 * found[part].input_tokens
    assert [said.partition(":")[0] for said in doubts(found.values())] == ["all requests", "turn 2", "turn 3"]
    [finding] = [each for each in findings_of(run) if each.check == "cache_misreported"]
    assert finding.cells == (0,)
    assert "as cached, but by TTFT it is" in finding.text


def test_a_server_that_does_not_tell_of_its_hits_is_found_out(tmp_path):
    found = served(tmp_path, talks(blocks, none))
    told = found["turn 3"].inferred
    assert told is not None
    assert told.tokens == pytest.approx(found["turn 3"].ideal, abs=0.1 * found["turn 3"].input_tokens)
    [said] = doubts([found["turn 3"]])
    assert "but by TTFT it is" in said


def test_without_a_word_of_the_server_the_times_tell_alone(tmp_path):
    each = served(tmp_path, talks(blocks, lambda tokens: None))["turn 2"]
    assert each.reported is None
    assert each.inferred is not None
    assert each.inferred.tokens == pytest.approx(each.ideal, abs=0.1 * each.input_tokens)
    assert not doubts([each])


def counted(path: Path, hit_share: float) -> Run:
    """Have the server's page count that share of 100 tokens in each second as hits."""
    [start] = store.read_starts(path)
    samples = [
        ServerSample(
            start.spawned_ns + at * S, prefix_query_tokens=100 * at, prefix_hit_tokens=100 * hit_share * at
        )
        for at in range(400)
    ]
    store.write_samples(path / "starts" / start.name / "server.parquet", samples)
    return open_run(path)


def test_where_usage_is_silent_the_page_of_metrics_reports(tmp_path):
    run_of(tmp_path, talks(blocks, lambda tokens: None))
    whole, *parts = served_of(counted(tmp_path, 0.5))
    assert whole.reported == pytest.approx(0.5 * whole.input_tokens)
    assert {each.reported for each in parts} == {None}
    assert not doubts([whole])


def test_usage_that_is_not_what_the_page_of_metrics_says_is_doubted(tmp_path):
    run_of(tmp_path, talks(blocks, blocks))
    whole = served_of(counted(tmp_path, 0.1))[0]
    assert whole.on_page == pytest.approx(0.1 * whole.input_tokens)
    [said] = doubts([whole])
    assert said.endswith(f"but its metrics page says {whole.on_page:,.0f}")


def test_more_than_was_ever_sent_is_impossible(tmp_path):
    run = run_of(tmp_path, talks(blocks, lambda tokens: tokens + 60))
    [said] = doubts(each for each in served_of(run) if not each.part)
    assert "had been sent before" in said
    assert said in next(each for each in findings_of(run) if each.check == "cache_misreported").text


def test_of_several_users_nothing_is_inferred(tmp_path):
    found = served(tmp_path, talks(blocks, blocks), load=Load(concurrency=4))
    assert {each.inferred for each in found.values()} == {None}
    assert {str(each.why) for each in found.values()} == {"with several users the time includes waiting"}


def test_new_prompts_of_one_length_tell_nothing(tmp_path):
    rows = [row for row in talks(blocks, blocks) if row.turn or row.conversation % 9 < 4]
    each = served(tmp_path, rows)[""]
    assert each.inferred is None
    assert str(each.why) == "new prompts of 5 lengths are needed, and there are 4"


def test_the_page_says_how_the_times_could_tell(tmp_path):
    rows = [row for row in talks(blocks, blocks) if row.turn or row.conversation % 9 < 4]
    [said] = contradictions(run_of(tmp_path, rows))
    assert said.startswith("TTFT says nothing about the cache of llama_cpp fp16: new prompts of 5 ")
    assert "scenario.system_words=0" in said


def test_times_that_do_not_grow_with_the_prompt_tell_nothing(tmp_path):
    each = served(tmp_path, talks(blocks, blocks, noise_ms=3000.0))[""]
    assert each.inferred is None
    assert str(each.why) == "the times of 24 new prompts do not show how long a token takes"


def test_a_run_without_ideals_or_without_repetition_has_none(tmp_path):
    assert served(tmp_path / "old", talks(blocks, blocks), ideal_by={}) == {}
    first = [row for row in talks(blocks, blocks) if not row.turn]
    assert served(tmp_path / "new", first) == {}


def test_prefixes_are_told_apart_and_rag_is_one_whole(tmp_path):
    rows = [
        row(
            k, 102 * S + k * S, turn=0, conversation=k, group=k % 2, input_tokens=1000, cached_tokens=960,
            ideal_cached_tokens=990 - 200 * (k % 2),
        )
        for k in range(10)
    ]  # fmt: skip
    found = served(tmp_path / "shared", rows, scenario=SHARED)
    assert {part: each.ideal for part, each in found.items()} == {"": 890, "prefix 1": 990, "prefix 2": 790}
    both = [replace(each, turn=each.conversation // 2 % 2) for each in rows]
    turns = served(tmp_path / "both", both, scenario=SHARED)
    assert list(turns) == ["", "prefix 1", "prefix 2", "turn 1", "turn 2"]
    whole = served(tmp_path / "rag", rows, scenario=RAG)
    assert list(whole) == [""]
    assert (whole[""].saved, whole[""].of_ideal) == (9600, pytest.approx(960 / 890))


def test_the_table_has_a_row_of_all_requests_and_one_of_each_part(tmp_path):
    run = run_of(tmp_path, talks(blocks, blocks))
    rows, found = tables_of(run)["cache"], served_of(run)
    assert list(rows["part"].fillna("")) == [each.part for each in found]
    assert list(rows["reported"]) == [each.reported for each in found]
    assert list(rows["low"]) == [each.inferred and each.inferred.low for each in found]
    assert rows["why"].isna().all()


def test_the_page_has_the_three_side_by_side(tmp_path):
    run = run_of(tmp_path, talks(none, blocks))
    shown = page(run)
    assert 'id="prefix-cache"' in shown
    assert f"The ideal was counted in tokens for {TALKS * TURNS} requests." in shown
    for words in ("ideal %", "reported %", "by TTFT %", f"turn {TURNS}", "as cached, but by TTFT it is"):
        assert words in shown


def test_a_request_of_unknown_length_is_left_out(tmp_path):
    rows = talks(blocks, blocks)
    rows[5] = replace(rows[5], input_tokens=None)
    run = run_of(tmp_path, rows)
    assert [each.requests for each in served_of(run)] == [TALKS * TURNS - 1, TALKS, TALKS, TALKS - 1]
    assert 'id="prefix-cache"' in page(run)
