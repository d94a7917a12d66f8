"""The KV cache of a plan: no more than the smallest of the deployments that are compared can hold."""

from dataclasses import dataclass

import pytest
from toy_engine import Toy

from serving_bench.engines import ENGINES
from serving_bench.harness.contracts import Deployment, MemoryNeed, ModelFacts, Plan, Reason
from serving_bench.harness.plan import plan
from serving_bench.harness.plan.candidates import candidates
from serving_bench.harness.plan.facts import Facts
from serving_bench.harness.settings import config, overrides
from serving_bench.harness.settings.config import Settings

# 10,000 parameters: 20,000 bytes at fp16, and about 5,000 in 4 bits.
SHAPE = ModelFacts("llama", 1, 1, 1, context_length=8192, parameters=10_000)
WORDS = ("engine=toy", "model=any", "engine.context_length=1024", "load.concurrency=8", "repeats=1")


@dataclass
class Weighed(Toy):
    """Takes a byte for each token of the KV cache, and nothing else beside its weights."""

    def memory_needed(self, deployment: Deployment, facts: ModelFacts, device: str) -> MemoryNeed | Reason:
        return MemoryNeed(deployment.terms.kv_cache_tokens or 0, 1, 0, "a toy", is_assumed=False)


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "toy", Weighed())


def planned(*lines: str, device_bytes: int | None = 100_000, shape: ModelFacts | None = SHAPE) -> Plan:
    settings = config.settings(overrides.parse([*WORDS, *lines]))
    return plan.make(settings, known(settings, device_bytes, shape))


def known(settings: Settings, device_bytes: int | None, shape: ModelFacts | None) -> Facts:
    memory = dict.fromkeys(candidates(settings), device_bytes) if device_bytes else {}
    return Facts(shapes=dict.fromkeys(settings.models, shape) if shape else {}, device_bytes=memory)


def caches(whole: Plan) -> dict[str, int | None]:
    return {label: each.terms.kv_cache_tokens for label, each in whole.deployments.items()}


def test_a_cache_that_all_hold_is_context_times_users() -> None:
    whole = planned("quantization=fp16,awq")
    assert caches(whole) == {"toy fp16": 8192, "toy awq": 8192}
    assert whole.filled["kv_cache_tokens"].endswith("engine.concurrent_sequences, which fits")


def test_all_have_the_cache_that_the_smallest_can_hold() -> None:
    """Nine tenths of 27,000 bytes less 20,000 of weights are 4,300 tokens, in whole blocks 4,096."""
    whole = planned("quantization=fp16,awq", device_bytes=27_000)
    assert caches(whole) == {"toy fp16": 4096, "toy awq": 4096}
    why = whole.filled["kv_cache_tokens"]
    assert why.startswith("the most that toy fp16 holds in ")
    assert why.endswith("engine.context_length x engine.concurrent_sequences = 8192")


def test_those_that_are_started_in_another_way_have_the_same_cache() -> None:
    whole = planned("quantization=fp16,awq", "engine.launcher=native,docker", device_bytes=27_000)
    assert set(caches(whole).values()) == {4096}
    assert len(caches(whole)) == 4


def test_one_that_holds_no_conversation_does_not_shrink_the_cache_of_the_others() -> None:
    whole = planned("quantization=fp16,awq", device_bytes=21_000)
    assert caches(whole) == {"toy fp16": 8192, "toy awq": 8192}
    assert "toy fp16 does not hold one conversation" in whole.filled["kv_cache_tokens"]


def test_devices_that_share_a_model_have_the_memory_of_all() -> None:
    assert caches(planned("quantization=fp16", "engine.tensor_parallel=2", device_bytes=27_000)) == {
        "toy fp16": 8192
    }


@pytest.mark.parametrize(
    ("device_bytes", "shape", "said"),
    [(None, SHAPE, "on a CPU"), (27_000, None, "since the model's shape is not")],
)
def test_without_a_memory_or_a_shape_nothing_changes_and_the_plan_says_so(
    device_bytes: int | None, shape: ModelFacts | None, said: str
) -> None:
    whole = planned("quantization=fp16", device_bytes=device_bytes, shape=shape)
    assert caches(whole) == {"toy fp16": 8192}
    assert said in whole.filled["kv_cache_tokens"]


@pytest.mark.parametrize(
    ("line", "tokens"), [("fairness=stock", None), ("engine.kv_cache_tokens=9000", 9000)]
)
def test_stock_and_a_cache_that_was_given_are_left_alone(line: str, tokens: int | None) -> None:
    whole = planned("quantization=fp16", line, device_bytes=27_000)
    assert set(caches(whole).values()) == {tokens}
    assert "kv_cache_tokens" not in whole.filled


def test_a_plan_that_grows_keeps_its_cache() -> None:
    settings = config.settings(overrides.parse([*WORDS, "quantization=fp16"]))
    grown = plan.grown(planned("quantization=fp16", device_bytes=27_000), settings, first_index=2)
    assert caches(grown) == {"toy fp16": 4096}
    assert grown.filled


def test_an_engines_own_share_of_the_device_counts() -> None:
    """vLLM has half of 80 GiB: 40 less what 8 billion parameters in 16 bits and the rest take."""
    words = ("engine=vllm", "quantization=bf16", "engine.context_length=8192", "load.concurrency=256")
    limits = {}
    for line in ("vllm.gpu_memory_utilization=0.5", "vllm.gpu_memory_utilization=0.9"):
        settings = config.settings(overrides.parse(["model=llama-3.1-8b-instruct", *words, line]))
        shape = ModelFacts(
            "llama", 32, 8, 128, context_length=131_072, parameters=8_030_000_000,
            vocabulary=128_256, hidden_size=4096, ties_embeddings=False,
        )  # fmt: skip
        whole = plan.make(settings, known(settings, 80 << 30, shape))
        [tokens] = caches(whole).values()
        limits[line[-3:]] = tokens or 0
    # A token takes 128 KiB; what does not depend on the share is the same.
    assert limits["0.9"] - limits["0.5"] == pytest.approx(0.4 * 80 * 2**30 / 2**17, rel=0.01)


def test_of_a_sweep_the_cache_that_was_given_is_left_alone() -> None:
    whole = planned("quantization=fp16", "engine.kv_cache_tokens=null,9000", device_bytes=27_000)
    assert sorted(caches(whole).values(), key=str) == [4096, 9000]
