"""llama.cpp's HTTP server, from the xllamacpp wheel. Runs in the llama_cpp environment (`python -P`).

Takes those of llama-server's arguments that bench passes, under the same names; what is not given keeps the
wheel's default. Prints the version, then the address once the model is loaded, and serves until SIGTERM.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import xllamacpp

FLASH = {
    "on": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}
SPLIT = {
    "layer": xllamacpp.llama_split_mode.LLAMA_SPLIT_MODE_LAYER,
    "row": xllamacpp.llama_split_mode.LLAMA_SPLIT_MODE_ROW,
}
N_GRAMS = {"ngram-simple": xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE}


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    for name in ("model", "alias", "host"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--metrics", action="store_true")
    parser.add_argument("--log-verbosity", type=int)
    parser.add_argument("--fit", choices=("on", "off"))
    parser.add_argument("--ctx-size", type=int, help="tokens over all slots")
    parser.add_argument("--parallel", type=int, help="slots")
    parser.add_argument("--kv-unified", action="store_true")
    parser.add_argument("--kv-unified-per-slot", type=int, help="tokens of one slot")
    parser.add_argument("--no-cache-prompt", action="store_true")
    parser.add_argument("--cache-ram", type=int, help="MiB of host memory for prompts")
    parser.add_argument("--slot-save-path", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--ubatch-size", type=int)
    parser.add_argument("--flash-attn", choices=sorted(FLASH))
    parser.add_argument("--cache-type-k")
    parser.add_argument("--cache-type-v")
    parser.add_argument("--n-gpu-layers", type=int)
    parser.add_argument("--split-mode", choices=sorted(SPLIT))
    parser.add_argument("--seed", type=int)
    parser.add_argument("--spec-type", choices=sorted(N_GRAMS))
    parser.add_argument("--spec-ngram-simple-size-m", type=int)
    parser.add_argument("--jinja", action="store_true")
    parser.add_argument("--chat-template-file", type=Path)
    return parser.parse_args(argv)


def cache_type(name: str) -> xllamacpp.ggml_type:
    return getattr(xllamacpp.ggml_type, f"GGML_TYPE_{name.upper()}")


def server_parameters(args: argparse.Namespace) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path = args.model
    params.model_alias = {args.alias}
    params.hostnames = [args.host]
    params.port = args.port
    params.endpoint_metrics = args.metrics
    set_given(params, args)
    set_context(params, args)
    if args.threads is not None:
        params.cpuparams.n_threads = args.threads
        params.cpuparams_batch.n_threads = args.threads
    if args.seed is not None:
        params.sampling.seed = args.seed
    if args.spec_type is not None:
        params.speculative.types = [N_GRAMS[args.spec_type]]
        params.speculative.ngram_simple.size_m = args.spec_ngram_simple_size_m
    return params


def set_given(params: xllamacpp.CommonParams, args: argparse.Namespace) -> None:
    if args.log_verbosity is not None:
        params.verbosity = args.log_verbosity
    if args.fit is not None:
        params.fit_params = args.fit == "on"
    if args.batch_size is not None:
        params.n_batch = args.batch_size
    if args.ubatch_size is not None:
        params.n_ubatch = args.ubatch_size
    if args.flash_attn is not None:
        params.flash_attn_type = FLASH[args.flash_attn]
    if args.cache_type_k is not None:
        params.cache_type_k = cache_type(args.cache_type_k)
    if args.cache_type_v is not None:
        params.cache_type_v = cache_type(args.cache_type_v)
    if args.n_gpu_layers is not None:
        params.n_gpu_layers = args.n_gpu_layers
    if args.split_mode is not None:
        params.split_mode = SPLIT[args.split_mode]
    if args.chat_template_file is not None:
        params.use_jinja = True
        params.chat_template = args.chat_template_file.read_text()


def set_context(params: xllamacpp.CommonParams, args: argparse.Namespace) -> None:
    if args.ctx_size is not None:
        params.n_ctx = args.ctx_size
    if args.parallel is not None:
        params.n_parallel = args.parallel
    if args.kv_unified:
        params.kv_unified = True
    if args.kv_unified_per_slot is not None:
        params.kv_unified_per_slot = args.kv_unified_per_slot
    if args.no_cache_prompt:
        params.cache_prompt = False
    if args.cache_ram is not None:
        params.cache_ram_mib = args.cache_ram
    if args.slot_save_path is not None:
        params.slot_save_path = f"{args.slot_save_path}/"


def leave(signal_number: int, frame: FrameType | None) -> None:
    # Tearing the server down waits for running requests; the kernel frees everything anyway.
    os._exit(0)


def main() -> None:
    faulthandler.enable()  # names an illegal instruction in the log
    args = arguments(sys.argv[1:])
    print(f"xllamacpp {xllamacpp.__version__}", flush=True)
    # While the model loads, no Python code runs, so SIGTERM keeps its default there and ends the process.
    try:
        server = xllamacpp.Server(server_parameters(args))
    except RuntimeError as error:
        sys.exit(f"llama.cpp did not start: {error}")
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    print(f"listening on {server.listening_address}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
