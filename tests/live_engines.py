"""Installs every engine that this machine can have, makes what its live tests serve, and runs them.

Prints time and disk for each, and why one was skipped; ends with 1 if a test failed. `make test-engines`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BENCH = Path(sys.executable).with_name("bench")
QUANTIZATIONS = "bf16,awq,gguf-q4_k_m,gguf-q8_0,gguf-q4_0"
TESTS: Mapping[str, Sequence[str]] = {
    "llama_cpp": ("test_llama_cpp_programs_live.py",),
    "vllm": ("test_vllm_live.py",),
    "sglang": ("test_sglang_live.py",),
    "transformers": ("test_transformers_live.py",),
    "weights": ("test_weights_live.py",),
}


def timed(argv: Sequence[str | Path]) -> tuple[int, float]:
    """Exit code and seconds of a command, its output passed on."""
    print("$", *argv, flush=True)
    begun_s = time.monotonic()
    code = subprocess.run(argv, cwd=ROOT).returncode
    return code, time.monotonic() - begun_s


def programs() -> list[dict[str, Any]]:
    said = subprocess.run([BENCH, "list", "engines", "--json"], capture_output=True, text=True, check=True)
    return [program for engine in json.loads(said.stdout) for program in engine["programs"]]


def install_all() -> list[str]:
    """A line for each program that has an environment."""
    lines = []
    for program in programs():
        if program["install"] is None:
            if program["reason"]:
                lines.append(f"{program['name']}: not installed: {program['reason']}")
            continue
        code, took_s = timed([BENCH, *program["install"].split()[1:], "--quiet"])
        name = program["program"] or program["name"]
        lines.append(f"{name}: " + (f"installed in {took_s:.0f} s" if code == 0 else "install failed"))
    sizes = {p["program"] or p["name"]: p["size_bytes"] for p in programs() if p["state"] == "installed"}
    return [*lines, *(f"{name}: {size / 1e6:,.0f} MB on disk" for name, size in sizes.items())]


def main() -> int:
    lines = install_all()
    code, took_s = timed([BENCH, "prepare", f"quantization={QUANTIZATIONS}", "--quiet"])
    lines.append(f"weights: {'prepared' if code == 0 else 'failed'} in {took_s:.0f} s")
    failed = code != 0
    for name, files in TESTS.items():
        paths = [f"tests/{file}" for file in files]
        code, took_s = timed([sys.executable, "-m", "pytest", "-m", "engines", "-s", *paths])
        lines.append(f"{name}: tests {'passed' if code == 0 else f'ended with {code}'} in {took_s:.0f} s")
        failed |= code != 0
    print("\n".join(["", *lines]))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
