"""Recorded facts as a person reads them."""

from dataclasses import replace
from pathlib import Path

import pytest
from make_run import deployment
from repeated_run import Made, repeated_run

from serving_bench.harness.contracts import Objective, SearchTerms
from serving_bench.reports.data import open_run
from serving_bench.reports.words import claims, described, grounds, quality
from serving_bench.reports.words.described import device, fact, key_words


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("memory_read_bytes_per_s", 22_100_282_428.84, ("memory read bytes/s", "22,100,282,428.84")),
        ("rate_per_s", 2.0, ("rate/s", "2")),
        ("quiet_s", 6.0, ("quiet", "6 s")),
    ],
)
def test_a_unit_stands_at_the_value_and_a_rate_in_the_name(key, value, said):
    assert (key_words(key), fact(key, value)) == said


@pytest.mark.parametrize(("kind", "said"), [("host", "this processor"), ("device", "one device")])
def test_a_device_whose_name_is_not_recorded_is_told_by_its_kind(tmp_path, kind, said):
    changes = {"memory_kind": kind}
    path = repeated_run(
        tmp_path,
        [Made(deployment("llama_cpp", "fp16"))],
        repeats=1,
        start_changes=lambda start: changes,
        environment={},
    )
    assert device(open_run(path)) == said


def but(run, **changes):
    """A run whose record says something else."""
    return replace(run, record=replace(run.record, **changes))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (grounds.failures_claim, "15 requests, left out of every latency"),
        (grounds.checks_title,
         "7 reasons to distrust, 24 checks found nothing, 16 had nothing to check"),
        (grounds.order_claim, "8 starts, interleaved"),
        (grounds.cells_claim, "1 of 16 failed or in doubt"),
        (claims.ratios,
         "No verdicts: a verdict needs 3 starts of each deployment or more, here 2."),
        (lambda run: claims.search_claim(but(run, search=SearchTerms("concurrency", 1.0, 64.0),
                                             slo=(Objective("ttft_s", 0.95, 0.3),))),
         "The highest load, in users, that keeps the SLO (p95 TTFT 300 ms). It was searched on each start "
         "from 1 to 64: doubled until an objective was missed, then bisected to within 5 % or one user."),
        (lambda run: quality.front(()),
         "Beaten in speed, quality and memory at once, by their means: no deployment. A larger mark means "
         "more peak memory; the reference is at 0."),
        (lambda run: described.loads_words(but(run, search=SearchTerms("rate", 1.0, 64.0))),
         "searched from 1 to 64 conversations begun per second"),
        (lambda run: described.stopped(but(run, only_repeat=1)),
         "only repeat 1; `bench merge` joins it with the others"),
        (lambda run: described.more_repeats(but(run, only_repeat=1, settings={}), 5),
         "bench run repeats=5 --only-repeat K for each other K, then bench merge"),
        (lambda run: ". ".join(described.cut_short(replace(but(run, status="interrupted"), path=Path("r")))),
         "This run was cut short. bench run --resume r measures what is missing."),
        (lambda run: ". ".join(described.cut_short(replace(
            but(run, status="interrupted"), path=Path("r"),
            planned_cells=tuple(each for each in run.planned_cells if each.status == "completed")))),
         "This run was interrupted when all its cells were measured. bench run --resume r asks for any "
         "quality that is still missing."),
    ],
)  # fmt: skip
def test_what_a_run_was_and_came_to_is_said(full, words, said):
    assert words(full) == said
