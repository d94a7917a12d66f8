"""llama.cpp's own HTTP server, from the prebuilt xllamacpp wheel, serving GGUF files.

Must not know the harness: it says what to start and install, and reads what the server says of itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.contracts import (
    Deployment,
    EngineTerms,
    Fairness,
    Hint,
    InstallSpec,
    Launcher,
    LaunchSpec,
    NativeSpec,
    Place,
    Reason,
    Scalar,
    Stage,
    Tuned,
    Turn,
    Weights,
)
from harness.errors import UserError

HERE = Path(__file__).parent
SERVER = HERE / "inside" / "xllamacpp_server.py"
STOP_GRACE_S = 5.0


def _mebibytes(text: str) -> int:
    return round(float(text) * 1024 * 1024)


@dataclass(frozen=True)
class Options:
    """`threads`: CPU threads (llama.cpp's choice unless given). `batch`, `ubatch`: tokens of a logical and
    of a physical batch."""

    program: Literal["xllamacpp"] = "xllamacpp"
    threads: int | None = None
    batch: int | None = None
    ubatch: int | None = None

    def __post_init__(self) -> None:
        for name in ("threads", "batch", "ubatch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"llama_cpp.{name}={value}: must be 1 or more")


class LlamaCpp:
    """See harness.contracts.Engine."""

    name: str = "llama_cpp"
    description: str = "llama.cpp's own HTTP server on GGUF files (xllamacpp wheel, CPU)"
    options: type = Options
    programs: Sequence[str | None] = ("xllamacpp",)
    launchers: Sequence[Launcher] = ("native",)
    stages: Sequence[Stage] = ()
    tuned: Tuned | None = None
    forces_length: bool = True
    fact_paths: Sequence[str] = ("/props",)
    hints: Sequence[Hint] = (
        Hint(
            r"(?i)(failed|unable) to allocate|insufficient memory|bad_alloc|out of memory",
            "Memory ran out: lower engine.context_length or engine.concurrent_sequences, or take a smaller "
            "quantization.",
        ),
        Hint(
            r"unknown model architecture",
            "This llama.cpp does not know the model's architecture; a newer one may.",
        ),
        Hint(
            r"(?i)illegal instruction",
            "The prebuilt llama.cpp needs instructions that this CPU lacks (on x86: AVX2, FMA, F16C).",
        ),
        Hint(
            r"invalid magic|not within the file bounds|failed to read (key-values|tensor|magic)",
            "The GGUF file is damaged or cut short: remove it and run `bench prepare`.",
        ),
    )

    def weights(self, deployment: Deployment) -> Weights | Reason | None:
        quantization = deployment.quantization
        if quantization in ("fp16", "bf16") or quantization.startswith("gguf-"):
            return Weights(deployment.model, quantization, "gguf")
        return Reason(f"llama.cpp serves GGUF files; {quantization} is stored as safetensors")

    def launch(self, deployment: Deployment, place: Place) -> LaunchSpec:
        if place.python is None or place.weights is None:
            raise ValueError("llama_cpp needs the Python of its environment and a weights file")
        terms = deployment.terms
        slots = terms.concurrent_sequences or 1
        argv = [str(place.python), "-P", str(SERVER)]
        argv += ["--model", str(place.weights), "--alias", deployment.model]
        argv += ["--host", place.host, "--port", str(place.port)]
        # llama.cpp divides its context by the slots; the term is the length of one conversation.
        argv += ["--ctx", str((terms.context_length or 0) * slots), "--parallel", str(slots)]
        return NativeSpec(
            argv=(*argv, *_option_flags(deployment.options, terms)),
            base_url=f"http://{place.host}:{place.port}/v1",
            served_model=deployment.model,
            ready_path="/health",
            stop_grace_s=STOP_GRACE_S,
        )

    def install(self, program: str | None, device: str) -> InstallSpec | Reason:
        if device != "cpu":
            return Reason("the prebuilt xllamacpp wheel that bench installs serves on the CPU only")
        return InstallSpec(
            environment="llama_cpp-xllamacpp-cpu",
            lock=HERE / "locks" / "llama_cpp-xllamacpp-cpu.txt",
            check="import gguf, xllamacpp; xllamacpp.CommonParams()",
            size_bytes=220_000_000,
        )

    def request_fields(self, turn: Turn, options: Options, fairness: Fairness) -> Mapping[str, Any]:
        # The server's own default of cache_prompt follows its flag, so no request needs to name it.
        return {"ignore_eos": True}

    def unmatched(self, deployment: Deployment) -> Mapping[str, str]:
        return {}

    def resolved(self, log: str, facts: Mapping[str, Any]) -> Mapping[str, Scalar]:
        props = facts.get("/props")
        return {**_from_log(log), **_from_props(props if isinstance(props, Mapping) else {})}


def _option_flags(options: Options, terms: EngineTerms) -> list[str]:
    flags: list[str] = []
    for name in ("threads", "batch", "ubatch"):
        value = getattr(options, name)
        if value is not None:
            flags += [f"--{name}", str(value)]
    return [*flags, "--no-cache-prompt"] if terms.prefix_cache is False else flags


def _from_props(props: Mapping[str, Any]) -> dict[str, Scalar]:
    settings = props.get("default_generation_settings") or {}
    found = {
        "context_length": settings.get("n_ctx"),
        "concurrent_sequences": props.get("total_slots"),
        "weights_type": props.get("model_ftype"),
    }
    return {term: value for term, value in found.items() if value is not None}


# Common term -> where the log says it, and how to read that.
LOG_TERMS: Mapping[str, tuple[str, Callable[[str], Scalar]]] = {
    "engine_version": (r"^xllamacpp (\S+)", str),
    "threads": (r"system_info: n_threads = (\d+)", int),
    "cpu_features": (r"system_info: .*?\| (CPU : .*?)[ |]*$", str),
    "batch_tokens": (r"llama_context: n_batch += (\d+)", int),
    "ubatch_tokens": (r"llama_context: n_ubatch += (\d+)", int),
    "kv_cache_type": (r"llama_kv_cache: size = .* K \((\w+)\)", str),
    "flash_attention": (r"Flash Attention (enabled|disabled)", lambda said: said == "enabled"),
    "prompt_cache_limit_bytes": (r"prompt cache is enabled, size limit: (\d+) MiB", _mebibytes),
}


def _from_log(log: str) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    for term, (pattern, read) in LOG_TERMS.items():
        match = re.search(pattern, log, re.MULTILINE)
        if match:
            found[term] = read(match[1])
    # One line for each kind of layer: those with a sliding window have a cache of their own.
    sizes = re.findall(r"llama_kv_cache: size = +([\d.]+) MiB", log)
    if sizes:
        found["kv_cache_bytes"] = sum(_mebibytes(size) for size in sizes)
    if "llama_model_loader: - kv" in log:
        in_file = "tokenizer.chat_template " in log
        found["chat_template"] = "the file's" if in_file else "chatml (the file has none)"
    return found


ENGINE = LlamaCpp()
