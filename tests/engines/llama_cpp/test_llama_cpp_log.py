"""Reading what llama.cpp's programs say: recorded logs, pages and streams of the real servers.

tests/data/llama_cpp has, per program and version, the log of a start with the matched terms of 512 tokens x 2
and bench's template of gemma3-270m (Q4_K_M), shortened; the page /props; and the stream of one chat answer
whose prompt was sent before.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from places import TESTS

from serving_bench.engines.llama_cpp.engine import ENGINE
from serving_bench.harness.contracts import Deployment, EngineTerms, WeightsFile
from serving_bench.harness.load.answer.chat import classify, decode
from serving_bench.harness.run.start import hints_for

DATA = TESTS / "data" / "llama_cpp"
XLLAMACPP, LLAMA_SERVER = "xllamacpp-2026.10.11549", "llama-server-11434.0.0"
PYTHON = "llama-cpp-python-0.3.36"
RECORDED = (XLLAMACPP, LLAMA_SERVER, PYTHON)
# K and V of 256 halves for 18 layers and 1024 tokens; the window of 512 saves nothing at this length.
KV_BYTES = 2 * 256 * 2 * 18 * 1024


def log_of(recorded: str) -> str:
    return (DATA / f"{recorded}.log").read_text()


def props_of(recorded: str) -> dict[str, Any]:
    page = DATA / f"{recorded}.props.json"
    return {"/props": json.loads(page.read_text())} if page.exists() else {}


def resolved(recorded: str) -> dict[str, Any]:
    found = dict(ENGINE.said(log_of(recorded), props_of(recorded)).terms)
    assert found.pop("cpu_features").startswith("CPU : SSE3 = 1")
    return found


def test_values_of_xllamacpp() -> None:
    assert resolved(XLLAMACPP) == {
        "engine_version": "2026.10.11549", "threads": 2, "weights_type": "Q4_K - Medium",
        "context_length": 512, "concurrent_sequences": 2, "kv_cache_tokens": 1024, "kv_cache_type": "fp16",
        "kv_cache_bytes": KV_BYTES, "batch_tokens": 1024, "ubatch_tokens": 512, "attention_backend": "flash",
        "quantization_kernel": "CPU_REPACK", "chat_template": "given", "graphs": False,
    }  # fmt: skip


def test_values_of_llama_server_are_those_of_xllamacpp_but_for_the_version() -> None:
    expected = resolved(XLLAMACPP)
    del expected["engine_version"]  # this build knows neither its number nor its commit
    assert resolved(LLAMA_SERVER) == expected


def test_values_of_llama_cpp_python() -> None:
    assert resolved(PYTHON) == {
        "engine_version": "0.3.36",
        "threads": 1,
        "weights_type": "Q4_K - Medium",
        "context_length": 512,
        "concurrent_sequences": 1,
        "kv_cache_tokens": 512,
        "kv_cache_type": "fp16",
        "kv_cache_bytes": KV_BYTES // 2,
        "batch_tokens": 512,
        "ubatch_tokens": 512,
        "attention_backend": "plain",
        "quantization_kernel": "CPU_REPACK",
        "chat_template": "given",
        "graphs": False,
    }


def test_attached_server_tells_by_its_page_alone() -> None:
    page = {**props_of(LLAMA_SERVER)["/props"], "build_info": "b6789-abcdef0"}
    assert ENGINE.said("", {"/props": page}).terms == {
        "engine_version": "b6789-abcdef0",
        "context_length": 512,
        "concurrent_sequences": 2,
        "weights_type": "Q4_K - Medium",
    }


def test_seed_is_told_unless_it_is_random() -> None:
    page = props_of(LLAMA_SERVER)["/props"]
    page["default_generation_settings"]["params"]["seed"] = 7
    assert ENGINE.said("", {"/props": page}).terms["seed"] == 7


def test_graphs_of_a_build_with_cuda_are_not_told() -> None:
    # As ggml-cuda.cu lists its features; the second stands where graphs were compiled in.
    line = "system_info: n_threads = 8 | CUDA : ARCHS = 900 | USE_GRAPHS = 1 | CPU : SSE3 = 1 |\n"
    assert "graphs" not in ENGINE.said(line, {}).terms
    assert ENGINE.said(line.replace("USE_GRAPHS = 1 | ", ""), {}).terms["graphs"] is False


def test_the_buffers_of_a_draft_are_added_and_its_kernels_are_not_the_targets() -> None:
    """Lines of a start of xllamacpp 2026.10.11549 with smollm2-135m, for which its Q4_0 drafts."""
    log = """
0.00.479.036 I load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
0.00.819.364 I load_tensors:   CPU_Mapped model buffer size =   256.63 MiB
0.00.824.259 I llama_context:        CPU  output buffer size =     0.75 MiB
0.00.824.393 I llama_kv_cache:        CPU KV buffer size =   360.00 MiB
0.01.057.138 I llama_kv_cache: size =  360.00 MiB (  4096 cells,  30 layers,  4/4 seqs), K (f16):  180.00 MiB
0.01.065.147 I sched_reserve:        CPU compute buffer size =    18.64 MiB
0.03.894.211 I common_speculative_init_result: loading draft model '/w/smollm2-135m-q4_0.gguf'
0.04.134.053 I load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
0.04.160.518 I load_tensors:   CPU_Mapped model buffer size =    85.77 MiB
0.04.160.540 I load_tensors:   CPU_REPACK model buffer size =    56.95 MiB
0.04.280.044 I llama_context:        CPU  output buffer size =     0.75 MiB
0.04.281.171 I llama_kv_cache:        CPU KV buffer size =   360.00 MiB
0.04.558.433 I llama_kv_cache: size =  360.00 MiB (  4096 cells,  30 layers,  4/4 seqs), K (f16):  180.00 MiB
0.04.560.658 I sched_reserve:        CPU compute buffer size =    18.64 MiB
0.06.276.742 I spec common_specu: adding speculative implementation 'draft-simple'
0.06.276.746 I spec common_specu: - n_max=3, n_min=0, p_min=0.000000
"""
    found = ENGINE.said(log, {})
    mebibytes = {"weights": 256.63 + 85.77, "kv_cache": 720, "workspace": 2 * (0.75 + 18.64) + 56.95}
    for part, size in found.memory.items():
        assert size / 2**20 == pytest.approx(mebibytes.pop(part), abs=0.01)
    assert not mebibytes
    assert found.terms["speculative_tokens"] == 3
    assert found.terms["kv_cache_bytes"] == 720 << 20
    assert "quantization_kernel" not in found.terms


def test_speculation_is_told() -> None:
    line = "0.02.223.465 I spec common_specu: - size_n=12, size_m=8, min_hits=1\n"
    assert ENGINE.said(line, {}).terms == {"speculative_tokens": 8}


CHATML = "{%- for message in messages -%}{{- '<|im_start|>' + message.role }}"
LOADER = "0.1 I llama_model_loader: - kv   0:  general.architecture str  = gemma3\n"
# The first 37 characters and ..., as llama.cpp 11434 writes it.
OWN = "0.1 I llama_model_loader: - kv  30:  tokenizer.chat_template str  = {{ bos_token }}\\n{%- if messages[0]...\n"  # noqa: E501
FILES = "{{ bos_token }}\n{%- if messages[0]['role'] == 'system' %}"


@pytest.mark.parametrize(
    ("log", "template", "said"),
    [
        (LOADER, CHATML, "chatml (the file has none)"),
        (LOADER, FILES, "given"),
        (LOADER + OWN, FILES, "the file's"),
        (LOADER + OWN, CHATML, "given"),
        ("Using fallback chat format: llama-2\n", None, "llama-2 (the file has none)"),
        ("Guessed chat format: chatml\n", None, "chatml (guessed from the file's)"),
        ("Using gguf chat template: {{ bos_token }}\n", None, "the file's"),
        ("chat template: /t/own.jinja\nUsing fallback chat format: llama-2\n", None, "given"),
    ],
)
def test_whose_template_is_used_is_told(log: str, template: str | None, said: str) -> None:
    facts = {} if template is None else {"/props": {"chat_template": template}}
    assert ENGINE.said(log, facts).terms["chat_template"] == said


def test_nothing_said_is_nothing_resolved() -> None:
    assert ENGINE.said("", {}).terms == {}
    assert ENGINE.said("", {"/props": ["odd"]}).terms == {}


@pytest.mark.parametrize("recorded", RECORDED)
def test_stages_of_a_start_are_found_in_their_order(recorded: str) -> None:
    lines = log_of(recorded).splitlines()
    reached = [
        next(number for number, line in enumerate(lines) if re.search(stage.pattern, line))
        for stage in ENGINE.stages
    ]
    assert [stage.name for stage in ENGINE.stages] == ["weights_begin", "weights_loaded", "engine_ready"]
    assert reached == sorted(reached)
    # The vocabulary is read before the first, all tensors before the second; at the third is the KV cache.
    assert max(n for n, line in enumerate(lines) if "print_info: n_vocab" in line) < reached[0]
    assert max(n for n, line in enumerate(lines) if "load_tensors:" in line) < reached[1]
    assert max(n for n, line in enumerate(lines) if "llama_kv_cache: size" in line) < reached[2]


@pytest.mark.parametrize("recorded", RECORDED)
def test_recorded_stream_is_read_right(recorded: str) -> None:
    body = (DATA / f"{recorded}.sse").read_bytes()
    answer = decode(body, [5], [len(body)])
    assert classify(200, body, answer, "text/event-stream; charset=utf-8") == ("ok", None)
    assert answer.finish_reason == "length"
    assert answer.saw_done
    assert (answer.input_tokens, answer.output_tokens) == (29, 24)
    # The role's chunk, the finish and the usage bear no content; some tokens are parts of a character.
    assert 20 <= len(answer.chunk_ns) <= 24
    assert answer.text.count("\N{REPLACEMENT CHARACTER}") == 0
    # The last token is evaluated again; where the window was checkpointed, a few more.
    assert answer.cached_tokens in (24, 28)


# As the programs wrote them, shortened: a port in use, too long a context, half a file, a wrong flag, a wrong
# Python. Those of CUDA are from llama.cpp's source and the loader's.
ERRORS = [
    ("E ggml_aligned_malloc: insufficient memory (attempted to allocate 58593.75 MB)", "Memory ran out"),
    ("failed to initialize the context: failed to allocate buffer for kv cache", "Memory ran out"),
    ("allocating 9000.00 MiB on device 0: cudaMalloc failed: out of memory", "Memory ran out"),
    ("E llama_model_load: error loading model: unknown model architecture: 'gemmX9'", "architecture"),
    ("Fatal Python error: Illegal instruction", "instructions"),
    ("E gguf_init_from_reader: invalid magic characters: 'hell', expected 'GGUF'", "damaged"),
    ("error loading model: tensor 'a.weight' data is not within the file bounds, model is", "damaged"),
    ("error: invalid argument: --kv-unified-per-slot", "arguments"),
    ("xllamacpp_server.py: error: unrecognized arguments: --odd", "arguments"),
    ("ModuleNotFoundError: No module named 'xllamacpp'", "bench install"),
    ("ModuleNotFoundError: No module named 'llama_cpp'", "bench install"),
    ("libcuda.so.1: cannot open shared object file: No such file or directory", "CUDA"),
    ("warning: no usable GPU found, --gpu-layers option will be ignored", "CUDA"),
]


@pytest.mark.parametrize(("line", "remedy"), ERRORS)
def test_error_lines_have_their_remedy(line: str, remedy: str) -> None:
    found = [hint.remedy for hint in ENGINE.hints if re.search(hint.pattern, line)]
    assert len(found) == 1
    assert remedy in found[0]


def test_only_a_file_that_bench_made_is_to_be_prepared_again(tmp_path: Path) -> None:
    own = WeightsFile(tmp_path / "mine.gguf", 1)
    deployment = Deployment("llama_cpp", str(own.path), "gguf", EngineTerms(), {}, "llama_cpp")
    found = [hint.remedy for hint in hints_for(deployment, own)]
    assert "The GGUF file is damaged or cut short: give a whole one." in found
    assert hints_for(deployment, WeightsFile(tmp_path / "cache/mine-q4_0.gguf", 1)) == list(ENGINE.hints)


@pytest.mark.parametrize("recorded", RECORDED)
def test_a_good_start_has_no_remedy(recorded: str) -> None:
    assert not [hint for hint in ENGINE.hints if re.search(hint.pattern, log_of(recorded))]
