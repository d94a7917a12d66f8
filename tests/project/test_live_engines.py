"""What `make test-engines` reports of installs, preparations and tests that fail."""

import subprocess
import sys

import pytest
from live_engines import FILES, WEIGHTS, outcome_of, pytest_outcome, why_not_prepared
from places import TESTS

ABSENT = "ERROR: No matching distribution found for autoawq==0.2.9\n"


@pytest.mark.parametrize(
    ("code", "output", "state", "said"),
    [
        (0, "vllm is installed\n", "done", ""),
        (2, ABSENT, "skipped", "No matching distribution found for autoawq==0.2.9"),
        (2, "ERROR: Package 'x' requires a different Python: 3.14.0 not in '<3.13'\n", "skipped", "3.14.0"),
        (2, "WARNING: Retrying (Retry(total=4, ...)) after x\n" + ABSENT, "FAILED", "exit code 2"),
        (2, "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES\n", "FAILED", "MATCH THE HASHES"),
        (1, "", "FAILED", "exit code 1: no output"),
    ],
)
def test_what_a_machine_cannot_have_is_skipped_and_what_broke_is_a_failure(
    code: int, output: str, state: str, said: str
) -> None:
    found = outcome_of("install x", code, output, 1.0)
    assert found.state == state
    assert said in found.said


@pytest.mark.parametrize(
    ("body", "state", "said"),
    [
        ("assert True", "done", "1 passed, 0 skipped, 0 failed"),
        ("pytest.skip('no vLLM here')", "skipped", "0 passed, 1 skipped, 0 failed; no vLLM here"),
        ("assert False", "FAILED", "exit code 1: 0 passed, 0 skipped, 1 failed"),
    ],
)
def test_tests_are_counted_and_those_that_all_skip_did_not_pass(tmp_path, body: str, state: str, said: str):
    (tmp_path / "test_it.py").write_text(f"import pytest\n\n\ndef test_it():\n    {body}\n")
    junit = tmp_path / "junit.xml"
    argv = [sys.executable, "-m", "pytest", "-c", "/dev/null", f"--junitxml={junit}", "test_it.py"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
    found = pytest_outcome("test it", done.returncode, junit.read_text(), 1.0)
    assert (found.state, found.said) == (state, said)


def test_pytest_that_did_not_begin_is_a_failure() -> None:
    assert pytest_outcome("test it", 4, "", 1.0).state == "FAILED"


def test_a_pair_that_does_not_exist_is_skipped_with_its_reason() -> None:
    assert why_not_prepared("gemma3-270m", "llama_cpp", "awq") is not None
    assert all(
        why_not_prepared(model, engine, each) is None for model, engine, kinds in WEIGHTS for each in kinds
    )


def test_each_file_of_the_live_tests_is_there() -> None:
    assert all((TESTS / file).is_file() for files in FILES.values() for file in files)
