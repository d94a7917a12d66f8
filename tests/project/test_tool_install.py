"""bench as `uv tool install` and pipx install it, from a wheel of the checkout, run from an empty folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT
from uv import find_uv_bin

from serving_bench.harness.install.packages import pip_settings, uv_environment

# One start of the default engine with the weights that `make served` has put into the user's cache.
RUN = (
    "quantization=gguf-q4_0", "repeats=1", "load.concurrency=1", "load.warmup=0.2s", "load.duration=1s",
    "load.min_requests=1", "guard=off", "device=cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the `bench` that `uv tool install` makes from a wheel, at the versions of requirements.lock."""
    folder = tmp_path_factory.mktemp("tool")
    environment = {
        **os.environ,
        **uv_environment(pip_settings(sys.executable)),
        "UV_TOOL_DIR": str(folder / "tools"),
        "UV_TOOL_BIN_DIR": str(folder / "bin"),
    }
    source = folder / "source"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    argv = ["cp", "--parents", "--no-dereference", *filter(None, names.decode().split("\0")), source]
    source.mkdir()
    subprocess.run(argv, cwd=ROOT, check=True)
    uv = [find_uv_bin(), "--quiet", "--no-config"]
    subprocess.run([*uv, "build", "--wheel", "-o", folder, source], check=True, env=environment)
    (wheel,) = folder.glob("serving_bench-*.whl")
    constraints = folder / "constraints.txt"
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    constraints.write_text("\n".join(line.rstrip(" \\") for line in lines if not line.startswith(" ")))
    argv = [*uv, "tool", "install", "--python", sys.executable, "--constraints", constraints, wheel]
    subprocess.run(argv, check=True, env=environment)
    return folder / "bin" / "bench"


@pytest.mark.live
@pytest.mark.long
def test_it_measures_the_default_engine_from_an_empty_folder(tool: Path, tmp_path: Path) -> None:
    done = subprocess.run([tool, "run", *RUN], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (report,) = tmp_path.glob("results/*/report.html")
    assert "llama_cpp gguf-q4_0" in report.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


@pytest.mark.long
def test_it_has_the_published_claims(tool: Path, tmp_path: Path) -> None:
    done = subprocess.run([tool, "claim", "list"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "llama_cpp_flat" in done.stdout


@pytest.mark.long
def test_it_fetches_uv_to_make_an_environment(tool: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "BENCH_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([tool, "install", "hub"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cache" / "installer" / "bin" / "uv").exists()
    python = tmp_path / "cache" / "engines" / "tool-hub" / "bin" / "python"
    subprocess.run([python, "-I", "-c", "import huggingface_hub"], check=True)
