"""Installs every engine and tool that this machine can have, makes what the live tests serve, and runs them.

Prints a line for each: how it went, time, disk. What this machine cannot have is skipped, with the reason;
what should have worked and did not is a failure, and the exit code is then 1. `make test-engines`.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from serving_bench.engines import ENGINES
from serving_bench.engines.model import weights
from serving_bench.harness.contracts import Deployment, EngineTerms, Reason, Weights

ROOT = Path(__file__).parent.parent
BENCH = Path(sys.executable).with_name("bench")
# What the tests serve or look at: a model, an engine that takes it in the file format that they want, kinds.
WEIGHTS: Sequence[tuple[str, str, Sequence[str]]] = (
    ("smollm2-135m", "llama_cpp", ("gguf-q4_1", "gguf-q8_0", "gguf-q4_0", "fp16", "gguf-q4_k_m")),
    ("smollm2-135m", "vllm", ("fp16", "awq")),
    ("gemma3-270m", "llama_cpp", ("gguf-q4_k_m", "gguf-q8_0", "gguf-q4_0", "fp16", "bf16")),
    ("gemma3-270m", "vllm", ("bf16", "awq", "w4a16")),
)
FILES: Mapping[str, Sequence[str]] = {
    "llama_cpp": (
        "engines/llama_cpp/test_llama_cpp_programs_live.py",
        "engines/llama_cpp/test_llama_cpp_quality_live.py",
    ),
    "vllm": ("engines/vllm/test_vllm_live.py",),
    "sglang": ("engines/sglang/test_sglang_live.py",),
    "transformers": ("engines/transformers/test_transformers_live.py", "gpu/test_gpu.py"),
    "weights": (
        "engines/model/weights/test_weights_live.py",
        "engines/model/weights/test_weights_w4a16_live.py",
        "engines/model/weights/test_weights_from_checkpoint_live.py",
    ),
    "tasks": ("harness/quality/test_tasks_live.py",),
    "memory": ("engines/test_memory_live.py", "reports/measures/test_anatomy_live.py"),
}
# This machine cannot have a package: pip's words, and what bench makes of them.
_CANNOT = re.compile(r"No matching distribution found.*|requires a different Python.*|wrong Python: .*")
# pip says the same where it did not reach an index.
_UNREACHED = re.compile(r"Retrying \(Retry\(|Could not fetch URL")


@dataclass(frozen=True)
class Outcome:
    """Of one step. `said`: the reason, or counts and sizes."""

    step: str
    state: Literal["done", "skipped", "FAILED"]
    said: str
    took_s: float = 0.0


def outcome_of(step: str, code: int, output: str, took_s: float) -> Outcome:
    """Of an install or a preparation that ended with `code`."""
    if code == 0:
        return Outcome(step, "done", "", took_s)
    cannot = _CANNOT.search(output)
    if cannot and not _UNREACHED.search(output):
        return Outcome(step, "skipped", cannot[0].strip(), took_s)
    lines = output.strip().splitlines()
    return Outcome(step, "FAILED", f"exit code {code}: {lines[-1] if lines else 'no output'}", took_s)


def pytest_outcome(step: str, code: int, junit: str, took_s: float) -> Outcome:
    """Of pytest that ended with `code` and wrote `junit`; without a test that ran, it is skipped."""
    cases = list(ElementTree.fromstring(junit).iter("testcase")) if junit else []
    skips = [case.find("skipped") for case in cases]
    reasons = dict.fromkeys(each.get("message", "") for each in skips if each is not None)
    skipped = sum(each is not None for each in skips)
    failed = sum(any(case.find(tag) is not None for tag in ("failure", "error")) for case in cases)
    counts = f"{len(cases) - skipped - failed} passed, {skipped} skipped, {failed} failed"
    said = "; ".join([counts, *reasons])
    if code != 0 or failed:
        return Outcome(step, "FAILED", f"exit code {code}: {said}", took_s)
    return Outcome(step, "skipped" if skipped == len(cases) else "done", said, took_s)


def run(argv: Sequence[str | Path]) -> tuple[int, str, float]:
    """Exit code, output and seconds of a command; its output is passed on as it comes."""
    print("$", *argv, flush=True)
    began_s, lines = time.monotonic(), []
    with subprocess.Popen(
        argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return process.returncode, "".join(lines), time.monotonic() - began_s


def listed(what: str) -> list[dict[str, Any]]:
    said = subprocess.run([BENCH, "list", what, "--json"], capture_output=True, text=True, check=True)
    found: list[dict[str, Any]] = json.loads(said.stdout)
    return found


def installs() -> Iterator[Outcome]:
    """Of each engine's programs, and of the tools for this machine's device."""
    for engine in listed("engines"):
        for program in engine["programs"]:
            name = " ".join(filter(None, ("install", engine["engine"], program["program"])))
            if program["reason"]:
                yield Outcome(name, "skipped", program["reason"])
            elif program["install"]:
                code, output, took_s = run([BENCH, *program["install"].split()[1:]])
                yield outcome_of(name, code, output, took_s)
    for tool in dict.fromkeys(re.sub("-(cpu|cuda)$", "", each["tool"]) for each in listed("tools")):
        code, output, took_s = run([BENCH, "install", tool])
        yield outcome_of(f"install {tool}", code, output, took_s)


def sizes() -> Iterator[str]:
    """Disk of all that is installed."""
    programs = [program for engine in listed("engines") for program in engine["programs"]]
    for each in (*programs, *(tool["here"] for tool in listed("tools"))):
        if each["state"] == "installed":
            name = " ".join(filter(None, (each["name"], each["program"])))
            yield f"{name}: {each['size_bytes'] / 2**20:,.0f} MiB on disk"


def preparations() -> Iterator[Outcome]:
    """Each by itself, so that one that this machine cannot have keeps no other from being made."""
    for model, engine, quantizations in WEIGHTS:
        for quantization in quantizations:
            step = f"prepare {model} {quantization} for {engine}"
            if reason := why_not_prepared(model, engine, quantization):
                yield Outcome(step, "skipped", reason)
                continue
            words = [f"engine={engine}", f"model={model}", f"quantization={quantization}"]
            yield outcome_of(step, *run([BENCH, "prepare", *words]))


def why_not_prepared(model: str, engine: str, quantization: str) -> str | None:
    """Why such weights do not exist or cannot be made here."""
    known = ENGINES[engine]
    needed = known.weights(Deployment(engine, model, quantization, EngineTerms(), known.options(), ""))
    reason = weights.can_prepare(needed) if isinstance(needed, Weights) else needed
    return str(reason) if isinstance(reason, Reason) else None


def tests() -> Iterator[Outcome]:
    for name, files in FILES.items():
        with tempfile.TemporaryDirectory() as folder:
            junit = Path(folder, "junit.xml")
            argv = [sys.executable, "-m", "pytest", "-m", "engines", "-s", f"--junitxml={junit}"]
            code, _, took_s = run([*argv, *(f"tests/{file}" for file in files)])
            text = junit.read_text(encoding="utf-8") if junit.is_file() else ""
            yield pytest_outcome(f"test {name}", code, text, took_s)


def main() -> int:
    outcomes = [*installs(), *preparations(), *tests()]
    print()
    for each in outcomes:
        print(f"{each.state:8}{each.took_s:6.0f} s  {each.step}" + (f": {each.said}" if each.said else ""))
    print(*sizes(), sep="\n")
    return int(any(each.state == "FAILED" for each in outcomes))


if __name__ == "__main__":
    sys.exit(main())
