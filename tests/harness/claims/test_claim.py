"""Claims as files: bench's own, and what is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from serving_bench.harness.claims import claim as claims
from serving_bench.harness.claims import judging
from serving_bench.harness.claims.claim import Predicate
from serving_bench.harness.errors import UserError
from serving_bench.harness.plan import plan
from serving_bench.harness.settings import config

WHOLE = """
sentence: a is twice as fast as b
source: {who: me, where: https://example.org, date: today}
conditions: {device: a toaster}
original: {engine: [vllm, sglang]}
here: {engine: [llama_cpp, transformers], load.concurrency: 2}
predicates:
  - metric: output_tokens_per_s
    ratio: [{engine: llama_cpp}, {engine: transformers}]
    at_least: 2
"""


@pytest.mark.parametrize("keys", ["here", "original"])
@pytest.mark.parametrize("name", claims.known())
def test_each_claim_of_bench_has_in_its_runs_what_it_compares(name: str, keys: str) -> None:
    found = claims.find(name)
    settings = config.settings(claims.choices(getattr(found, keys)))
    cases = judging.cases_of(plan.make(settings))
    assert all(judging.combinations(asked, cases) for asked in found.predicates)
    assert found.name == name
    assert found.source.where.startswith("https://")


def test_a_file_of_the_users_is_a_claim_named_after_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(WHOLE)
    found = claims.find(str(path))
    assert (found.name, found.conditions.device, found.conditions.traffic) == (
        "mine",
        "a toaster",
        "not said",
    )
    assert claims.choices(found.here) == {"engine": ("llama_cpp", "transformers"), "load.concurrency": (2,)}
    words = "output_tokens_per_s of engine=llama_cpp over engine=transformers, at least 2"
    assert [each.words for each in found.predicates] == [words]


def test_an_unknown_claim_names_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"^claim llama_flat: no such claim; did you mean llama_cpp_flat\? ch"
    ):
        claims.find("llama_flat")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 1 is not YAML"),
        ("just words", "not a claim: Expected `object`, got `str`"),
        (WHOLE.replace("sentence", "sentense"), "unknown field `sentense`"),
        (WHOLE.replace("metric: output_tokens_per_s\n    ", ""), "missing required field `metric` - at `$"),
        (WHOLE.replace("at_least: 2", "at_least: two"), "Expected `float | null`, got `str`"),
        (WHOLE.replace("at_least: 2", "at_least: 2\n    within: 0.1"), "give one of at_least, at_most and"),
        (WHOLE.replace("at_least: 2", "at_least: 0"), "a figure must be finite and above 0"),
        (WHOLE.replace("at_least: 2", "at_least: .nan"), "a figure must be finite and above 0"),
        (WHOLE.replace("at_least: 2", "at_most: .inf"), "a figure must be finite and above 0"),
        (WHOLE.replace("    at_least: 2\n", ""), "none has a figure"),
        (WHOLE.replace("ratio: [{engine: llama_cpp}, ", "ratio: ["), "Expected `array` of length 2"),
        (WHOLE + "    value: {engine: vllm}\n", "give ratio or value"),
        (WHOLE + "    turn: 0\n", "the first turn is 1"),
        (WHOLE.replace("output_tokens_per_s", "kl_nats.mean"), "kl_nats.mean takes value"),
        (WHOLE.replace("ratio: [", "turn: 2\n    value: {} # ["), "within and turn go with ratio"),
    ],
)  # fmt: skip
def test_what_is_no_claim_is_refused_in_a_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        claims.read(path)
    assert str(refused.value).startswith(f"claim {path}: ")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.yaml: cannot be read \(No such file"):
        claims.find(str(tmp_path / "absent.yaml"))


SIDES = ({"engine": "vllm"}, {"engine": "sglang"})


@pytest.mark.parametrize(
    ("predicate", "accepted"),
    [
        (Predicate("ttft_s.p50", ratio=SIDES, at_least=2.1), (2.0, float("inf"))),
        (Predicate("ttft_s.p50", ratio=SIDES, at_most=0.5), (float("-inf"), 0.525)),
        (Predicate("ttft_s.p50", ratio=SIDES, within=0.25), (0.8, 1.25)),
        (Predicate("kl_nats.mean", value=SIDES[0], at_most=0.1), (float("-inf"), 0.1)),
        (Predicate("kv_waste_contiguous_share", value={}, at_least=0.6), (0.6, float("inf"))),
    ],
)
def test_what_is_the_same_as_the_figure_is_accepted(predicate: Predicate, accepted: tuple[float, float]):
    assert predicate.accepted == pytest.approx(accepted)


def test_without_a_figure_nothing_is_accepted_or_refused() -> None:
    shown = Predicate("ttft_s.p50", ratio=SIDES, turn=2)
    assert shown.accepted is None
    assert shown.words == "ttft_s.p50 of turn 2 of engine=vllm over engine=sglang"
    assert Predicate("kv_waste_paged_share", value={}, at_most=0.04).words == (
        "kv_waste_paged_share of each deployment, at most 0.04"
    )


def test_reading_a_claim_does_not_load_the_grammar_of_overrides() -> None:
    script = "import sys, harness.claims.claim; print('hydra' in sys.modules, 'yaml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"
