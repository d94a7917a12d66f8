"""Who installs packages, and that pip's settings hold for uv as well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT
from wheels import make_lock, make_wheel

from harness.install import packages
from harness.install.packages import installer, pip_settings, uv_environment

PASSWORD = "secret-of-the-index"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("PIP_", "UV_", "SSL_")):
            monkeypatch.delenv(name)
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://general\nfind-links =\n    /wheels\n    https://wheels\n"
        f"[install]\nindex-url = https://me:{PASSWORD}@here/simple\nno_index = yes\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://a https://b")


def test_pips_files_and_variables_become_uvs_variables_and_no_argument(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIP_CONSTRAINT", "/constraints.txt")
    argv, environment = installer(sys.executable)
    assert argv[1:] == ["pip", "install", "--no-config", "--no-index", "--python", sys.executable]
    assert environment["UV_DEFAULT_INDEX"] == f"https://me:{PASSWORD}@here/simple"
    assert environment["UV_INDEX"] == "https://a https://b"
    assert environment["UV_FIND_LINKS"] == "/wheels,https://wheels"
    # A lock names every version, and uv refuses constraints that have no hash.
    assert "/constraints.txt" not in environment.values()


def test_what_the_user_set_for_uv_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://mine")
    found = uv_environment({"index-url": "https://pips", "cert": "/ca.pem"})
    assert ("UV_DEFAULT_INDEX" in found, found["SSL_CERT_FILE"]) == (False, "/ca.pem")


def test_a_user_without_a_home_to_write_in_has_no_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "absent"))
    assert "UV_NO_CACHE" not in uv_environment({})
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    assert uv_environment({})["UV_NO_CACHE"] == "1"


def test_without_uv_pip_installs_by_its_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "uv_program", lambda: None)
    argv, environment = installer(sys.executable)
    assert (argv[:5], environment) == ([sys.executable, "-I", "-m", "pip", "install"], {})


def test_a_python_without_pip_has_no_settings_of_pips(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-I", "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    assert pip_settings(str(tmp_path / "bare" / "bin" / "python")) == {}


def test_it_runs_before_anything_is_installed(tmp_path: Path, quick_python: Path) -> None:
    """As `make install` runs it: with the standard library alone, by pip where uv is not there."""
    subprocess.run([quick_python, "-I", "-m", "venv", tmp_path / "new"], check=True)
    python = tmp_path / "new" / "bin" / "python"
    lock = make_lock(tmp_path, "tinything", make_wheel(tmp_path, "tinything", {"tinything.py": ""}))
    argv = [python, "-m", "harness.install.packages", "--require-hashes", "--no-deps", "-r", lock]
    subprocess.run(argv, cwd=ROOT, check=True, capture_output=True)
    subprocess.run([python, "-I", "-c", "import tinything"], check=True)
