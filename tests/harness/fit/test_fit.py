"""Needs, verdicts and the largest that fits, against numbers worked out by hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from toy_engine import Toy

from serving_bench.engines import ENGINES
from serving_bench.engines.model.models import MODELS
from serving_bench.harness.contracts import (
    Deployment,
    EngineTerms,
    InstallSpec,
    KnownFacts,
    MemoryNeed,
    ModelFacts,
    Reason,
    Weights,
)
from serving_bench.harness.errors import UserError
from serving_bench.harness.fit.fit import MOST_USERS, FitTable, Memory, fit
from serving_bench.harness.plan.terms import expected, need_of
from serving_bench.harness.settings import config, overrides

# 10 parameters: 20 bytes at fp16.
TINY = ModelFacts("llama", 1, 1, 1, context_length=1000, parameters=10)
LLAMA_70B = MODELS["llama-3.3-70b-instruct"].facts
GB = 10**9


@dataclass
class Weighed(Toy):
    """Takes a byte for each token of the KV cache and 30 bytes beside it; `is_serial`: of one user."""

    is_serial: bool = False

    def memory_needed(self, deployment: Deployment, facts: ModelFacts, device: str) -> MemoryNeed | Reason:
        terms = deployment.terms
        tokens = (terms.context_length if self.is_serial else terms.kv_cache_tokens) or 0
        return MemoryNeed(tokens, 1, 30, f"a toy's {device}", is_assumed=device == "cuda")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Weighed:
    programs = {(name, device): InstallSpec("toy", None, "", 1)
                for name, device in [("first", "cpu"), ("second", "cpu"), ("second", "cuda")]}  # fmt: skip
    engine = Weighed(installs=programs)
    monkeypatch.setitem(ENGINES, "toy", engine)
    return engine


@dataclass
class Store:
    """Weights of which it is said why they cannot be had."""

    why_not: Callable[[Weights], Reason | None]

    def can_prepare(self, weights: Weights, cache: Path | None = None) -> Reason | None:
        return self.why_not(weights)


def asked(
    *lines: str, facts: ModelFacts = TINY, size: int = 1000, device: str = "cpu", devices: int | None = None
) -> list[FitTable]:
    settings, _ = config.fit_settings(overrides.parse(["model=any", *lines]))
    memory = Memory("cpu" if device == "cpu" else "cuda", size, devices, "as given")
    return fit(settings, {"any": KnownFacts(facts, "")}, memory, Store(lambda weights: None), Path())


TOY = ("engine=toy", "quantization=fp16", "engine.context_length=100")


def test_what_is_needed_is_weights_cache_and_the_rest(toy: Weighed) -> None:
    [table] = asked(*TOY, "load.concurrency=4")
    [row] = table.rows
    assert (table.users, table.context_length, table.kv_cache_tokens) == (4, 100, 400)
    assert (row.need.weights_bytes, row.need.kv_cache_bytes, row.need.overhead_bytes) == (20, 400, 30)
    assert row.total_bytes == 450
    assert row.share == pytest.approx(0.45)
    assert (row.need.overhead_source, row.need.is_assumed) == ("a toy's cpu", False)


@pytest.mark.parametrize(
    ("size", "verdict"), [(501, "fits"), (500, "fits"), (499, "tight"), (450, "tight"), (449, "does not fit")]
)
def test_up_to_nine_tenths_fit_and_up_to_all_is_tight(toy: Weighed, size: int, verdict: str) -> None:
    [table] = asked(*TOY, "load.concurrency=4", size=size)  # 450 bytes
    assert table.rows[0].verdict == verdict


@pytest.mark.parametrize(
    ("users", "size", "is_serial", "most_users", "longest_context"),
    [
        # 900 - 50 bytes: 8 users x 100 tokens; 4 users x 212 tokens.
        (4, 1000, False, 8, 212),
        (32, 1000, False, 8, 26),
        # The weights do not fit.
        (1, 40, False, 0, None),
        # No longer than the model's.
        (1, 10**6, False, (900_000 - 50) // 100, 1000),
        (32, 10**12, False, MOST_USERS, 1000),
        # One at a time: any number of users, or none.
        (32, 1000, True, None, 850),
        (32, 100, True, 0, 40),
    ],
)
def test_the_most_users_and_the_longest_context_are_the_largest_that_fit(
    toy: Weighed, users: int, size: int, is_serial: bool, most_users: int | None, longest_context: int | None
) -> None:
    toy.is_serial = is_serial
    [table] = asked(*TOY, f"load.concurrency={users}", size=size)
    assert (table.rows[0].most_users, table.rows[0].longest_context) == (most_users, longest_context)


def test_several_loads_and_contexts_are_a_table_each(toy: Weighed) -> None:
    tables = asked(*TOY[:2], "engine.context_length=100,200", "load.concurrency=1,2")
    assert [(each.context_length, each.users) for each in tables] == [(100, 1), (100, 2), (200, 1), (200, 2)]
    assert [each.rows[0].need.kv_cache_bytes for each in tables] == [100, 200, 200, 400]
    assert {each.rows[0].label for each in tables} == {"toy fp16"}


def test_loads_that_differ_in_their_length_alone_are_one_question(toy: Weighed) -> None:
    assert len(asked(*TOY, "load.concurrency=4", "load.duration=10s,60s")) == 1


def test_a_kv_cache_of_its_own_size_counts(toy: Weighed) -> None:
    [table] = asked(*TOY, "load.concurrency=4", "engine.kv_cache_tokens=150")
    assert table.rows[0].need.kv_cache_bytes == 150


def test_on_a_device_a_program_that_serves_there_is_taken(toy: Weighed) -> None:
    [table] = asked(*TOY, device="cuda")
    assert (table.rows[0].program, table.rows[0].need.is_assumed) == ("second", True)
    [here] = asked(*TOY, device="cpu")
    assert here.rows[0].program is None


def test_a_program_that_was_asked_for_is_not_replaced(toy: Weighed) -> None:
    [table] = asked(*TOY, "toy.program=first", device="cuda")
    assert (table.rows, table.unserved[0].reason) == (
        (),
        "there is no first toy for a cuda device; toy.program=second or device=cpu works",
    )


def test_devices_that_share_have_the_memory_of_all(toy: Weighed) -> None:
    [table] = asked(*TOY, "engine.tensor_parallel=2", device="cuda", size=300)
    assert (table.rows[0].memory_bytes, table.rows[0].verdict) == (600, "fits")
    [named] = asked(*TOY, device="cuda", devices=3, size=300)
    assert (named.tensor_parallel, named.rows[0].memory_bytes) == (3, 900)


def test_an_engine_that_cannot_share_has_the_memory_of_one() -> None:
    [table] = asked(
        "engine=transformers", "quantization=bf16", device="cuda", devices=2, size=80 * GB, facts=LLAMA_70B
    )
    assert table.rows[0].memory_bytes == 80 * GB


def test_more_devices_than_were_named_are_a_mistake(toy: Weighed) -> None:
    with pytest.raises(UserError, match=r"engine\.tensor_parallel=4: needs that many devices"):
        asked(*TOY, "engine.tensor_parallel=4", device="cuda", devices=2)


def test_what_an_engine_does_not_serve_has_the_plans_reason(toy: Weighed) -> None:
    [table] = asked("engine=toy,reference", "quantization=fp16,gguf", TOY[2])
    assert [row.label for row in table.rows] == ["toy fp16"]
    assert {each.label: each.reason for each in table.unserved} == {
        "toy gguf-q4_k_m": "toys read no gguf-q4_k_m",
        "reference": "reference loads no weights",
    }


def test_without_a_quantization_each_engine_has_those_that_it_serves(toy: Weighed) -> None:
    [table] = asked("engine=toy", TOY[2])
    assert ([row.label for row in table.rows], table.unserved) == (["toy awq"], ())


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            ["engine.context_length=2000"],
            "engine.context_length=2000 is more than any supports: give 1000 or less",
        ),
        ([], "engine.context_length=4096, the default, is more than any supports: give 1000 or less"),
        (["fairness=stock"], "engine.fairness=stock: each engine then takes"),
        (["engine.base_url=http://127.0.0.1:1/v1"], "a running server has its memory already"),
    ],
)
def test_questions_without_an_answer_are_mistakes(toy: Weighed, lines: Sequence[str], said: str) -> None:
    with pytest.raises(UserError, match=r"^engine\.") as error:
        asked("engine=toy", *lines)
    assert said in str(error.value)


def test_engines_without_weights_alone_are_a_mistake() -> None:
    with pytest.raises(UserError, match="engine=reference,openai: loads no weights; choose from llama_cpp"):
        asked("engine=reference,openai")


# --- the engines' own needs ------------------------------------------------------------------------

ALL = ("engine.context_length=8192", "load.concurrency=4")


def rows_70b(*lines: str, size: int = 80 * GB) -> dict[str, str]:
    [table] = asked(*lines, facts=LLAMA_70B, size=size, device="cuda")
    return {row.label: row.verdict for row in table.rows}


def test_a_70b_in_16_bits_does_not_fit_one_gpu_of_80_gb_and_in_4_it_does() -> None:
    # 70.55e9 parameters: 141 GB in 16 bits, 71 in 8; in 4 bits about 40 GB, and its cache 4 x 8,192 x 320 KiB
    # = 10.7 GB.
    verdicts = rows_70b(*ALL)
    assert {label for label in verdicts if label.endswith("bf16")} == {
        "llama_cpp bf16", "sglang bf16", "tgi bf16", "transformers bf16", "vllm bf16",
    }  # fmt: skip
    for label, verdict in verdicts.items():
        is_small = label.endswith(("awq", "q4_k_m"))
        assert verdict == ("fits" if is_small else "does not fit"), label


def test_its_numbers_are_those_of_its_config() -> None:
    [table] = asked("engine=vllm", "quantization=fp16", *ALL, facts=LLAMA_70B, size=80 * GB, device="cuda")
    need = table.rows[0].need
    assert need.weights_bytes == 2 * 70_553_706_496
    assert need.kv_bytes_per_token == 2 * 8 * 128 * 2 * 80 == 327_680
    assert need.kv_cache_bytes == pytest.approx(4 * 8192 * 327_680, rel=0.01)
    assert need.overhead_bytes > 0


def test_two_gpus_hold_what_one_does_not() -> None:
    assert rows_70b("engine=vllm", "quantization=fp8", *ALL) == {"vllm fp8": "does not fit"}
    assert rows_70b("engine=vllm", "quantization=fp8", *ALL, "engine.tensor_parallel=2") == {
        "vllm fp8": "fits"
    }


def test_a_quantized_cache_takes_half() -> None:
    tables = asked(
        "engine=vllm", "quantization=awq", "engine.kv_cache_type=null,fp8", facts=LLAMA_70B, size=80 * GB,
        device="cuda",
    )  # fmt: skip
    assert [table.differs["engine.kv_cache_type"] for table in tables] == ["null", "fp8"]
    plain, small = (table.rows[0] for table in tables)
    assert small.need.kv_bytes_per_token * 2 == plain.need.kv_bytes_per_token


@pytest.mark.parametrize("engine", ["llama_cpp", "sglang", "tgi", "vllm"])
def test_more_users_and_more_context_never_need_less(engine: str) -> None:
    """The search for the largest that fits stands on it."""
    quantization = "gguf-q4_k_m" if engine == "llama_cpp" else "awq"
    options = ENGINES[engine].options()
    for facts in (LLAMA_70B, MODELS["gemma-2-9b-it"].facts, MODELS["gemma3-270m"].facts):
        for steps in ([(1, 128 * n) for n in range(1, 60)], [(n, 640) for n in range(1, 60)]):
            totals = []
            for users, context in steps:
                terms = EngineTerms(
                    context_length=context, concurrent_sequences=users, kv_cache_tokens=users * context
                )
                need = need_of(Deployment(engine, "any", quantization, terms, options, ""), facts, "cuda")
                assert not isinstance(need, Reason)
                totals.append(need.total_bytes)
            assert totals == sorted(totals)


# --- of a start ------------------------------------------------------------------------------------


def test_a_start_expects_what_fit_reckons(toy: Weighed) -> None:
    terms = EngineTerms(context_length=100, concurrent_sequences=4, kv_cache_tokens=400)
    deployment = Deployment("toy", "any", "fp16", terms, toy.options(), "toy fp16")
    assert expected(deployment, TINY, "cpu") == {
        "weights": 20, "kv_cache": 400, "overhead": 30, "kv_bytes_per_token": 1,
    }  # fmt: skip


def test_the_weights_and_the_kv_cache_of_a_draft_count_too(toy: Weighed) -> None:
    terms = EngineTerms(kv_cache_tokens=400, speculation="draft:small", speculative_tokens=3)
    deployment = Deployment("toy", "any", "fp16", terms, toy.options(), "toy fp16")
    small = replace(TINY, parameters=3)
    assert expected(deployment, TINY, "cpu", small) == {
        "weights": 20 + 6, "kv_cache": 400 + 400, "overhead": 30, "kv_bytes_per_token": 2,
    }  # fmt: skip
    assert need_of(deployment, TINY, "cpu") == Reason("the shape of small, which drafts, is not known")


@pytest.mark.parametrize(
    "terms", [EngineTerms(fairness="stock"), EngineTerms(base_url="http://127.0.0.1:1/v1")]
)
def test_a_start_whose_memory_is_not_ours_to_set_expects_nothing(toy: Weighed, terms: EngineTerms) -> None:
    assert expected(Deployment("toy", "any", "fp16", terms, toy.options(), ""), TINY, "cpu") == {}


def test_a_start_without_weights_or_without_their_shape_expects_nothing(toy: Weighed) -> None:
    filled = EngineTerms(context_length=100, concurrent_sequences=4, kv_cache_tokens=400)
    reference = Deployment("reference", "-", "-", filled, ENGINES["reference"].options(), "")
    assert expected(reference, None, "cpu") == {}
    assert expected(reference, TINY, "cpu") == {}
    unknown = Deployment("toy", "any", "fp16", filled, toy.options(), "")
    assert expected(unknown, replace(TINY, parameters=None), "cpu") == {}


# --- what can be had -------------------------------------------------------------------------------


def test_weights_that_cannot_be_had_are_marked_with_the_reason(toy: Weighed, tmp_path: Path) -> None:
    settings, _ = config.fit_settings(
        overrides.parse(["model=any", "engine=toy", TOY[2], "quantization=fp16,awq"])
    )
    memory = Memory("cpu", 1000, None, "as given")

    gone = Store(lambda weights: Reason("is gone") if weights.quantization == "fp16" else None)
    [table] = fit(settings, {"any": KnownFacts(TINY, "", origin="table")}, memory, gone, tmp_path)
    assert {row.label: row.why_not_had for row in table.rows} == {"toy fp16": "is gone", "toy awq": None}
    [of_shape] = fit(settings, {"any": KnownFacts(TINY, "")}, memory, gone, tmp_path)
    assert [row.why_not_had for row in of_shape.rows] == [None, None]


def test_weights_that_are_here_have_rows_of_what_can_be_made_of_them_alone(tmp_path: Path) -> None:
    """Also of a kind that is not among the usual ones."""
    settings, _ = config.fit_settings(overrides.parse(["model=any"]))
    memory = Memory("cuda", 80 * GB, None, "as given")
    known = {"any": KnownFacts(LLAMA_70B, "", origin="weights")}

    def is_not(quantization: str) -> Callable[[Weights], Reason | None]:
        return lambda weights: None if weights.quantization == quantization else Reason("is another")

    for quantization in ("awq", "gguf-q5_k_m"):
        [table] = fit(settings, known, memory, Store(is_not(quantization)), tmp_path)
        assert {row.quantization for row in table.rows} == {quantization}
        assert {each.quantization for each in table.unserved} <= {quantization}


def test_a_share_of_the_device_that_is_not_counted_is_named(toy: Weighed) -> None:
    [table] = asked("engine=vllm", "quantization=awq", "vllm.gpu_memory_utilization=0.5", TOY[2])
    assert table.uncounted == ("vllm.gpu_memory_utilization=0.5",)
    assert asked(*TOY)[0].uncounted == ()
