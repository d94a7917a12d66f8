"""llama.cpp's HTTP server, from the xllamacpp wheel. Runs in the llama_cpp environment (`python -P`).

Prints the version, then the listening address once the model is loaded, and serves until SIGTERM.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal
import sys
import threading
from types import FrameType

import xllamacpp

# llama.cpp writes the sizes of the KV cache and the resolved flash attention at 4; 5 writes per token.
LOG_VERBOSITY = 4


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ctx", type=int, required=True, help="tokens over all slots")
    parser.add_argument("--parallel", type=int, required=True, help="slots")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--ubatch", type=int)
    parser.add_argument("--no-cache-prompt", action="store_true")
    return parser.parse_args(argv)


def server_parameters(args: argparse.Namespace) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path = args.model
    params.model_alias = {args.alias}
    params.hostnames = [args.host]
    params.port = args.port
    params.n_ctx = args.ctx
    params.n_parallel = args.parallel
    params.cache_prompt = not args.no_cache_prompt
    # Fitting to free memory may change what was asked for; a comparison needs what was asked, or a failure.
    params.fit_params = False
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.ui = False
    params.verbosity = LOG_VERBOSITY
    if args.batch is not None:
        params.n_batch = args.batch
    if args.ubatch is not None:
        params.n_ubatch = args.ubatch
    if args.threads is not None:
        params.cpuparams.n_threads = args.threads
        params.cpuparams_batch.n_threads = args.threads
    return params


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
