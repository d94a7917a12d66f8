"""Which cases a predicate compares, what an interval says of it, and which conditions differ."""

from typing import Any

import pytest
from make_run import deployment

from serving_bench.harness.claims import judging
from serving_bench.harness.claims.claim import Claim, Conditions, Keys, Predicate, Source
from serving_bench.harness.claims.judging import Case, Differs, Judged, Outcome
from serving_bench.harness.contracts import Deployment, EngineTerms, Load
from serving_bench.harness.errors import UserError


def case(engine: str, users: int, quantization: str = "fp16", **terms: Any) -> Case:
    label = " ".join([engine, quantization, *(f"{name}={value}" for name, value in terms.items())])
    made = Deployment(engine, "tiny", quantization, EngineTerms(**terms), {"gpu_layers": 0}, label)
    return Case(made, Load(concurrency=users), "chat", f"{users} users")


CASES = [case(engine, users) for engine in ("vllm", "llama_cpp") for users in (1, 8)]
VLLM_1, VLLM_8, LLAMA_1, LLAMA_8 = CASES


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        (({"engine": "vllm"}, {"engine": "llama_cpp"}), [(VLLM_1, LLAMA_1), (VLLM_8, LLAMA_8)]),
        (({"engine": ["tgi", "vllm"]}, {"engine": "llama_cpp", "load.concurrency": 1}), [
            (VLLM_1, LLAMA_1), (VLLM_8, LLAMA_1),
        ]),
        (({"load.concurrency": 8}, {"load.concurrency": 1, "engine": "vllm"}), [
            (VLLM_8, VLLM_1), (LLAMA_8, VLLM_1),
        ]),
        (({"llama_cpp.gpu_layers": 0}, {"engine": "vllm"}), [(LLAMA_1, VLLM_1), (LLAMA_8, VLLM_8)]),
        (({"engine": "tgi"}, {"engine": "vllm"}), []),
    ],
)  # fmt: skip
def test_cases_are_compared_under_one_load_unless_a_side_names_its_own(sides: Any, expected: Any) -> None:
    assert judging.combinations(Predicate("ttft_s.p50", ratio=sides, at_least=1), CASES) == expected


def test_sides_that_name_loads_alone_compare_each_deployment_with_itself() -> None:
    sides = ({"load.concurrency": 8}, {"load.concurrency": 1})
    found = judging.combinations(Predicate("ttft_s.p50", ratio=sides, within=0.1), CASES)
    assert found == [(VLLM_8, VLLM_1), (LLAMA_8, LLAMA_1)]


def test_cases_of_other_models_are_not_compared() -> None:
    other = Case(deployment("sglang", "fp16"), Load(concurrency=1), "chat", "1 users")
    sides = ({"engine": "sglang"}, {"engine": "vllm"})
    assert judging.combinations(Predicate("ttft_s.p50", ratio=sides, at_least=1), [*CASES, other]) == []


def test_a_term_tells_deployments_apart() -> None:
    cases = [case("vllm", 1, prefix_cache=True), case("vllm", 1, prefix_cache=False)]
    sides = ({"engine.prefix_cache": True}, {"engine.prefix_cache": False})
    found = judging.combinations(Predicate("ttft_s.p50", ratio=sides, at_most=1), cases)
    assert found == [tuple(cases)]


def test_what_no_side_names_is_the_same_in_both() -> None:
    cases = [
        case(engine, 1, quantization, prefix_cache=kept)
        for engine in ("vllm", "llama_cpp")
        for quantization in ("fp16", "awq")
        for kept in (True, False)
    ]
    sides = ({"engine.prefix_cache": True}, {"engine.prefix_cache": False})
    found = judging.combinations(Predicate("ttft_s.p50", ratio=sides, at_most=1), cases)
    assert found == [(cases[k], cases[k + 1]) for k in range(0, 8, 2)]


def ratio(low: float | None, high: float | None) -> Judged:
    return Judged("a over b", None, low=low, high=high)


ABOVE, BELOW, EITHER, UNKNOWN = ratio(1.2, 2.0), ratio(0.5, 0.9), ratio(0.9, 1.1), ratio(None, None)


@pytest.mark.parametrize(
    ("judged", "said"),
    [
        ([(8, BELOW), (1, ABOVE)], "crosses 1 between 1 user (above 1) and 8 users (below 1)"),
        ([(1, ABOVE), (4, EITHER), (8, BELOW)], "crosses 1 between 1 user (above 1) and 8 users (b"),
        ([(1, ABOVE), (2, UNKNOWN), (8, ABOVE)], "does not cross 1: above it at 1 user, 8 users"),
        ([(1, EITHER), (8, EITHER)], None),
        ([(1, ABOVE)], None),
    ],
)
def test_a_crossing_lies_between_two_loads_that_are_told(judged: Any, said: str | None) -> None:
    found = judging.crossing([(Load(concurrency=users), each) for users, each in judged])
    assert found is None if said is None else str(found).startswith(said)


def test_a_value_is_of_each_case_by_itself() -> None:
    asked = Predicate("kl_nats.mean", value={"engine": "vllm"}, at_most=0.1)
    assert judging.combinations(asked, CASES) == [(VLLM_1,), (VLLM_8,)]


def test_what_is_missing_is_named() -> None:
    sides = ({"engine": "tgi"}, {"engine.prefix_cache": True})
    words, are_options = judging.missing(Predicate("ttft_s.p50", ratio=sides, at_least=1), CASES)
    assert (words, are_options) == ("engine=tgi and no engine.prefix_cache=true", False)


@pytest.mark.parametrize("key", ["scenario", "engine.nope", "load.users", "vllm.nope", "ollama.threads"])
def test_a_key_that_tells_nothing_apart_is_refused(key: str) -> None:
    with pytest.raises(
        UserError, match=f"^predicate: {key}: does not select deployments or loads; give engine"
    ):
        judging.combinations(Predicate("ttft_s.p50", ratio=({key: 1}, {}), at_least=1), CASES)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (2.0, 3.0, "reproduced"),
        (1.99, 3.0, "inconclusive"),
        (1.0, 1.99, "not reproduced"),
        (1.0, 2.0, "inconclusive"),
    ],
)
def test_the_whole_interval_decides(low: float, high: float, expected: Outcome) -> None:
    assert judging.outcome_of(low, high, (2.0, float("inf"))) == expected


def test_an_interval_beyond_both_ends_decides_nothing() -> None:
    assert judging.outcome_of(0.5, 2.0, (0.9, 1.1)) == "inconclusive"
    assert judging.outcome_of(1.2, 2.0, (0.9, 1.1)) == "not reproduced"


def test_a_sentence_holds_if_it_holds_in_each_case() -> None:
    assert judging.worst(["reproduced", "reproduced"]) == "reproduced"
    assert judging.worst(["inconclusive", "reproduced"]) == "inconclusive"
    assert judging.worst(["inconclusive", "not reproduced", "reproduced"]) == "not reproduced"


def claim_of(conditions: Conditions, original: Keys) -> Claim:
    return Claim("It is fast.", Source("we", "here", "today"), conditions, original, {}, ())


def test_conditions_that_differ_are_listed_with_both() -> None:
    original = Conditions("NVIDIA H100", "Tiny", "bf16", "vllm 0.6", "1,000 prompts")
    found = judging.differences(
        claim_of(original, {}),
        {"devices": [{"name": "NVIDIA H100 80GB HBM3"}], "machine": {}},
        {"engine": ("vllm",), "load.concurrency": ("1", "8"), "scenario": ("fixed",)},
        [VLLM_1.deployment, LLAMA_1.deployment],
        {"vllm": "0.32.0"},
    )
    assert found == (
        Differs("quantization", "bf16", "fp16"),
        Differs("engines", "vllm 0.6", "vllm 0.32.0, llama_cpp"),
        Differs("traffic", "1,000 prompts", "load.concurrency=1,8 scenario=fixed"),
    )


def test_without_a_gpu_the_processor_is_the_device() -> None:
    environment = {"devices": "no driver", "machine": {"cores_usable": 2, "cpu_model": "Toaster"}}
    found = judging.differences(claim_of(Conditions(device="NVIDIA H100"), {}), environment, {}, [], {})
    assert found[0] == Differs("device", "NVIDIA H100", "no GPU; 2 cores of Toaster")


def test_keys_of_engines_that_differ_are_conditions_too() -> None:
    keys: Keys = {"engine.prefix_cache": [True, False], "engine.context_length": 2048}
    ours = {
        "engine.prefix_cache": ("true", "false"),
        "engine.context_length": ("4096",),
        "engine.graphs": ("false",),
    }
    found = judging.differences(claim_of(Conditions(*[""] * 5), keys), {}, ours, [], {})
    assert found == (
        Differs("engine.context_length", "2048", "4096"),
        Differs("engine.graphs", "not set", "false"),
    )
