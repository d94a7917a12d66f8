"""The plan: order, pairs that do not exist, seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines import weights
from harness import config, overrides, plan
from harness.contracts import Load, Plan, ScenarioChoice
from harness.errors import UserError

CHAT = ScenarioChoice("chat_multi_turn", None, "chat_multi_turn")
TRACE = ScenarioChoice("trace", None, "trace", span_s=100.0)


def made(*lines: str) -> Plan:
    return plan.make(config.settings(overrides.parse(list(lines))), weights.can_prepare)


def test_repeats_are_separate_starts_in_turned_order() -> None:
    whole = made("quantization=gguf-q4_k_m,fp16", "repeats=3", "load.concurrency=1,4")
    assert [(start.deployment.quantization, start.repeat) for start in whole.starts] == [
        ("gguf-q4_k_m", 0),
        ("fp16", 0),
        ("fp16", 1),
        ("gguf-q4_k_m", 1),
        ("gguf-q4_k_m", 2),
        ("fp16", 2),
    ]
    assert [cell.number for start in whole.starts for cell in start.cells] == list(range(1, 13))


def test_a_pair_that_does_not_exist_is_skipped_with_its_reason() -> None:
    whole = made("engine=llama_cpp,reference", "quantization=gguf-q4_k_m,awq")
    assert {start.deployment.label for start in whole.starts} == {"llama_cpp gguf-q4_k_m", "reference"}
    assert [(skip.what, skip.reason) for skip in whole.skips] == [
        ("llama_cpp awq", "llama.cpp serves GGUF files; awq is stored as safetensors")
    ]


def test_weights_that_cannot_be_made_are_skipped_with_the_reason() -> None:
    whole = made("quantization=gguf-q5_k_m")
    assert not whole.starts
    assert "llama-quantize" in whole.skips[0].reason


def test_an_engine_without_weights_is_planned_once_whatever_is_swept() -> None:
    whole = made("engine=reference", "quantization=fp16,awq,gguf", "repeats=1")
    assert [start.deployment.label for start in whole.starts] == ["reference"]
    assert whole.starts[0].deployment.quantization == "-"


def test_a_label_makes_two_equal_deployments() -> None:
    whole = made("engine=reference", "reference.label=a,b", "repeats=1")
    assert [start.deployment.label for start in whole.starts] == ["reference label=a", "reference label=b"]


def test_every_deployment_sees_the_same_conversations_and_each_cell_its_own() -> None:
    whole = made("quantization=gguf-q4_k_m,fp16", "load.concurrency=1,4", "repeats=2")
    seeds: dict[tuple[int, int | None], set[int]] = {}
    for start in whole.starts:
        for cell in start.cells:
            seeds.setdefault((start.repeat, cell.load.concurrency), set()).add(cell.seed)
    assert all(len(found) == 1 for found in seeds.values())
    assert len(set.union(*seeds.values())) == 4


def test_the_run_seed_changes_all_conversations() -> None:
    one, two = made("seed=1"), made("seed=2")
    assert one.starts[0].cells[0].seed != two.starts[0].cells[0].seed


def test_concurrent_sequences_are_the_largest_load_unless_given() -> None:
    assert made("load.concurrency=1,8").starts[0].deployment.terms.concurrent_sequences == 8
    given = made("load.concurrency=1,8", "engine.concurrent_sequences=2")
    assert given.starts[0].deployment.terms.concurrent_sequences == 2


def test_a_server_that_runs_needs_a_url() -> None:
    with pytest.raises(UserError, match=r"engine=openai needs engine.base_url=URL"):
        made("engine=openai", "model=m")


def test_an_attached_server_is_one_deployment_with_blocks() -> None:
    whole = made("engine=openai", "model=m", "engine.base_url=http://127.0.0.1:1/v1", "repeats=2")
    assert [start.deployment.label for start in whole.starts] == ["openai", "openai"]
    assert whole.starts[0].deployment.quantization == "-"


def test_a_model_that_is_a_missing_path_says_so() -> None:
    whole = made("model=/nowhere/x.gguf", "quantization=fp16")
    assert not whole.starts
    assert "/nowhere/x.gguf" in whole.skips[0].reason


def test_start_names_are_file_names() -> None:
    for start in made("engine=reference", "reference.label=a,b").starts:
        assert Path(start.name).name == start.name
        assert " " not in start.name


def test_models_of_one_file_name_have_labels_of_their_own(tmp_path: Path) -> None:
    model = 'model="/a/m.gguf","/b/m.gguf"'
    whole = plan.make(config.settings(overrides.parse([model, "quantization=fp16"])), lambda weights: None)
    assert len({start.deployment.label for start in whole.starts}) == 2


def seeds(*lines: str) -> list[int]:
    return [cell.seed for cell in made("engine=reference", "repeats=1", *lines).starts[0].cells]


@pytest.mark.parametrize(
    "line",
    ["load.timeout=9s", "load.warmup=9s", "load.duration=9s", "load.ramp_up=9s", "load.workers=2",
     "load.max_failed=10%", "load.keep_bytes=true", "load.conversations=9"],
)  # fmt: skip
def test_what_changes_no_traffic_changes_no_seed(line: str) -> None:
    assert seeds("load.concurrency=4") == seeds("load.concurrency=4", line)
    assert seeds("load.rate=4") == seeds("load.rate=4", line)


@pytest.mark.parametrize(
    "line", ["load.workers=1,2,4", "load.duration=5s,9s", "load.warmup=1s,2s", "load.ramp_up=0s,9s"]
)
def test_loads_of_one_traffic_have_conversations_of_their_own(line: str) -> None:
    swept = seeds("load.concurrency=4,8", line)
    assert len(set(swept)) == len(swept) > 2
    # The first of each traffic is what it is alone.
    assert set(seeds("load.concurrency=4") + seeds("load.concurrency=8")) < set(swept)


def test_a_trace_replayed_faster_has_prompts_of_its_own_but_the_same_for_every_deployment(
    tmp_path: Path,
) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"timestamp": 0, "input_length": 5, "output_length": 2}\n')
    whole = made(
        "engine=reference", "reference.label=a,b", "repeats=1", "scenario=trace", f"scenario.path={path}",
        "load.speedup=1,2,4",
    )  # fmt: skip
    first, second = ([cell.seed for cell in start.cells] for start in whole.starts)
    assert first == second
    assert len(set(first)) == 3


def test_every_traffic_has_its_own_seed() -> None:
    found = seeds("load.rate=1,4", "load.arrival=poisson,constant")
    found += seeds("load.rate=1,4", "load.arrival=gamma", "load.burstiness=0.5,2")
    found += seeds("load.concurrency=1,4")
    assert len(set(found)) == 4 + 4 + 2


def test_an_open_loop_tells_the_server_a_fixed_small_number_of_sequences() -> None:
    # Memory for each is reserved at the full context by some engines.
    assert made("load.rate=4").starts[0].deployment.terms.concurrent_sequences == 8
    given = made("load.rate=4", "engine.concurrent_sequences=2")
    assert given.starts[0].deployment.terms.concurrent_sequences == 2


@pytest.mark.parametrize(
    ("load", "scenario", "expected_s"),
    [
        (Load(ramp_up_s=3, warmup_s=2, duration_s=10, ramp_down_s=4), CHAT, 19),
        (Load(None, rate_per_s=4, warmup_s=2, duration_s=None, conversations=20), CHAT, 2 + 5),
        (Load(None, rate_per_s=4, warmup_s=2, duration_s=3, conversations=20), CHAT, 2 + 3),
        (Load(None, arrival="trace", warmup_s=0, speedup=2, duration_s=None), TRACE, 50),
        (Load(None, arrival="trace", warmup_s=0, duration_s=30), TRACE, 30),
        (Load(concurrency=4, warmup_s=2, duration_s=None, conversations=20), CHAT, 2 + 60),
    ],
)
def test_a_loads_length_is_what_is_known_of_it(
    load: Load, scenario: ScenarioChoice, expected_s: float
) -> None:
    assert plan.load_s(load, scenario) == pytest.approx(expected_s)
