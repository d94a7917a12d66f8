"""The tgi engine's own facts: command lines, reasons, and reading of log lines as its source writes them."""

import re
from pathlib import Path

import pytest

from serving_bench.engines.common.launching import image_of
from serving_bench.engines.tgi.engine import ENGINE, Options
from serving_bench.harness.contracts import (
    ContainerSpec,
    Deployment,
    EngineTerms,
    NativeSpec,
    Place,
    Reason,
    Turn,
)
from serving_bench.harness.errors import UserError

WEIGHTS = Path("/w/llama 8b-bf16")
GPU = Place(None, WEIGHTS, "127.0.0.1", 8123, Path("/scratch"), devices=(0,))
OWN = Place(None, WEIGHTS, "127.0.0.1", 8123, Path("/scratch"), Path("/opt/text-generation-launcher"), (0,))
MATCHED = EngineTerms(
    launcher="docker", context_length=2048, concurrent_sequences=8, kv_cache_tokens=16384, prefix_cache=True
)
# The formats of the source of 2026-01-08: launcher/src/main.rs, backends/v3/src/lib.rs,
# server/text_generation_server/models/{globals,model,flash_causal_lm,__init__}.py.
LOG = """\
2026-01-08T12:00:00.1Z  INFO text_generation_launcher: Using attention flashinfer - Prefix caching true
2026-01-08T12:00:00.2Z  INFO text_generation_launcher: Sharding model on 2 processes
2026-01-08T12:00:00.3Z  INFO text_generation_launcher: Default `max_batch_prefill_tokens` to 4096
2026-01-08T12:00:09.1Z  INFO text_generation_launcher: Using prefix caching = True
2026-01-08T12:00:09.1Z  INFO text_generation_launcher: Using Attention = flashinfer
2026-01-08T12:00:10.1Z  INFO text_generation_launcher: Auto selecting quantization method awq
2026-01-08T12:00:10.2Z  INFO text_generation_launcher: Using prefill chunking = True
2026-01-08T12:00:16.1Z  INFO shard-manager: text_generation_launcher: Shard ready in 6.5s rank=0
2026-01-08T12:00:17.1Z  INFO text_generation_router_v3: backends/v3/src/lib.rs:125: Warming up model
2026-01-08T12:00:18.1Z  INFO text_generation_launcher: KV-cache blocks: 1250, size: 16
2026-01-08T12:00:18.2Z  INFO text_generation_launcher: Cuda Graphs are enabled for sizes [8, 4, 2, 1]
2026-01-08T12:00:19.1Z  INFO text_generation_router_v3: lib.rs:137: Setting max batch total tokens to 20000
2026-01-08T12:00:20.1Z  INFO text_generation_router::server: server.rs:2345: Serving revision abc of model m
"""
INFO = {
    "model_id": "/weights/m",
    "max_concurrent_requests": 4096,
    "max_input_tokens": 2047,
    "max_total_tokens": 2048,
    "version": "3.3.6-dev0",
    "sha": "db931fcf42da018a3657580c64bf2720f167f9ab",
    "docker_label": "sha-db931fc",
}


def deployment(
    quantization: str = "bf16",
    terms: EngineTerms = MATCHED,
    options: Options | None = None,
    model: str = "llama-8b",
) -> Deployment:
    return Deployment("tgi", model, quantization, terms, options or Options(), "label")


def container(
    quantization: str = "bf16", terms: EngineTerms = MATCHED, options: Options | None = None
) -> ContainerSpec:
    spec = ENGINE.launch(deployment(quantization, terms, options), GPU)
    assert isinstance(spec, ContainerSpec)
    return spec


def test_container_is_the_upstream_image_with_matched_terms() -> None:
    spec = container()
    assert spec.image == image_of("tgi", "cuda")
    assert spec.entrypoint is None
    assert spec.arguments == (
        "--model-id=/weights/llama-8b-bf16", "--hostname=127.0.0.1", "--port=8123", "--num-shard=1",
        "--max-input-tokens=2047", "--max-total-tokens=2048", "--max-batch-size=8",
        "--max-concurrent-requests=4096", "--dtype=bfloat16", "--usage-stats=off",
        "--graceful-termination-timeout=10",
    )  # fmt: skip
    assert spec.environment == {
        "HF_HUB_OFFLINE": "1",
        "NO_COLOR": "1",
        "LOG_COLORIZE": "1",
    }  # no PREFIX_CACHING=1: where its attention can have no prefix cache, the shard would die
    assert spec.mounts == ((WEIGHTS, "/weights/llama-8b-bf16"),)
    assert (spec.base_url, spec.ready_path) == ("http://127.0.0.1:8123/v1", "/health")
    assert spec.served_model == "tgi"  # any other name is taken for an adapter's
    assert (spec.devices, spec.shm_bytes) == ((0,), 1 << 30)


def test_no_argument_has_a_space_which_the_image_would_split() -> None:
    assert not [argument for argument in container().arguments if " " in argument]


def test_stock_terms_leave_everything_to_tgi_but_the_device_and_the_weights() -> None:
    spec = container("awq", EngineTerms(fairness="stock", launcher="docker"))
    assert spec.arguments == (
        "--model-id=/weights/llama-8b-bf16",
        "--hostname=127.0.0.1",
        "--port=8123",
        "--num-shard=1",
        "--usage-stats=off",
        "--graceful-termination-timeout=10",
    )
    assert "PREFIX_CACHING" not in spec.environment


def test_every_other_term_and_option_has_its_flag() -> None:
    terms = EngineTerms(
        launcher="docker",
        context_length=1024,
        prefix_cache=False,
        chunked_prefill=False,
        tensor_parallel=2,
        trust_remote_code=True,
        graphs=False,
        speculative_tokens=3,
        kv_cache_type="fp8",
        memory_limit_bytes=1 << 34,
    )
    options = Options(
        image="own/tgi:1", cuda_memory_fraction=0.5, max_concurrent_requests=64, quantize="eetq"
    )
    spec = container("bf16", terms, options)
    assert spec.image == "own/tgi:1"
    assert spec.memory_limit_bytes == 1 << 34
    assert set(spec.arguments) >= {
        "--num-shard=2",
        "--cuda-graphs=0",
        "--speculate=3",
        "--cuda-memory-fraction=0.5",
        "--max-concurrent-requests=64",
        "--kv-cache-dtype=fp8_e4m3fn",
        "--quantize=eetq",
        "--trust-remote-code",
    }
    # TGI takes one of --quantize and --dtype only.
    assert not [argument for argument in spec.arguments if argument.startswith("--dtype")]
    assert spec.environment["PREFIX_CACHING"] == spec.environment["PREFILL_CHUNKING"] == "0"


def test_a_prompt_read_in_one_piece_gets_a_prefill_of_the_whole_context() -> None:
    whole = container(terms=EngineTerms(context_length=8192, chunked_prefill=False))
    assert "--max-batch-prefill-tokens=8192" in whole.arguments
    given = container(
        terms=EngineTerms(context_length=8192, chunked_prefill=False),
        options=Options(max_batch_prefill_tokens=9000),
    )
    assert "--max-batch-prefill-tokens=9000" in given.arguments
    chunked = container(terms=EngineTerms(context_length=8192)).arguments
    assert not [argument for argument in chunked if "prefill" in argument]


def test_more_sequences_than_the_queue_are_not_refused() -> None:
    spec = container(terms=EngineTerms(concurrent_sequences=5000))
    assert "--max-concurrent-requests=5000" in spec.arguments


def test_remote_code_is_run_only_when_asked_for() -> None:
    assert "--trust-remote-code" not in container().arguments


def test_own_launcher_runs_where_it_may_write() -> None:
    terms = EngineTerms(launcher="native", context_length=512)
    spec = ENGINE.launch(deployment(terms=terms), OWN)
    assert isinstance(spec, NativeSpec)
    assert spec.argv[:4] == (
        "/usr/bin/env",
        "--chdir=/scratch",
        "/opt/text-generation-launcher",
        f"--model-id={WEIGHTS}",
    )
    assert spec.argv[-1] == "--shard-uds-path=/proc/self/cwd/shard"
    assert "--max-total-tokens=512" in spec.argv
    assert spec.environment["HF_HUB_OFFLINE"] == "1"
    assert spec.stop_grace_s > 10  # what TGI is given to end its requests


def test_native_without_a_program_says_what_would_work() -> None:
    native = EngineTerms(launcher="native")
    reason = ENGINE.weights(deployment(terms=native))
    assert isinstance(reason, Reason)
    assert "tgi.program=/path/text-generation-launcher" in str(reason)
    assert "engine.launcher=docker" in str(reason)
    assert ENGINE.install(None, "cuda") == reason
    with pytest.raises(UserError, match=r"tgi\.program=/path"):
        ENGINE.launch(deployment(terms=native), GPU)


def test_container_without_a_gpu_says_so_unless_an_image_is_named() -> None:
    no_gpu = Place(None, WEIGHTS, "127.0.0.1", 8123, Path("/scratch"))
    with pytest.raises(UserError, match=r"engine=tgi: its image needs a GPU; tgi\.image="):
        ENGINE.launch(deployment(), no_gpu)
    spec = ENGINE.launch(deployment(options=Options(image="own/tgi:intel")), no_gpu)
    assert isinstance(spec, ContainerSpec)
    assert spec.devices == ()


@pytest.mark.parametrize("fairness", ["matched", "stock", "tuned"])
def test_requests_hold_nothing_that_tgi_misreads(fairness: str) -> None:
    assert ENGINE.request_fields(Turn((), max_tokens=8), Options(), fairness) == {}
    assert not ENGINE.forces_length(deployment("fp16"))


def test_terms_that_tgi_cannot_be_told_are_named_only_where_asked_for() -> None:
    asked = EngineTerms(
        concurrent_sequences=8,
        kv_cache_tokens=4096,
        chunked_prefill=True,
        speculative_tokens=2,
        dtype="float16",
        seed=1,
        chat_template="t.jinja",
    )
    assert set(ENGINE.unmatched(deployment("awq", asked))) == {
        "kv_cache_tokens",
        "chunked_prefill",
        "dtype",
        "seed",
        "chat_template",
    }
    assert set(ENGINE.unmatched(deployment("bf16", MATCHED))) == {"concurrent_sequences", "kv_cache_tokens"}
    capped = EngineTerms(concurrent_sequences=8, chunked_prefill=False)
    assert ENGINE.unmatched(deployment("bf16", capped)) == {}
    assert ENGINE.unmatched(deployment("bf16", EngineTerms(fairness="stock"))) == {}


def test_resolved_values_come_from_the_log_and_info() -> None:
    assert ENGINE.said(LOG, {"/info": INFO}).terms == {
        "attention_backend": "flashinfer", "prefix_cache": True, "chunked_prefill": True, "graphs": True,
        "graph_batch_sizes": "8, 4, 2, 1", "weights_type": "awq", "max_batch_total_tokens": 20000,
        "max_batch_prefill_tokens": 4096, "tensor_parallel": 2, "weights_revision": "abc",
        "kv_cache_tokens": 20000, "engine_version": "3.3.6-dev0 (sha-db931fc)", "context_length": 2048,
        "max_input_tokens": 2047, "max_concurrent_requests": 4096,
    }  # fmt: skip


def test_eager_and_off_are_read_as_such() -> None:
    log = "Using prefix caching = False\nUsing prefill chunking = False\nCuda Graphs are disabled (x)."
    assert ENGINE.said(log, {}).terms == {"prefix_cache": False, "chunked_prefill": False, "graphs": False}


def test_a_bound_on_requests_holds_where_prompts_are_read_whole() -> None:
    assert "concurrent_sequences" in ENGINE.unmatched(deployment("bf16", MATCHED))
    assert ENGINE.said("Using prefill chunking = False", {}).unmatched == {"concurrent_sequences": None}
    assert not ENGINE.said("Using prefill chunking = True", {}).unmatched
    assert not ENGINE.said("", {}).unmatched


def test_without_flash_attention_there_is_no_prefix_cache_whatever_was_said_first() -> None:
    """The lines of 3.3.6-dev0's Python shard on a CPU."""
    log = (
        "INFO text_generation_launcher: Using attention flashinfer - Prefix caching true\n"
        "INFO text_generation_launcher: Using prefix caching = True\n"
        "INFO text_generation_launcher: Using Attention = flashinfer\n"
        "WARN text_generation_launcher: Could not import Flash Attention enabled models: no x\n"
        "INFO text_generation_launcher: Using prefill chunking = False\n"
        "WARN text_generation_router_v3: backends/v3/src/lib.rs:79: Model does not support automatic max "
        "batch total tokens\n"
        "INFO text_generation_router_v3: Setting max batch total tokens to 16000\n"
    )
    said = ENGINE.said(log, {})
    assert said.terms == {
        "attention_backend": "no flash attention",
        "prefix_cache": False,
        "chunked_prefill": False,
        "max_batch_total_tokens": 16000,
    }
    assert said.unmatched == {
        "prefix_cache": Reason("without flash attention TGI has none"),
        "kv_cache_tokens": Reason("without flash attention TGI only bounds the tokens of a batch, to 16,000"),
        "concurrent_sequences": None,
    }


def test_without_a_label_the_commit_tells_releases_apart() -> None:
    info = {**INFO, "docker_label": None}
    assert ENGINE.said("", {"/info": info}).terms["engine_version"] == f"3.3.6-dev0 ({INFO['sha']})"
    assert ENGINE.said("", {"/info": {"version": "2.0.2"}}).terms == {"engine_version": "2.0.2"}


@pytest.mark.parametrize("facts", [{}, {"/info": None}, {"/info": ["?"]}])
def test_nothing_said_is_nothing_resolved(facts: dict[str, object]) -> None:
    assert ENGINE.said("", facts).terms == {}


def test_stages_are_found_in_their_order() -> None:
    lines = LOG.splitlines()
    at = {
        stage.name: next(number for number, line in enumerate(lines) if re.search(stage.pattern, line))
        for stage in ENGINE.stages
    }
    assert list(at) == ["weights_begin", "weights_loaded", "engine_ready"]
    assert list(at.values()) == sorted(at.values())


@pytest.mark.parametrize(
    ("line", "named"),
    [
        # As issues 755 and 1354 of text-generation-inference show them.
        (
            "RuntimeError: Not enough memory to handle 4096 prefill tokens. You need to decrease "
            "`--max-batch-prefill-tokens`",
            "tgi.max_batch_prefill_tokens",
        ),
        ("torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 222.00 MiB.", "context_length"),
        # As the source has them.
        ("Error: Backend(NotEnoughMemory(8192))", "tgi.cuda_memory_fraction"),
        (
            "Error: `max_batch_prefill_tokens` must be >= `max_input_tokens`. Given: 4096 and 8191",
            "tgi.max_batch_prefill_tokens",
        ),
        ("RuntimeError: Prefix caching is only supported with flashinfer", "engine.prefix_cache=false"),
        ("ERROR text_generation_launcher: text-generation-server not found in PATH", "PATH"),
        ("NotImplementedError: Sharded Gemma3 requires Flash Attention enabled models.", "engine=vllm"),
        ("awq quantization is not supported for AutoModel", "no kernels"),
        ("Error: ShardCannotStart", "shard"),
        ("Error: ShardFailed", "shard"),
        ("RuntimeError: Only 1 can be set between `dtype` and `quantize`, as they both", "tgi.quantize"),
        ('Error: NotEnoughCUDADevices("`sharded` is true but only found 1 CUDA devices")', "tensor_parallel"),
    ],
)  # fmt: skip
def test_failures_have_a_remedy(line: str, named: str) -> None:
    remedies = [hint.remedy for hint in ENGINE.hints if re.search(hint.pattern, line)]
    assert remedies
    assert named in remedies[0]
