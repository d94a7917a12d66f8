"""The plan: order, pairs that do not exist, seeds."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from toy_engine import Toy

from serving_bench.engines import ENGINES, MODELS
from serving_bench.engines.model import weights
from serving_bench.engines.model.facts import known_facts
from serving_bench.harness.cli.commands import planning
from serving_bench.harness.contracts import (
    Deployment,
    EngineTerms,
    Load,
    Plan,
    Reason,
    Repeats,
    ScenarioChoice,
    Tuned,
    Weights,
    all_weights,
)
from serving_bench.harness.errors import UserError
from serving_bench.harness.plan import plan
from serving_bench.harness.plan.facts import Facts
from serving_bench.harness.plan.order import deployment_order
from serving_bench.harness.settings import config, overrides
from serving_bench.harness.settings.config import Settings

CHAT = ScenarioChoice("chat_multi_turn", None, "chat_multi_turn")
TRACE = ScenarioChoice("trace", None, "trace", span_s=100.0)


def settings_of(*lines: str) -> Settings:
    return config.settings(overrides.parse(list(lines)))


def made(*lines: str) -> Plan:
    settings = settings_of(*lines)
    return plan.make(settings, known(settings))


def deployed(*lines: str) -> Deployment:
    """The only deployment of a plan."""
    [deployment] = made(*lines).deployments.values()
    return deployment


def skipped(whole: Plan) -> list[tuple[str, str]]:
    return [(skip.what, str(skip.reason)) for skip in whole.skips]


def refusal(*lines: str) -> str:
    """What the user is told whose plan cannot be made."""
    with pytest.raises(UserError) as refused:
        made(*lines)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def known(settings: Settings) -> Facts:
    """What the weights say of the candidates, on a machine that can start them all."""
    asked = [each for each, why in plan.possible(settings).items() if why is None and not each.terms.base_url]
    pairs = [(each, needed) for each in asked for needed in all_weights(ENGINES[each.engine], each)]
    loaded = [(each, needed) for each, needed in pairs if isinstance(needed, Weights)]
    models = {needed.model for _, needed in loaded}
    shapes = {model: known_facts(model).facts for model in models & MODELS.keys()}
    misfits = {
        (a, of): weights.misfit(a, of, shapes.get(of.model)) for each, of in loaded for a in each.adapters
    }
    return Facts(
        unprepared={needed: why for _, needed in loaded if (why := weights.can_prepare(needed))},
        shapes=shapes,
        misfits={pair: why for pair, why in misfits.items() if why},
    )


def places(whole: Plan) -> list[list[int]]:
    """Of each block the deployments in the order of starting, by their place in the order asked for."""
    found: list[list[int]] = [[] for _ in range(whole.blocks)]
    for start in whole.starts:
        found[start.repeat].append(whole.labels.index(start.deployment.label))
    return found


def test_repeats_are_separate_starts_in_balanced_order() -> None:
    whole = made("quantization=gguf-q4_k_m,fp16,gguf-q8_0", "repeats=6", "load.concurrency=1,4", "seed=5")
    assert whole.labels == ("llama_cpp gguf-q4_k_m", "llama_cpp fp16", "llama_cpp gguf-q8_0")
    assert places(whole) == [list(deployment_order(5, 3, block)) for block in range(6)]
    assert [start.index for start in whole.starts] == list(range(1, 19))
    assert [cell.number for start in whole.starts for cell in start.cells] == list(range(1, 37))
    assert {cell.repeat == start.repeat for start in whole.starts for cell in start.cells} == {True}


def test_deployments_are_named_in_the_order_asked_for_whatever_starts_first() -> None:
    for seed in range(4):
        whole = made("engine=reference", "reference.label=c,a,b", f"seed={seed}")
        assert list(whole.deployments) == [f"reference label={label}" for label in "cab"]


def test_cells_of_a_block_are_shuffled_alike_for_all_deployments() -> None:
    loads = tuple(range(1, 7))
    whole = made("engine=reference", "reference.label=a,b", f"load.concurrency={','.join(map(str, loads))}")
    blocks = [
        {tuple(cell.load.concurrency for cell in start.cells) for start in whole.starts if start.repeat == at}
        for at in range(3)
    ]
    assert [len(orders) for orders in blocks] == [1, 1, 1]
    orders = set.union(*blocks)
    assert len(orders) == 3
    assert {tuple(sorted(order)) for order in orders} == {loads}


def test_the_order_of_cells_is_what_it_was_in_earlier_runs() -> None:
    [start] = made("engine=reference", "seed=1", "load.concurrency=1,2,3,4,5", "repeats=1").starts
    assert [cell.load.concurrency for cell in start.cells] == [3, 5, 4, 2, 1]


def test_the_order_of_cells_changes_no_seed() -> None:
    """Of loads with one traffic the first asked for has place 0, wherever it is measured."""
    words = ("engine=reference", "load.concurrency=4", "load.duration=5s,9s,7s", "repeats=8")
    whole = made(*words)
    for start in whole.starts:
        by_duration = {cell.load.duration_s: cell for cell in start.cells}
        for place, duration_s in enumerate((5, 9, 7)):
            cell = by_duration[duration_s]
            assert cell.seed == plan.cell_seed(1, cell.scenario, cell.load, start.repeat, place)


def test_a_plan_that_grows_keeps_its_beginning_and_is_what_it_would_have_been() -> None:
    words = ["engine=reference", "reference.label=a,b,c", "load.concurrency=1,2"]
    settings = settings_of(*words, "repeats=1")
    whole = plan.make(settings)
    for blocks in (2, 3, 4, 5):
        whole = plan.grown(whole, settings, first_index=len(whole.starts) + 1)
        assert whole == plan.make(replace(settings, repeats=Repeats(blocks, blocks)))
    assert whole == made(*words, "repeats=5")
    later = plan.grown(whole, settings, first_index=20)
    assert [start.index for start in later.starts[-3:]] == [20, 21, 22]


def test_until_plans_three_repeats_at_the_least() -> None:
    assert [made(*words).blocks for words in (
        ("repeats=1", "until=ci:5%"), ("repeats=5", "until=ci:5%"), ("repeats=1",),
    )] == [3, 5, 1]  # fmt: skip


def test_an_estimate_is_the_loads_and_a_guess_for_each_start_and_cell() -> None:
    words = ["engine=reference", "reference.label=a,b", "repeats=1", "load.concurrency=1,2"]
    settings = settings_of(*words, "load.warmup=1s", "load.duration=9s")
    assert plan.make(settings).estimate_s == pytest.approx(2 * (4 + 2 * (10 + 2)))


@pytest.mark.parametrize(
    ("engine", "types", "served", "lacking", "supported"),
    [
        ("llama_cpp", "fp16,q8_0,fp8", ["fp16", "q8_0"], "fp8", "fp32, fp16, bf16, q8_0, q5_1"),
        ("llama_cpp llama_cpp.flash_attention=false", "fp16,q8_0", ["fp16"], "q8_0", "fp32, fp16, bf16"),
        ("vllm", "fp16,bf16,fp8", ["fp16", "fp8"], "bf16", "fp16, fp8, fp8_e5m2"),
        ("transformers", "fp16,q8_0", ["fp16"], "q8_0", "fp16"),
    ],
)
def test_a_kv_cache_of_a_type_that_an_engine_lacks_is_skipped(
    engine: str, types: str, served: list[str], lacking: str, supported: str
) -> None:
    whole = made("quantization=fp16", *f"engine={engine}".split(), f"engine.kv_cache_type={types}")
    assert [each.terms.kv_cache_type for each in whole.deployments.values()] == served
    [skip] = whole.skips
    name = engine.split()[0]
    why = f"engine.kv_cache_type={lacking}: {name} does not support it here; it supports {supported}"
    assert str(skip.reason).startswith(why)


def test_speculation_proposes_three_tokens_unless_told_and_none_if_off() -> None:
    ways = ("off", "ngram", "draft:smollm2-135m@gguf-q4_0")
    whole = made("quantization=fp16", f"engine.speculation={','.join(ways)}")
    assert list(whole.deployments) == [f"llama_cpp fp16 speculation={way}" for way in ways]
    off, ngram, drafted = whole.deployments.values()
    assert [each.terms.speculative_tokens for each in (off, ngram, drafted)] == [None, 3, 3]
    assert (off.draft, ngram.draft) == (None, None)
    assert drafted.draft is not None
    assert (drafted.draft.model, drafted.draft.quantization) == ("smollm2-135m", "gguf-q4_0")
    assert "speculative_tokens" in whole.filled


def test_traffic_with_tools_gets_a_chat_template_that_has_them() -> None:
    whole = made("scenario=agent_loop,rag", "quantization=gguf-q8_0")
    [deployment] = whole.deployments.values()
    assert deployment.terms.chat_template is not None
    assert Path(deployment.terms.chat_template).is_file()
    said = "bench's smollm2_tools.jinja, since the template of smollm2-135m leaves tools out"
    assert whole.filled["chat_template"] == said


@pytest.mark.parametrize("scenario", ["agent_loop", "structured_output"])
def test_an_engine_whose_answers_cannot_be_held_to_a_form_is_skipped(scenario: str) -> None:
    whole = made(f"scenario=rag,{scenario}", "engine=transformers,llama_cpp", "quantization=fp16")
    why = f"scenario={scenario}: its server takes neither tools nor a JSON Schema"
    assert skipped(whole) == [("transformers fp16", why)]
    assert made("scenario=rag,code_completion", "engine=transformers", "quantization=fp16").skips == ()


ENABLED = "anthropic.thinking=enabled anthropic.thinking_tokens=512"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("scenario=agent_loop anthropic.thinking=adaptive",
         "scenario=agent_loop: anthropic.thinking=adaptive: the API then allows no forced tool calls"),
        (f"scenario=fixed scenario.output_tokens=512..4096 {ENABLED}",
         "scenario=fixed: anthropic.thinking_tokens=512: must be less than an answer's tokens, and"),
        (f"scenario=fixed scenario.output_tokens=513..4096 {ENABLED}", None),
        (f"scenario=fixed scenario.output_tokens=lognormal:512:1 {ENABLED}", None),
        ("scenario=structured_output anthropic.thinking=adaptive", None),
        ("scenario=agent_loop anthropic.thinking=disabled", None),
    ],
)  # fmt: skip
def test_what_the_api_refuses_of_a_model_that_thinks_is_skipped(words: str, said: str | None) -> None:
    skips = made("engine=anthropic", "engine.base_url=http://h/v1", "model=m", *words.split()).skips
    assert [str(each.reason).startswith(said or "") for each in skips] == ([True] if said else [])


@pytest.mark.parametrize(
    "words",
    [
        ["scenario=rag"],
        ["scenario=agent_loop", "engine.fairness=stock"],
        ["scenario=agent_loop", "model=qwen2.5-0.5b-instruct"],
        ["scenario=agent_loop", "engine.chat_template=mine.jinja"],
    ],
)
def test_another_chat_template_stays(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.jinja").write_text("{{ messages }}")
    whole = made(*words)
    own = {each.terms.chat_template for each in whole.deployments.values()}
    assert own in ({None}, {"mine.jinja"}, {str(tmp_path / "mine.jinja")})
    assert "chat_template" not in whole.filled


def test_what_does_not_speculate_is_one_deployment_whatever_is_proposed() -> None:
    words = ("engine.speculation=off,ngram", "engine.speculative_tokens=2,4")
    assert list(made("quantization=fp16", *words).deployments) == [
        "llama_cpp fp16 speculation=off",
        "llama_cpp fp16 speculation=ngram speculative_tokens=2",
        "llama_cpp fp16 speculation=ngram speculative_tokens=4",
    ]


def test_a_draft_has_the_quantization_of_its_target_unless_told() -> None:
    draft = deployed("quantization=gguf-q8_0", "engine.speculation=draft:smollm2-135m").draft
    assert draft is not None
    assert draft.quantization == "gguf-q8_0"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("draft:smollm2-135m engine=tgi",
         "engine.speculation=draft: tgi does not support it here; it supports ngram"),
        ("draft:smollm2-135m engine=llama_cpp llama_cpp.program=llama-cpp-python",
         "engine.speculation=draft: llama_cpp does not support it here; it supports ngram"),
        ("draft:nosuch", "engine.speculation=draft:nosuch: no such model; see `bench list models`"),
        ("draft:smollm2-135m@awq", "llama.cpp serves GGUF files; awq is stored as safetensors"),
        ("draft:gemma3-270m",
         "engine.speculation=draft:gemma3-270m: the draft has a vocabulary of 262144 tokens and "
         "smollm2-135m one of 49152; they must be the same"),
    ],
)  # fmt: skip
def test_a_draft_that_cannot_be_is_skipped(words: str, reason: str) -> None:
    whole = made("quantization=fp16", *f"engine.speculation={words}".split())
    assert not whole.starts
    assert [str(skip.reason)[: len(reason)] for skip in whole.skips] == [reason]


def test_a_pair_that_does_not_exist_is_skipped_with_its_reason() -> None:
    whole = made("engine=llama_cpp,reference", "quantization=gguf-q4_k_m,awq")
    assert set(whole.deployments) == {"llama_cpp gguf-q4_k_m", "reference"}
    assert skipped(whole) == [("llama_cpp awq", "llama.cpp serves GGUF files; awq is stored as safetensors")]


def test_weights_that_cannot_be_made_are_skipped_with_the_reason() -> None:
    gone = Weights("smollm2-135m", "fp16", "gguf")
    whole = plan.make(settings_of("quantization=fp16,gguf"), Facts(unprepared={gone: Reason("is gone")}))
    assert {start.deployment.quantization for start in whole.starts} == {"gguf-q4_1"}
    assert skipped(whole) == [("llama_cpp fp16", "is gone")]


def test_an_engine_without_weights_is_planned_once_whatever_is_swept() -> None:
    whole = made("engine=reference", "quantization=fp16,awq,gguf", "repeats=1")
    assert [(each.deployment.label, each.deployment.quantization) for each in whole.starts] == [
        ("reference", "-")
    ]


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


def test_a_kv_cache_that_holds_no_conversation_is_the_users_mistake() -> None:
    said = refusal("engine=llama_cpp", "engine.kv_cache_tokens=1000")
    assert re.match(r"engine\.kv_cache_tokens=1000: holds no conversation of .*=4096", said)
    [start] = made("engine=llama_cpp", "quantization=gguf", "repeats=1", "engine.kv_cache_tokens=4096").starts
    assert start.deployment.terms.kv_cache_tokens == 4096


def test_a_server_that_runs_needs_a_url() -> None:
    assert "engine=openai needs engine.base_url=URL" in refusal("engine=openai", "model=m")


def test_an_attached_server_is_one_deployment_with_blocks() -> None:
    whole = made("engine=openai", "model=m", "engine.base_url=http://127.0.0.1:1/v1", "repeats=2")
    assert [start.deployment.label for start in whole.starts] == ["openai", "openai"]
    assert whole.starts[0].deployment.quantization == "-"


def test_a_model_that_is_a_missing_path_says_so() -> None:
    whole = made("model=/nowhere/x.gguf", "quantization=fp16")
    assert not whole.starts
    assert "/nowhere/x.gguf" in str(whole.skips[0].reason)


def test_start_names_are_file_names() -> None:
    for start in made("engine=reference", "reference.label=a,b").starts:
        assert Path(start.name).name == start.name
        assert " " not in start.name


def test_models_of_one_file_name_have_labels_of_their_own() -> None:
    whole = plan.make(settings_of('model="/a/m.gguf","/b/m.gguf"', "quantization=fp16"))
    assert len(whole.deployments) == 2


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


def test_a_trace_replayed_faster_has_prompts_of_its_own_but_the_same_for_every_deployment(tmp_path: Path):
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


@pytest.mark.parametrize(
    ("line", "count", "why"),
    [
        # Four turns of 32 tokens at 10 tokens/s, with three thinks of 1 s.
        (
            "load.rate=2,4",
            64,
            "load.rate=4/s x 15.8 s, a conversation of chat_multi_turn at 10 output tokens/s",
        ),
        ("load.rate=0.1", 8, ", but 8 at the least"),
        ("load.rate=100", 256, ", but 256 at the most"),
        ("load.concurrency=1,3", 3, "the largest load.concurrency"),
    ],
)
def test_servers_are_told_to_serve_what_the_load_needs_at_once(line: str, count: int, why: str):
    words = ["scenario.spread=0", "scenario.think_time=1s", line]
    whole = made(*words)
    terms = whole.starts[0].deployment.terms
    assert (terms.concurrent_sequences, terms.kv_cache_tokens) == (count, count * 4096)
    assert why in whole.filled["concurrent_sequences"]
    given = made(*words, "engine.concurrent_sequences=2")
    assert given.starts[0].deployment.terms.concurrent_sequences == 2
    assert "concurrent_sequences" not in given.filled


def test_a_user_needs_a_sequence_for_each_request_that_is_sent_at_once() -> None:
    words = ["scenario=agent_loop", "scenario.parallel=4", "scenario.steps=4", "scenario.think_time=0"]
    whole = made(*words, "load.concurrency=1,3")
    assert whole.starts[0].deployment.terms.concurrent_sequences == 12
    why = "the largest load.concurrency x 4 parallel requests of agent_loop"
    assert whole.filled["concurrent_sequences"] == why
    # One conversation takes 4 x 96 tokens at 10 tokens/s.
    open_loop = made(*words, "load.rate=0.25")
    assert open_loop.starts[0].deployment.terms.concurrent_sequences == 4 * 10
    assert open_loop.filled["concurrent_sequences"].endswith("x 4 parallel requests of agent_loop")


def test_a_trace_needs_what_is_under_way_at_its_busiest_moment(tmp_path: Path) -> None:
    """Requests of 10 s each, one every second, or every half; the first 100 of the trace are sparse."""
    path = tmp_path / "trace.csv"
    instants_ms = [*(60_000 * at for at in range(100)), *(6_000_000 + 2000 * at for at in range(40))]
    path.write_text(
        "timestamp,input_length,output_length\n" + "".join(f"{at_ms},5,100\n" for at_ms in instants_ms)
    )
    for speedup, count in (("2", 10), ("4", 20)):
        whole = made("scenario=trace", f"scenario.path={path}", f"load.speedup={speedup}")
        assert whole.starts[0].deployment.terms.concurrent_sequences == count
        assert "the busiest moment of trace x" in whole.filled["concurrent_sequences"]


@pytest.mark.parametrize(
    ("load", "scenario", "expected_s"),
    [
        (Load(1, ramp_up_s=3, warmup_s=2, duration_s=10, ramp_down_s=4), CHAT, 19),
        (Load(None, rate_per_s=4, warmup_s=2, duration_s=None, conversations=20), CHAT, 2 + 5),
        (Load(None, rate_per_s=4, warmup_s=2, duration_s=3, conversations=20), CHAT, 2 + 3),
        (Load(None, arrival="trace", warmup_s=0, speedup=2, duration_s=None), TRACE, 50),
        (Load(None, arrival="trace", warmup_s=0, duration_s=30), TRACE, 30),
        (Load(concurrency=4, warmup_s=2, duration_s=None, conversations=20), CHAT, 2 + 60),
    ],
)
def test_a_loads_length_is_what_is_known_of_it(load: Load, scenario: ScenarioChoice, expected_s: float):
    assert plan.load_s(load, scenario) == pytest.approx(expected_s)


# --- launchers, programs, fairness ----------------------------------------------------------------


def planned(*lines: str) -> Plan:
    return plan.make(settings_of("engine=toy", "quantization=fp16", "repeats=1", *lines))


def labels(*lines: str) -> list[str]:
    return list(planned(*lines).deployments)


def terms(*lines: str) -> EngineTerms:
    [start] = planned(*lines).starts
    return start.deployment.terms


def test_matched_fills_the_common_terms_and_stock_leaves_them(toy: Toy) -> None:
    matched = terms("load.concurrency=1,4", "engine.context_length=1024")
    assert (matched.context_length, matched.concurrent_sequences) == (1024, 4)
    assert (matched.kv_cache_tokens, matched.prefix_cache, matched.launcher) == (4096, True, "native")
    stock = terms("load.concurrency=1,4", "fairness=stock", "engine.context_length=1024")
    assert (stock.context_length, stock.concurrent_sequences, stock.kv_cache_tokens) == (1024, None, None)
    assert (stock.prefix_cache, stock.launcher) == (None, "native")


def test_tuned_takes_the_engines_set_where_the_user_says_nothing(toy: Toy) -> None:
    toy.tuned = Tuned("large batches", {"batch": 64}, "the toys' handbook")
    [tuned] = planned("fairness=tuned").starts
    assert (tuned.deployment.options.batch, tuned.deployment.terms.concurrent_sequences) == (64, 4)
    [given] = planned("fairness=tuned", "toy.batch=8").starts
    assert given.deployment.options.batch == 8


def test_tuned_is_skipped_where_the_engine_has_no_set(toy: Toy) -> None:
    whole = planned("fairness=matched,stock,tuned")
    assert list(whole.deployments) == ["toy fp16 fairness=matched", "toy fp16 fairness=stock"]
    assert skipped(whole) == [("toy fp16 fairness=tuned", "toy has no tuned set of options")]


def test_labels_name_program_launcher_and_fairness_where_they_are_not_the_first(toy: Toy) -> None:
    assert labels() == ["toy fp16"]
    assert labels("toy.program=second") == ["toy fp16 second"]
    assert labels("toy.program=/opt/toys/server") == ["toy fp16 server"]
    assert labels("engine.launcher=docker", "fairness=stock") == ["toy fp16 docker stock"]
    assert labels("engine.launcher=native,docker") == ["toy fp16 launcher=native", "toy fp16 launcher=docker"]


def test_what_is_given_to_start_says_how_it_is_started(toy: Toy) -> None:
    assert terms("toy.image=toys:2").launcher == "docker"
    toy.launchers = ("docker", "native")
    assert terms().launcher == "docker"
    assert terms("toy.program=/opt/toys/server").launcher == "native"
    assert terms("toy.environment=/opt/toys").launcher == "native"


def test_a_container_is_planned_once_whatever_programs_are_swept(toy: Toy) -> None:
    assert labels("engine.launcher=native,docker", "toy.program=first,second") == [
        "toy fp16 launcher=native program=first",
        "toy fp16 launcher=native program=second",
        "toy fp16 launcher=docker",
    ]


def test_a_launcher_that_an_engine_lacks_is_skipped_with_the_reason(toy: Toy) -> None:
    toy.launchers = ("native",)
    [skip] = planned("engine.launcher=docker").skips
    assert str(skip.reason) == "toy cannot be started with launcher=docker: it has no container image"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("engine.memory_limit=8GiB",
         "toy fp16 is started as a process; start all with engine.launcher=docker"),
        ("engine.memory_limit=8GiB engine.launcher=native,docker",
         "toy fp16 launcher=native is started as a process"),
        ("engine.launcher=docker toy.environment=/opt/toys",
         "toy.environment=/opt/toys: has no effect, since toy is started as a container in this run"),
        ("engine.launcher=native toy.image=toys:2", "toy.image=toys:2: has no effect"),
        ("engine.base_url=http://h/v1 model=m quantization=- toy.program=second",
         "toy.program=second: has no effect, since toy is a running server in this run"),
    ],
)  # fmt: skip
def test_a_key_that_nothing_heeds_is_the_users_mistake(toy: Toy, words: str, said: str) -> None:
    default = () if "quantization=" in words else ("quantization=fp16",)
    assert said in refusal("engine=toy", *default, *words.split())


def test_what_this_machine_cannot_start_is_skipped_before_its_weights_are_looked_for(toy: Toy, monkeypatch):
    settings = settings_of("engine=toy,reference", "quantization=fp16,gguf")
    asked: list[Weights] = []

    def can_prepare(weights: Weights, _: Path) -> None:
        asked.append(weights)

    def why_not_on(_: Sequence[int], each: Deployment) -> Reason | None:
        return Reason("no") if each.engine == "toy" else None

    monkeypatch.setattr(weights, "can_prepare", can_prepare)
    monkeypatch.setattr(planning, "why_not_on", why_not_on)
    whole = planning.planned(settings)
    assert {start.deployment.engine for start in whole.starts} == {"reference"}
    assert skipped(whole) == [("toy fp16", "no"), ("toy gguf-q4_1", "toys read no gguf-q4_1")]
    assert asked == []


def test_a_context_longer_than_the_model_can_is_refused_as_fit_does() -> None:
    settings = settings_of("engine=llama_cpp", "engine.context_length=4096,40000")
    said = r"^engine\.context_length=40000 is more than smollm2-135m supports: give 8192 or less$"
    with pytest.raises(UserError, match=said):
        plan.make(settings, Facts(contexts={"smollm2-135m": 8_192}))
    assert plan.make(settings).starts  # nobody knows


def test_a_context_of_a_server_that_runs_already_or_has_no_model_is_not_judged() -> None:
    for lines in (["engine=reference"], ["engine.base_url=http://127.0.0.1:1/v1", "model=any"]):
        settings = settings_of(*lines, "engine.context_length=40000")
        assert plan.make(settings, Facts(contexts={"-": 16, "any": 16})).starts


def test_every_start_of_a_run_has_the_adapters_of_all_its_scenarios() -> None:
    mixed = deployed("scenario=lora_mix,fixed", "scenario.adapters=1,3", "quantization=gguf-q8_0")
    assert [each.name for each in mixed.adapters] == ["random-0", "random-1", "random-2"]
    assert mixed.draft is None
    assert deployed("scenario=fixed", "quantization=gguf-q8_0").adapters == ()


def test_an_engine_without_adapters_is_skipped_and_one_with_them_is_not() -> None:
    whole = made("scenario=lora_mix", "engine=transformers,vllm,reference", "quantization=bf16")
    assert list(whole.deployments) == ["vllm bf16", "reference"]
    why = "it serves no LoRA adapters: bench's small server loads only the model"
    assert skipped(whole) == [("transformers bf16", why)]


def test_an_adapter_that_does_not_fit_is_skipped_with_the_reason(tmp_path: Path) -> None:
    words = (f"scenario.adapters={tmp_path}", "scenario=lora_mix", "quantization=gguf-q8_0")
    whole = made(*words, "model=smollm2-135m")
    assert whole.starts == ()
    [skip] = whole.skips
    assert str(skip.reason).startswith(f"scenario.adapters={tmp_path}: no directory with adapter_config.json")


def test_a_running_servers_adapters_are_named_by_the_user() -> None:
    attached = ("engine=openai", "engine.base_url=http://127.0.0.1:8000/v1", "model=m", "scenario=lora_mix")
    [skip] = made(*attached).skips
    assert str(skip.reason).startswith("scenario.adapters=4: a running server has adapters of its own")
    adapters = deployed(*attached, "scenario.adapters=sql:chat").adapters
    assert [each.name for each in adapters] == ["sql", "chat"]


def test_a_running_llama_server_whose_adapters_have_numbers_is_not_asked_for_names() -> None:
    attached = ("engine=llama_cpp", "engine.base_url=http://127.0.0.1:8080/v1", "model=m")
    said = refusal(*attached, "scenario=lora_mix", "scenario.adapters=sql:chat")
    assert said.startswith("scenario.adapters: engine=llama_cpp knows adapters by")


def test_an_adapter_with_the_models_own_name_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "smollm2-135m"
    own.mkdir()
    said = refusal("scenario=lora_mix", f"scenario.adapters={own}", "model=smollm2-135m")
    assert said.startswith(f"scenario.adapters={own}: has the name of model=smollm2-135m")


def test_two_adapters_of_one_name_are_refused_across_a_sweep(tmp_path: Path) -> None:
    first, second = (tmp_path / folder / "sql" for folder in "ab")
    for each in (first, second):
        each.mkdir(parents=True)
    said = refusal("scenario=lora_mix", f"scenario.adapters={first},{second}")
    assert f"{first} and {second} have the same name" in said
