"""What speculation got, by the server's counters, and beside the same deployment without it."""

from dataclasses import replace

import pytest
from make_quality import Voice, with_quality
from make_run import S, deployment
from page_data import rows_of
from repeated_run import Made, repeated_run

from serving_bench.harness.contracts import EngineTerms, Load
from serving_bench.harness.servers.scrape import ServerSample
from serving_bench.harness.store import store
from serving_bench.reports import open_run
from serving_bench.reports.measures.speculation import became_of, speculated_of, unspeculated_of
from serving_bench.reports.page.document import page
from serving_bench.reports.page.sections.why import speculation

OFF = replace(deployment("llama_cpp", "fp16"), terms=EngineTerms(speculation="off"), label="off")
NGRAM = replace(OFF, terms=EngineTerms(speculation="ngram", speculative_tokens=3), label="ngram")
LONE = replace(NGRAM, quantization="gguf-q8_0", label="lone")


# What each second's 10 looks count.
COUNTED = {"drafted_tokens": 30, "accepted_tokens": 20}


def _run(path, *made, repeats=3, counted=COUNTED, baseline=None):
    repeated_run(path, [Made(each, slow) for each, slow in made], (Load(concurrency=4),), repeats)
    for start in store.read_starts(path):
        if start.deployment.label == "ngram":
            # The 5 s before the load have none.
            seconds = [max(0.0, at - 5.0) for at in range(30)]
            samples = [
                ServerSample(
                    start.spawned_ns + at * S,
                    draft_steps=10 * s,
                    **{term: n * s for term, n in counted.items()},
                )
                for at, s in enumerate(seconds)
            ]
            store.write_samples(path / "starts" / start.name / "server.parquet", samples)
    if baseline:
        record = store.read_run(path)
        compare = replace(record.compare, baseline=baseline)
        store.write_record(path / "run.json", replace(record, compare=compare))
    asked = {each.label: Voice() for each, _ in made if each in (OFF, NGRAM)}
    return open_run(with_quality(path, asked))


def test_what_was_accepted_is_by_the_servers_counters_in_the_windows(tmp_path):
    run = _run(tmp_path, (OFF, 1.0), (NGRAM, 0.8), (LONE, 1.0))
    ngram, lone = speculated_of(run)
    assert (ngram.group.deployment, ngram.off) == ("ngram", "off")
    assert ngram.drafted_tokens == pytest.approx(3 * 8 * 30)  # of 3 windows of 8 s
    assert ngram.accepted_share == pytest.approx(2 / 3)
    assert ngram.accepted_per_step == pytest.approx(2.0)
    assert (lone.accepted_share, lone.accepted_per_step, lone.quality) == (None, None, None)
    assert lone.drafted_tokens is None


def test_where_accepted_tokens_are_not_counted_each_step_gave_those_and_one_more(tmp_path):
    run = _run(tmp_path, (OFF, 1.0), (NGRAM, 0.8), counted={"generated_tokens": 30})
    [ngram] = speculated_of(run)
    assert ngram.accepted_per_step == pytest.approx(2.0)
    assert (ngram.drafted_tokens, ngram.accepted_share) == (None, None)


def test_off_is_the_deployment_that_differs_in_nothing_else(tmp_path):
    small = replace(OFF, terms=replace(OFF.terms, kv_cache_type="q8_0"), label="small")
    assert unspeculated_of(_run(tmp_path, (small, 1.0), (OFF, 1.0), (NGRAM, 1.0))) == {"ngram": "off"}
    assert unspeculated_of(_run(tmp_path / "without", (small, 1.0), (OFF, 1.0), (LONE, 1.0))) == {
        "lone": None
    }


def test_its_answers_are_held_against_those_without(tmp_path):
    run = _run(tmp_path, (OFF, 1.0), (NGRAM, 1.0), repeats=1)
    [ngram] = speculated_of(run)
    assert became_of(run, "ngram") == ngram.became == {"same": 10}
    assert ngram.quality.told.kl_nats == 0.0


def test_the_page_has_a_row_for_each_that_speculates_with_its_gain(tmp_path):
    run = _run(tmp_path, (OFF, 1.0), (NGRAM, 0.8))
    [shown] = rows_of(speculation(run).parts[0])
    assert (shown["same answers"], shown["accepted %"]) == ("10 of 10", "66.7")
    assert shown["output tokens/s against off"].startswith("1.25x [")


def test_a_pair_that_the_baseline_leaves_out_is_said_to_be_so(tmp_path):
    shown = page(_run(tmp_path, (OFF, 1.0), (NGRAM, 0.8), (LONE, 1.0), baseline="lone"))
    part = shown.partition('id="speculation"')[2].partition("</table>")[0]
    assert "compare.baseline names another deployment, so these two are not compared" in part


def test_a_page_of_a_run_without_speculation_has_none(tmp_path):
    assert 'id="speculation"' not in page(_run(tmp_path, (OFF, 1.0)))
