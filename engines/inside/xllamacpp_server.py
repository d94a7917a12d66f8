"""Run llama.cpp's HTTP server from the xllamacpp wheel, with the llama-server arguments that bench passes."""

import argparse
import faulthandler
import os
import signal
import sys
import threading
from functools import reduce
from pathlib import Path
from types import FrameType
from typing import Any

import xllamacpp
from xllamacpp import common_speculative_type, ggml_type, llama_flash_attn_type, llama_split_mode

FLASH_ATTENTION = {"on": "LLAMA_FLASH_ATTN_TYPE_ENABLED", "off": "LLAMA_FLASH_ATTN_TYPE_DISABLED"}


def cache_type(name: str) -> ggml_type:
    return getattr(ggml_type, f"GGML_TYPE_{name.upper()}")


def adapter(text: str) -> xllamacpp.CommonAdapterLoraInfo:
    path, _, scale = text.rpartition(":")
    return xllamacpp.CommonAdapterLoraInfo(path, float(scale))


# Argument -> the fields of CommonParams that it sets, and the function that reads its text.
VALUES: dict[str, tuple[tuple[str, ...], Any]] = {
    "model": (("model.path",), str),
    "alias": (("model_alias",), lambda name: {name}),
    "host": (("hostnames",), lambda name: [name]),
    "port": (("port",), int),
    "log-verbosity": (("verbosity",), int),
    "fit": (("fit_params",), lambda text: text == "on"),
    "ctx-size": (("n_ctx",), int),
    "parallel": (("n_parallel",), int),
    "kv-unified-per-slot": (("kv_unified_per_slot",), int),
    "cache-ram": (("cache_ram_mib",), int),
    "slot-save-path": (("slot_save_path",), lambda folder: f"{folder}/"),
    "threads": (
        (
            "cpuparams.n_threads",
            "cpuparams_batch.n_threads",
            "speculative.draft.cpuparams.n_threads",
            "speculative.draft.cpuparams_batch.n_threads",
        ),
        int,
    ),
    "batch-size": (("n_batch",), int),
    "ubatch-size": (("n_ubatch",), int),
    "flash-attn": (("flash_attn_type",), lambda text: getattr(llama_flash_attn_type, FLASH_ATTENTION[text])),
    "cache-type-k": (("cache_type_k",), cache_type),
    "cache-type-v": (("cache_type_v",), cache_type),
    "n-gpu-layers": (("n_gpu_layers",), int),
    "split-mode": (
        ("split_mode",),
        lambda name: getattr(llama_split_mode, f"LLAMA_SPLIT_MODE_{name.upper()}"),
    ),
    "seed": (("sampling.seed",), int),
    "spec-type": (("speculative.types",), lambda name: [SPECULATIONS[name]]),
    "spec-ngram-simple-size-m": (("speculative.ngram_simple.size_m",), int),
    "spec-draft-model": (("speculative.draft.mparams.path",), str),
    "spec-draft-n-max": (("speculative.draft.n_max",), int),
    "spec-draft-type-k": (("speculative.draft.cache_type_k",), cache_type),
    "spec-draft-type-v": (("speculative.draft.cache_type_v",), cache_type),
    "spec-draft-ngl": (("speculative.draft.n_gpu_layers",), int),
    "lora-scaled": (("lora_adapters",), lambda text: [adapter(each) for each in text.split(",")]),
    "chat-template-file": (("chat_template",), lambda path: Path(path).read_text()),
}
SWITCHES = {
    "metrics": ("endpoint_metrics", True),
    "kv-unified": ("kv_unified", True),
    "no-cache-prompt": ("cache_prompt", False),
    "jinja": ("use_jinja", True),
}
SPECULATIONS = {
    "ngram-simple": common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE,
    "draft-simple": common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE,
}


def parameters(argv: list[str]) -> xllamacpp.CommonParams:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    for name in VALUES:
        parser.add_argument(f"--{name}", required=name in ("model", "alias", "host", "port"))
    for name in SWITCHES:
        parser.add_argument(f"--{name}", action="store_true")
    args = {name.replace("_", "-"): value for name, value in vars(parser.parse_args(argv)).items()}
    params = xllamacpp.CommonParams()
    for name, (fields, read) in VALUES.items():
        for field in fields if args[name] is not None else ():
            *outer, last = field.split(".")
            setattr(reduce(getattr, outer, params), last, read(args[name]))
    for name, (field, value) in SWITCHES.items():
        if args[name]:
            setattr(params, field, value)
    return params


def leave(signal_number: int, frame: FrameType | None) -> None:
    # A regular shutdown would wait for running requests. The kernel frees everything anyway.
    os._exit(0)


def main() -> None:
    faulthandler.enable()  # logs an illegal instruction by name
    params = parameters(sys.argv[1:])
    print(f"xllamacpp {xllamacpp.__version__}", flush=True)
    # No Python code runs while the model loads, so SIGTERM keeps its default until then and ends the process.
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        sys.exit(f"llama.cpp did not start: {error}")
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    print(f"listening on {server.listening_address}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
