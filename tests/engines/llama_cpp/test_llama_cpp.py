"""The llama_cpp engine's own facts: command lines, reasons, and what each program cannot be told."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from serving_bench.engines.llama_cpp.engine import ENGINE, Options
from serving_bench.harness.contracts import (
    ContainerSpec,
    Deployment,
    EngineTerms,
    HttpCall,
    InstallSpec,
    NativeSpec,
    Place,
    Reason,
    Turn,
    WeightsFile,
)
from serving_bench.harness.errors import UserError

INSIDE = ROOT / "serving_bench" / "engines" / "inside"
PROGRAMS = ("xllamacpp", "llama-server", "llama-cpp-python")
MATCHED = EngineTerms(
    launcher="native", context_length=2048, concurrent_sequences=4, kv_cache_tokens=8192, prefix_cache=True
)
STOCK = EngineTerms(fairness="stock", launcher="native")
WEIGHTS = Path("/w/m-f16.gguf")


def deployment(
    quantization: str = "fp16", terms: EngineTerms | None = None, options: Options | None = None
) -> Deployment:
    return Deployment(
        "llama_cpp", "gemma3-270m", quantization, terms or EngineTerms(), options or Options(), "label"
    )


def place(program: str = "xllamacpp", **more: Any) -> Place:
    """As the harness makes it: `python` for scripts, `program` for what an environment was compiled to."""
    is_compiled = program == "llama-server"
    return Place(
        Path("/env/bin/python"),
        WEIGHTS,
        "127.0.0.1",
        8123,
        Path("/scratch"),
        program=Path("/env/bin/llama-server") if is_compiled else None,
        **more,
    )


def launched(
    terms: EngineTerms | None = None, options: Options | None = None, where: Place | None = None
) -> NativeSpec:
    options = options or Options()
    spec = ENGINE.launch(deployment(terms=terms, options=options), where or place(options.program))
    assert isinstance(spec, NativeSpec)
    return spec


BEGINS = {
    "xllamacpp": ("/env/bin/python", "-P", str(INSIDE / "xllamacpp_server.py")),
    "llama-server": ("/env/bin/llama-server",),
    "llama-cpp-python": ("/env/bin/python", "-P", str(INSIDE / "llama_cpp_python_server.py")),
}
SERVED = (
    "--model", "/w/m-f16.gguf", "--alias", "gemma3-270m",
    "--host", "127.0.0.1", "--port", "8123", "--metrics", "--log-verbosity", "4",
)  # fmt: skip
SERVED_BY_PYTHON = (
    "--model", "/w/m-f16.gguf", "--model_alias", "gemma3-270m",
    "--host", "127.0.0.1", "--port", "8123", "--interrupt_requests", "false",
)  # fmt: skip
# Prompts are in the slots alone, and those can be erased.
NO_COPIES = ("--cache-ram", "0", "--slot-save-path", "/scratch")
LARGE = ("--batch-size", "2048", "--ubatch-size", "2048")


@pytest.mark.parametrize("program", ["xllamacpp", "llama-server"])
def test_matched_command_line_of_llama_cpps_own_server(program: str) -> None:
    spec = launched(MATCHED, Options(program=program))
    slots = ("--parallel", "4", "--ctx-size", "8192")
    assert spec.argv == (*BEGINS[program], *SERVED, "--fit", "off", *slots, *NO_COPIES)
    assert spec.base_url == "http://127.0.0.1:8123/v1"
    assert spec.served_model == "gemma3-270m"
    assert spec.ready_path == "/health"


@pytest.mark.parametrize("program", ["xllamacpp", "llama-server"])
def test_stock_command_line_of_llama_cpps_own_server_leaves_it_its_defaults(program: str) -> None:
    assert launched(STOCK, Options(program=program)).argv == (*BEGINS[program], *SERVED)


def test_tuned_set_comes_on_top_of_matched() -> None:
    assert ENGINE.tuned is not None
    options = Options(program="llama-server", **ENGINE.tuned.options)
    matched = launched(MATCHED, Options(program="llama-server")).argv
    assert launched(MATCHED, options).argv == (*matched, *LARGE)


def test_matched_command_line_of_llama_cpp_python() -> None:
    spec = launched(MATCHED, Options(program="llama-cpp-python"))
    assert spec.argv == (
        *BEGINS["llama-cpp-python"], *SERVED_BY_PYTHON, "--logits_all", "false", "--n_ctx", "2048",
    )  # fmt: skip
    assert spec.ready_path == "/v1/models"


def test_stock_command_line_of_llama_cpp_python_still_lets_requests_end() -> None:
    spec = launched(STOCK, Options(program="llama-cpp-python"))
    assert spec.argv == (*BEGINS["llama-cpp-python"], *SERVED_BY_PYTHON)


def test_tuned_command_line_of_llama_cpp_python() -> None:
    assert ENGINE.tuned is not None
    options = Options(program="llama-cpp-python", **ENGINE.tuned.options)
    assert launched(MATCHED, options).argv[-4:] == ("--n_batch", "2048", "--n_ubatch", "2048")


def test_container_runs_the_same_command_line_on_mounted_weights() -> None:
    terms = EngineTerms(
        launcher="docker",
        context_length=512,
        concurrent_sequences=2,
        kv_cache_tokens=1024,
        memory_limit_bytes=2**30,
    )
    spec = ENGINE.launch(
        deployment(terms=terms, options=Options(image="llama.cpp:server")),
        Place(None, WEIGHTS, "127.0.0.1", 8123, Path("/scratch"), chat_template=Path("/t/gemma3.jinja")),
    )
    assert spec == ContainerSpec(
        image="llama.cpp:server",
        arguments=(
            "--model", "/weights/m-f16.gguf", "--alias", "gemma3-270m",
            "--host", "127.0.0.1", "--port", "8123", "--metrics", "--log-verbosity", "4",
            "--fit", "off", "--parallel", "2", "--ctx-size", "1024", "--cache-ram", "0",
            "--slot-save-path", "/tmp", "--jinja", "--chat-template-file", "/templates/gemma3.jinja",
        ),
        base_url="http://127.0.0.1:8123/v1",
        served_model="gemma3-270m",
        ready_path="/health",
        mounts=((WEIGHTS, "/weights/m-f16.gguf"), (Path("/t/gemma3.jinja"), "/templates/gemma3.jinja")),
        memory_limit_bytes=2**30,
        stop_grace_s=5.0,
    )  # fmt: skip


def test_container_sees_all_files_of_a_model_in_several() -> None:
    first = Path("/w/big/big-00001-of-00003.gguf")
    spec = ENGINE.launch(
        deployment(terms=EngineTerms(launcher="docker"), options=Options(image="i")),
        Place(None, first, "127.0.0.1", 8123, Path("/scratch")),
    )
    assert isinstance(spec, ContainerSpec)
    assert spec.mounts == ((Path("/w/big"), "/weights/big"),)
    assert spec.arguments[:2] == ("--model", "/weights/big/big-00001-of-00003.gguf")


def test_container_sees_a_draft_in_a_folder_of_its_own() -> None:
    terms = EngineTerms(launcher="docker", speculation="draft:small", speculative_tokens=3)
    draft = WeightsFile(Path("/other/m-f16.gguf"), 1)
    spec = ENGINE.launch(
        deployment(terms=terms, options=Options(image="i")),
        Place(None, WEIGHTS, "127.0.0.1", 8123, Path("/scratch"), draft=draft),
    )
    assert isinstance(spec, ContainerSpec)
    assert spec.mounts == ((WEIGHTS, "/weights/m-f16.gguf"), (draft.path, "/draft/m-f16.gguf"))
    assert spec.arguments[spec.arguments.index("--spec-draft-model") + 1] == "/draft/m-f16.gguf"


def test_container_on_a_device_puts_all_layers_there() -> None:
    spec = ENGINE.launch(
        deployment(terms=EngineTerms(launcher="docker", tensor_parallel=2), options=Options(image="i")),
        Place(None, WEIGHTS, "127.0.0.1", 8123, Path("/scratch"), devices=(0, 1)),
    )
    assert isinstance(spec, ContainerSpec)
    assert spec.devices == (0, 1)
    assert spec.arguments[-4:] == ("--n-gpu-layers", "999", "--split-mode", "row")


def test_own_llama_server_is_started_by_its_path() -> None:
    options = Options(program="/opt/llama.cpp/llama-server")
    where = Place(
        None, WEIGHTS, "127.0.0.1", 8123, Path("/scratch"), program=Path("/opt/llama.cpp/llama-server")
    )
    assert launched(MATCHED, options, where).argv[0] == "/opt/llama.cpp/llama-server"


def test_kv_cache_of_another_size_is_shared_by_the_slots() -> None:
    terms = EngineTerms(context_length=2048, concurrent_sequences=4, kv_cache_tokens=4096)
    assert launched(terms).argv[-11:] == (
        "--parallel", "4", "--ctx-size", "4096", "--kv-unified", "--kv-unified-per-slot", "2048", *NO_COPIES,
    )  # fmt: skip


def resets(terms: EngineTerms, **options: Any) -> Sequence[HttpCall] | Reason:
    return ENGINE.reset_cache(deployment(terms=terms, options=Options(**options)))


@pytest.mark.parametrize("program", ["xllamacpp", "llama-server", "/opt/llama.cpp/llama-server"])
def test_every_slot_is_erased(program: str) -> None:
    erased = [HttpCall("POST", f"/slots/{slot}?action=erase") for slot in range(4)]
    assert resets(MATCHED, program=program) == erased
    assert resets(MATCHED, program=program, cache_ram_bytes=0) == erased


@pytest.mark.parametrize(
    ("terms", "options", "reason"),
    [
        (STOCK, {}, "keeps prompts in host memory"),
        (MATCHED, {"cache_ram_bytes": 2**20}, "keeps prompts in host memory"),
        (STOCK, {"cache_ram_bytes": 0}, "number of slots"),
        (replace(MATCHED, prefix_cache=False), {}, "no prefix cache"),
    ],
)
def test_slots_that_would_get_their_prompts_back_are_not_erased(
    terms: EngineTerms, options: dict[str, Any], reason: str
) -> None:
    refused = resets(terms, **options)
    assert isinstance(refused, Reason)
    assert reason in str(refused)
    assert "--slot-save-path" not in launched(terms, Options(**options)).argv


def test_llama_cpp_python_forgets_its_prompt_over_another() -> None:
    calls = resets(MATCHED, program="llama-cpp-python")
    assert isinstance(calls, tuple)
    (call,) = calls
    assert (call.method, call.path) == ("POST", "/v1/chat/completions")
    body = call.body or {}
    assert (body["model"], body["max_tokens"]) == ("gemma3-270m", 1)


def test_given_terms_are_told_in_stock_too() -> None:
    terms = EngineTerms(fairness="stock", launcher="native", context_length=512, seed=7)
    assert launched(terms).argv == (*BEGINS["xllamacpp"], *SERVED, "--ctx-size", "512", "--seed", "7")


def test_every_option_becomes_a_flag() -> None:
    options = Options(
        program="llama-server",
        threads=3,
        batch=1024,
        ubatch=256,
        flash_attention=True,
        cache_ram_bytes=3 * 2**20 + 1,
    )
    assert launched(replace(MATCHED, kv_cache_type="fp16"), options).argv[-14:] == (
        "--cache-ram", "4", "--threads", "3", "--batch-size", "1024", "--ubatch-size", "256",
        "--flash-attn", "on", "--cache-type-k", "f16", "--cache-type-v", "f16",
    )  # fmt: skip


def test_a_quantized_kv_cache_has_flash_attention() -> None:
    terms = replace(MATCHED, kv_cache_type="q8_0")
    assert launched(terms, Options(program="llama-server")).argv[-6:] == (
        "--flash-attn", "on", "--cache-type-k", "q8_0", "--cache-type-v", "q8_0",
    )  # fmt: skip
    assert launched(terms, Options(program="llama-cpp-python")).argv[-6:] == (
        "--flash_attn", "true", "--type_k", "8", "--type_v", "8",
    )  # fmt: skip


def test_every_option_becomes_a_flag_of_llama_cpp_python() -> None:
    options = Options(program="llama-cpp-python", threads=3, batch=1024, ubatch=256, flash_attention=False)
    assert launched(replace(MATCHED, kv_cache_type="bf16"), options).argv[-14:] == (
        "--n_threads", "3", "--n_threads_batch", "3", "--n_batch", "1024", "--n_ubatch", "256",
        "--flash_attn", "false", "--type_k", "30", "--type_v", "30",
    )  # fmt: skip


ALL_TERMS = EngineTerms(
    prefix_cache=False, seed=7, speculation="ngram", speculative_tokens=8, chat_template="/t/own.jinja"
)
OWN = place("llama-server", chat_template=Path("/t/model.jinja"))


def test_further_terms_become_flags() -> None:
    assert launched(ALL_TERMS, Options(program="llama-server"), OWN).argv[-12:] == (
        "--no-cache-prompt", "--cache-ram", "0", "--seed", "7",
        "--spec-type", "ngram-simple", "--spec-ngram-simple-size-m", "8",
        "--jinja", "--chat-template-file", "/t/own.jinja",
    )  # fmt: skip


def test_a_draft_has_the_type_of_its_targets_kv_cache_and_its_device() -> None:
    terms = EngineTerms(speculation="draft:small", speculative_tokens=3, kv_cache_type="fp16")
    draft = WeightsFile(Path("/w/small.gguf"), 1)
    where = replace(place("llama-server"), draft=draft, devices=(0,))
    argv = launched(terms, Options(program="llama-server"), where).argv
    assert argv[-12:] == (
        "--spec-type", "draft-simple", "--spec-draft-model", "/w/small.gguf", "--spec-draft-n-max", "3",
        "--spec-draft-type-k", "f16", "--spec-draft-type-v", "f16", "--spec-draft-ngl", "999",
    )  # fmt: skip
    known = ENGINE.speculations
    assert known is not None
    python = Deployment("llama_cpp", "m", "fp16", terms, Options(program="llama-cpp-python"), "")
    assert known(python) == ("ngram",)


def test_further_terms_become_flags_of_llama_cpp_python() -> None:
    assert launched(ALL_TERMS, Options(program="llama-cpp-python")).argv[-9:] == (
        "--no-prefix-cache", "--seed", "7",
        "--draft_model", "prompt-lookup-decoding", "--draft_model_num_pred_tokens", "8",
        "--chat-template-file", "/t/own.jinja",
    )  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_models_template_is_used_where_no_other_is_given(program: str) -> None:
    where = place(program, chat_template=Path("/t/model.jinja"))
    argv = launched(MATCHED, Options(program=program), where).argv
    assert argv[-2:] == ("--chat-template-file", "/t/model.jinja")


@pytest.mark.parametrize(
    ("program", "flags"),
    [
        ("llama-server", ("--n-gpu-layers", "999", "--split-mode", "row")),
        ("llama-cpp-python", ("--n_gpu_layers", "-1", "--split_mode", "2")),
    ],
)
def test_devices_get_all_layers_and_are_the_only_ones_seen(program: str, flags: tuple[str, ...]) -> None:
    terms = EngineTerms(tensor_parallel=2, graphs=False)
    spec = launched(terms, Options(program=program), place(program, devices=(1, 3)))
    assert spec.argv[-4:] == flags
    assert spec.environment == {
        "CUDA_VISIBLE_DEVICES": "1,3",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "GGML_CUDA_DISABLE_GRAPHS": "1",
    }


@pytest.mark.parametrize(
    ("program", "flags"),
    [("llama-server", ("--n-gpu-layers", "7")), ("llama-cpp-python", ("--n_gpu_layers", "7"))],
)
def test_devices_get_the_layers_that_are_given(program: str, flags: tuple[str, ...]) -> None:
    options = Options(program=program, gpu_layers=7)
    assert launched(MATCHED, options, place(program, devices=(0,))).argv[-2:] == flags


def test_layers_are_for_a_gpu_alone() -> None:
    with pytest.raises(UserError, match=r"^llama_cpp\.gpu_layers=7: there is no GPU here to hold layers$"):
        launched(MATCHED, Options(gpu_layers=7))
    assert "--n-gpu-layers" not in launched(MATCHED, Options(gpu_layers=0)).argv


def test_on_the_cpu_no_device_is_seen() -> None:
    assert launched(MATCHED).environment["CUDA_VISIBLE_DEVICES"] == ""


def test_tensor_parallel_needs_as_many_devices() -> None:
    with pytest.raises(UserError, match=r"engine\.tensor_parallel=2: llama_cpp was given 1 devices"):
        launched(EngineTerms(tensor_parallel=2), Options(program="llama-server"), place(devices=(0,)))


def test_llama_server_is_a_program_and_the_others_are_not() -> None:
    specs = {program: ENGINE.install(program, "cpu") for program in PROGRAMS}
    found = {program: spec.program for program, spec in specs.items() if isinstance(spec, InstallSpec)}
    assert found == {"xllamacpp": None, "llama-server": "bin/llama-server", "llama-cpp-python": None}


@pytest.mark.parametrize("program", ["llama-server", "llama-cpp-python"])
def test_build_for_cuda_says_what_it_needs_and_is_checked_to_have_it(program: str) -> None:
    spec = ENGINE.install(program, "cuda")
    assert isinstance(spec, InstallSpec)
    assert spec.environment == f"llama_cpp-{program}-cuda"
    assert "CMAKE_ARGS=-DGGML_CUDA=ON" in (spec.needs or "")
    assert "sys.exit" in spec.check


@pytest.mark.parametrize("program", ["xllamacpp", "llama-server", "/own/llama-server"])
def test_requests_force_the_output_length_and_the_sampling(program: str) -> None:
    assert ENGINE.request_fields(Turn((), max_tokens=8), Options(program=program), "matched") == {
        "ignore_eos": True, "top_k": 1, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0,
        "presence_penalty": 0.0, "frequency_penalty": 0.0, "mirostat": 0, "xtc_probability": 0.0,
    }  # fmt: skip


def test_requests_to_llama_cpp_python_force_the_same_with_its_own_words() -> None:
    options = Options(program="llama-cpp-python")
    assert ENGINE.request_fields(Turn((), max_tokens=8), options, "tuned") == {
        "min_tokens": 8, "top_k": 1, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0,
        "presence_penalty": 0.0, "frequency_penalty": 0.0, "mirostat_mode": 0,
    }  # fmt: skip


def test_stock_requests_force_the_length_alone() -> None:
    turn = Turn((), max_tokens=8)
    assert ENGINE.request_fields(turn, Options(), "stock") == {"ignore_eos": True}
    assert ENGINE.request_fields(turn, Options(program="llama-cpp-python"), "stock") == {"min_tokens": 8}


def test_matched_terms_can_all_be_told_to_llama_cpps_own_server() -> None:
    assert ENGINE.unmatched(deployment(terms=MATCHED)) == {}


def test_terms_that_llama_cpp_cannot_be_told_are_named() -> None:
    terms = EngineTerms(dtype="float16", trust_remote_code=True, chunked_prefill=False)
    assert set(ENGINE.unmatched(deployment(terms=terms))) == {"dtype", "trust_remote_code", "chunked_prefill"}


def test_graphs_are_left_to_the_log_as_the_device_decides() -> None:
    assert ENGINE.unmatched(deployment(terms=EngineTerms(graphs=True))) == {}


def test_llama_cpp_python_says_that_it_serves_one_request_at_a_time() -> None:
    found = ENGINE.unmatched(deployment(terms=MATCHED, options=Options(program="llama-cpp-python")))
    assert {term: str(why) for term, why in found.items()} == {
        "concurrent_sequences": "llama-cpp-python serves one request at a time",
        "kv_cache_tokens": "llama-cpp-python has a KV cache for one conversation",
        "prefix_cache": "llama-cpp-python keeps only the tokens of its last request",
    }
    assert "one request at a time" in ENGINE.description


def test_one_conversation_is_all_that_llama_cpp_python_can_match() -> None:
    terms = EngineTerms(context_length=512, concurrent_sequences=1, kv_cache_tokens=512, prefix_cache=False)
    assert ENGINE.unmatched(deployment(terms=terms, options=Options(program="llama-cpp-python"))) == {}
