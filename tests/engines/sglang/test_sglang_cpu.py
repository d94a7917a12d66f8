"""What `make sglang-cpu-env` builds with: the module in place of SGLang's kernels, and the script."""

import re
import subprocess
import sys
from pathlib import Path

from places import ROOT, TESTS

from serving_bench.engines.sglang.log import HINTS, said

FOLDER = TESTS / "sglang_cpu"


def run_with_stand_in(code: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", code]
    return subprocess.run(argv, cwd=FOLDER, capture_output=True, text=True, timeout=30)


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(FOLDER / "make_environment.py"), *arguments]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=30)


def test_the_stand_in_says_what_it_is_and_the_engine_hears_it() -> None:
    done = run_with_stand_in("import sgl_kernel")
    assert done.returncode == 0
    assert said(done.stderr, {}).terms == {"kernel_stand_in": True}
    assert said("sgl_kernel 0.4.10", {}).terms == {}


def test_a_kernel_of_the_stand_in_cannot_be_called() -> None:
    done = run_with_stand_in("from sgl_kernel import verify_tree_greedy_cpu as kernel; kernel(1, tree=2)")
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith("NotImplementedError: sgl_kernel.verify_tree_greedy_cpu: ")
    assert [hint for hint in HINTS if re.search(hint.pattern, said)]


def test_what_the_stand_in_does_not_name_is_not_there() -> None:
    done = run_with_stand_in("from sgl_kernel import awq_dequantize")
    assert done.returncode == 1
    assert "cannot import name 'awq_dequantize'" in done.stderr


def test_the_script_touches_no_directory_that_is_not_an_environment(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    done = make(str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == f"sglang-cpu-env: {tmp_path} is no virtual environment: name another directory\n"
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_lock_of_the_environment_leaves_out_what_is_for_cuda() -> None:
    lines = (FOLDER / "sglang-cpu.txt").read_text().splitlines()
    names = {line.partition("==")[0] for line in lines if not line.startswith(" ")}
    assert {"sglang", "torch", "transformers"} <= names
    assert not {name for name in names if name.startswith(("nvidia-c", "flashinfer", "sglang-kernel"))}
