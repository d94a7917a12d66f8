"""How engines are told of LoRA adapters: at a start, and with each request."""

from dataclasses import replace
from pathlib import Path

import pytest

from serving_bench.engines import ENGINES
from serving_bench.harness.contracts import (
    Adapter,
    AdapterFile,
    ContainerSpec,
    Deployment,
    EngineTerms,
    NativeSpec,
    Place,
    Reason,
)
from serving_bench.harness.errors import UserError

MATCHED = EngineTerms(launcher="native", concurrent_sequences=2)
PLACE = Place(
    python=Path("/env/python"),
    weights=Path("/w/model"),
    host="127.0.0.1",
    port=8123,
    scratch=Path("/scratch"),
    program=Path("/env/program"),
    devices=(0,),
    adapters=tuple(AdapterFile(name, Path("/a", name), 12) for name in ("one", "two", "three")),
)
# Words behind those of the same start without adapters.
TOLD = {
    "vllm": (
        "--enable-lora", "--max-lora-rank=16", "--max-loras=2", "--max-cpu-loras=3",
        "--lora-modules", "one=/a/one", "two=/a/two", "three=/a/three",
    ),
    "sglang": (
        "--enable-lora", "--max-loras-per-batch=3",
        "--lora-paths", "one=/a/one", "two=/a/two", "three=/a/three",
    ),
    "tgi": ("--lora-adapters=one=/a/one,two=/a/two,three=/a/three",),
    "llama_cpp": ("--no-cache-prompt", "--lora-scaled", "/a/one:0,/a/two:0,/a/three:0"),
}  # fmt: skip


def deployment(engine: str, terms: EngineTerms = MATCHED, **options: object) -> Deployment:
    chosen = ENGINES[engine].options(**options)
    return Deployment(engine, "smollm2-135m", "bf16", terms, chosen, "label")


def words(engine: str, place: Place = PLACE, terms: EngineTerms = MATCHED) -> tuple[str, ...]:
    options = {"program": "/env/program"} if engine == "tgi" else {}
    spec = ENGINES[engine].launch(deployment(engine, terms, **options), place)
    assert isinstance(spec, NativeSpec)
    return spec.argv


@pytest.mark.parametrize("engine", TOLD)
def test_a_server_is_told_of_each_adapter_by_name_or_in_order(engine: str) -> None:
    plain = words(engine, replace(PLACE, adapters=()))
    assert tuple(word for word in words(engine) if word not in plain) == TOLD[engine]


@pytest.mark.parametrize("engine", ["llama_cpp", "tgi"])
def test_an_engine_that_would_mix_up_what_adapters_computed_has_no_prefix_cache(engine: str) -> None:
    plain = deployment(engine, replace(MATCHED, prefix_cache=True))
    adapted = replace(plain, adapters=(Adapter("one"),))
    unmatched = ENGINES[engine].unmatched
    assert unmatched(adapted).keys() - unmatched(plain).keys() == {"prefix_cache"}


def test_llama_cpps_slots_and_tgis_blocks_are_not_reused_beside_adapters() -> None:
    adapted = replace(deployment("llama_cpp"), adapters=(Adapter("one"),))
    without = Reason("with LoRA adapters its prefix cache is off")
    assert ENGINES["llama_cpp"].reset_cache(adapted) == without
    tgi = deployment("tgi", replace(MATCHED, prefix_cache=True), program="/env/program")
    asked = [tgi, replace(tgi, adapters=(Adapter("one"),))]
    specs = [ENGINES["tgi"].launch(each, PLACE) for each in asked]
    assert [spec.environment.get("PREFIX_CACHING") for spec in specs] == [None, "0"]


def test_stock_leaves_it_to_the_engine_how_many_are_in_a_batch() -> None:
    stock = EngineTerms(launcher="native", fairness="stock")
    assert not [word for engine in TOLD for word in words(engine, terms=stock) if "max-loras" in word]


@pytest.mark.parametrize(
    ("engine", "seen"), [("vllm", "one=/adapters/one"), ("llama_cpp", "/adapters/one:0")]
)
def test_a_container_sees_adapters_in_a_folder_of_their_own(engine: str, seen: str) -> None:
    docker = replace(MATCHED, launcher="docker")
    spec = ENGINES[engine].launch(deployment(engine, docker), PLACE)
    assert isinstance(spec, ContainerSpec)
    assert (Path("/a/one"), "/adapters/one") in spec.mounts
    assert seen in " ".join(spec.arguments).replace(",", " ").split()


@pytest.mark.parametrize(
    ("engine", "fields"),
    [
        ("vllm", {"model": "two"}),
        ("tgi", {"model": "two"}),
        ("openai", {"model": "two"}),
        ("reference", {"model": "two"}),
        ("sglang", {"lora_path": "two"}),
        ("llama_cpp", {"lora": [{"id": 1, "scale": 1.0}]}),
    ],
)
def test_a_request_names_its_adapter_as_the_engine_wants_it(engine: str, fields: dict[str, object]) -> None:
    assert ENGINES[engine].adapter_fields("two", 1) == fields


@pytest.mark.parametrize(
    ("engine", "options", "terms", "begins"),
    [
        ("transformers", {}, MATCHED, "bench's small server loads only the model"),
        ("ollama", {}, MATCHED, "an Ollama model has one adapter"),
        ("reference", {"program": "native"}, MATCHED, "the native program has no adapters"),
        ("llama_cpp", {"program": "llama-cpp-python"}, MATCHED, "llama-cpp-python has one adapter for all"),
        ("sglang", {}, replace(MATCHED, speculation="draft:small"), "SGLang refuses adapters with a draft"),
    ],
)
def test_an_engine_says_why_it_serves_none(
    engine: str, options: dict[str, object], terms: EngineTerms, begins: str
) -> None:
    reason = ENGINES[engine].why_no_adapters(deployment(engine, terms, **options))
    assert isinstance(reason, Reason)
    assert str(reason).startswith(begins)


def test_sglang_serves_none_on_a_cpu() -> None:
    """Seen with 0.5.23, and with its LoRA backend torch_native too."""
    adapted = replace(deployment("sglang"), adapters=(Adapter("one"),))
    with pytest.raises(UserError, match="serves no LoRA adapters on a CPU"):
        ENGINES["sglang"].launch(adapted, replace(PLACE, devices=()))


@pytest.mark.parametrize("engine", TOLD)
def test_an_engine_that_serves_them_gives_no_reason(engine: str) -> None:
    ngram = replace(MATCHED, speculation="ngram")
    assert ENGINES[engine].why_no_adapters(deployment(engine, ngram)) is None
