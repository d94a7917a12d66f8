"""A text-generation-launcher that answers as a real TGI 3.3.6-dev0 did (tests/data/tgi/v3).

It takes the launcher's flags, and writes the log lines that say what is used, after its source (2026-01-08).
Its limits are those that it is given. Its answers are always those that were captured.
"""

import argparse
import json
import os
import signal
import socket
import sys
from pathlib import Path

from captured import Replay, captured
from fake_http import fake_http

DATA = Path(__file__).parent.parent.parent / "data" / "tgi" / "v3"
ANSWERS = {
    "/v1/models": "models",
    "/info": "info",
    "/health": "health",
    "/v1/chat/completions": "chat-stream",
}


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the launcher's flags. An unknown one ends the program, as it ends the launcher."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model-id")
    parser.add_argument("--hostname", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--max-total-tokens", type=int, default=4096)
    parser.add_argument("--max-input-tokens", type=int)
    parser.add_argument("--max-concurrent-requests", type=int, default=128)
    parser.add_argument("--dtype", choices=("float16", "bfloat16"))
    parser.add_argument("--quantize")
    parser.add_argument("--usage-stats", choices=("on", "off", "no-stack"), default="on")
    for name in ("num-shard", "max-batch-size", "max-batch-prefill-tokens", "cuda-graphs", "speculate"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--cuda-memory-fraction", type=float)
    parser.add_argument("--kv-cache-dtype")
    parser.add_argument("--shard-uds-path")
    parser.add_argument("--graceful-termination-timeout", type=int)
    parser.add_argument("--trust-remote-code", action="store_true")
    args = parser.parse_args(argv)
    if args.max_input_tokens is None:
        args.max_input_tokens = args.max_total_tokens - 1
    return args


def log(source: str, message: str, level: str = " INFO") -> None:
    print(f"2026-11-25T12:00:00.000000Z {level} {source}: {message}", flush=True)


def say_what_is_used(args: argparse.Namespace) -> None:
    """Write the log lines of a start, in their order."""
    launcher, router = "text_generation_launcher", "text_generation_router_v3"
    attention = os.environ.get("ATTENTION", "flashinfer")
    is_paged = attention == "paged"
    caching = os.environ.get("PREFIX_CACHING", "0" if is_paged else "true")
    is_caching = caching.lower() in ("1", "true")
    is_chunking = os.environ.get("PREFILL_CHUNKING", "1") == "1" and not args.speculate and not is_paged
    log(launcher, f"Using attention {attention} - Prefix caching {caching}")
    if args.max_batch_prefill_tokens is None:
        log(launcher, "Default `max_batch_prefill_tokens` to 4096")
    log(launcher, f"Starting check and download process for {args.model_id}")
    log("shard-manager", "text_generation_launcher: Starting shard rank=0")
    log(launcher, f"Using prefix caching = {is_caching}")
    log(launcher, f"Using Attention = {attention}")
    log(launcher, f"Using prefill chunking = {is_chunking}")
    log("shard-manager", "text_generation_launcher: Shard ready in 6.5s rank=0")
    log(launcher, "Starting Webserver")
    log(router, "backends/v3/src/lib.rs:125: Warming up model")
    log(launcher, "KV-cache blocks: 200000, size: 1")
    is_eager = args.cuda_graphs == 0
    graphs = "disabled (CUDA_GRAPHS=[0])." if is_eager else "enabled for sizes [32, 16, 8, 4, 2, 1]"
    log(launcher, f"Cuda Graphs are {graphs}")
    log(router, "backends/v3/src/lib.rs:137: Setting max batch total tokens to 200000")
    log(router, "backends/v3/src/lib.rs:166: Using backend V3")
    Path("out").mkdir(exist_ok=True)
    Path("out", "tokenizer.json").write_text("{}")
    log("text_generation_router::server", "router/src/server.rs:2302: Connected")


def serve(args: argparse.Namespace) -> None:
    limits = ("max_concurrent_requests", "max_input_tokens", "max_total_tokens")
    said = captured(DATA / "info.http").value | {name: getattr(args, name) for name in limits}
    replay = Replay(DATA, ANSWERS, changed={"/info": json.dumps(said).encode()})
    with fake_http(replay.reply, args.hostname, args.port) as server:
        server.ended.wait()


def main() -> None:
    args = arguments(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    shard = socket.socket(socket.AF_UNIX)
    if args.shard_uds_path:
        shard.bind(f"{args.shard_uds_path}-0")  # each shard's path ends in its rank
    say_what_is_used(args)
    serve(args)


if __name__ == "__main__":
    main()
