"""Install packages into a Python environment with uv, or with pip on platforms that uv has no build for.

pip's configuration is passed to uv in environment variables, never in arguments, which every user can list.
Imports only harness.cache, harness.errors, harness.whole_files and the standard library, since `make install`
runs it first.
"""

import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from serving_bench.harness.cache import cache_dir, user_caches
from serving_bench.harness.errors import BenchError, why_not_fetched
from serving_bench.harness.whole_files import locked

# uv with its hashes. It has its own environment, one per machine: bench's environment has no installer.
LOCK = Path(__file__).with_name("uv.txt")
# pip's setting -> uv's variable, and what separates values there. Constraints are left out: uv would want
# hashes in them.
_UV_VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX", ""),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", ""),
    "client-cert": ("SSL_CLIENT_CERT", ""),
    "proxy": ("ALL_PROXY", ""),
    "default-timeout": ("UV_HTTP_TIMEOUT", ""),
    "timeout": ("UV_HTTP_TIMEOUT", ""),
    "no-cache-dir": ("UV_NO_CACHE", ""),
}
# `make` installs into VENV; uv downloads into its own cache.
_PLACES = "make VENV=DIR, and UV_CACHE_DIR=DIR for what uv downloads"
# pip lists `section.name='value'`, with the value as Python writes it. A later section wins.
_SECTIONS = ("global", "install", ":env:")
_SETTING = re.compile(rf"^({'|'.join(_SECTIONS)})\.([\w-]+)=(.*)$", re.MULTILINE)


def uv_program() -> str | None:
    """Return the path of uv, from bench's environment or fetched; None if this platform has no uv."""
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        uv = _with_uv() / "bin" / "uv"
        return str(uv) if uv.exists() else None


def _with_uv() -> Path:
    """Return the environment with pip and, where uv has a wheel, uv. Make it if it is missing or broken."""
    folder = cache_dir() / "installer"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InstallError(f"{folder.parent} cannot be made", f"{error}; set BENCH_CACHE_DIR") from error
    marker, digest = folder / "installed", hashlib.sha256(LOCK.read_bytes()).hexdigest()
    with locked(folder.with_suffix(".lock")):
        if marker.exists() and marker.read_text() == digest and _has_pip(folder / "bin" / "python"):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        print("fetching uv, which installs packages (60 MB, once per machine)", file=sys.stderr, flush=True)
        _checked([sys.executable, "-I", "-m", "venv", str(folder)], "no environment for uv")
        pip = [*_pip(folder / "bin" / "python"), "--only-binary=:all:", "--require-hashes", "-r", str(LOCK)]
        try:
            _checked(pip, "uv could not be fetched")
        except InstallError as error:
            # pip's words if this platform has no wheel of uv. Then pip installs everything else.
            if "from versions: none" not in error.args[1] or "WARNING" in error.args[1]:
                raise
        else:
            marker.write_text(digest)
    return folder


class InstallError(Exception):
    """An installing command failed: what failed, all that it printed, and how to choose another place."""

    def __str__(self) -> str:
        what, output, *place = self.args
        return f"{what}: {why_not_fetched(output, *place) or output.strip()}"


def _checked(
    argv: list[str], failure: str, environment: Mapping[str, str] | None = None, *place: str
) -> None:
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, **(environment or {})},
    )
    if done.returncode != 0:
        raise InstallError(failure, done.stdout + done.stderr, *place)


def _has_pip(python: str | Path) -> bool:
    try:
        return subprocess.run([python, "-I", "-c", "import pip"], capture_output=True).returncode == 0
    except OSError:
        return False


def _pip(python: str | Path, *, target: str | None = None) -> list[str]:
    into = [] if target is None else ["--python", target]
    quiet = ["--no-input", "--progress-bar=off", "--quiet", "--disable-pip-version-check"]
    return [str(python), "-I", "-m", "pip", *into, "install", *quiet]


def installer(python: str) -> tuple[list[str], dict[str, str]]:
    """Return the command that installs packages for this Python, and variables to add to its environment.

    Fetches uv if it is not here yet. Raises InstallError if that fails.
    """
    uv = uv_program()
    if uv is None:
        has_own_pip = _has_pip(python)
        return _pip(python) if has_own_pip else _pip(_with_uv() / "bin" / "python", target=python), {}
    able = next((each for each in (python, sys.executable) if _has_pip(each)), None)
    settings = pip_settings(able or str(_with_uv() / "bin" / "python"))
    no_index = ["--no-index"] if settings.get("no-index", "").lower() in ("1", "true", "yes", "on") else []
    return [uv, "pip", "install", "--no-config", *no_index, "--python", python], uv_environment(settings)


def uv_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return pip's settings as uv's variables, without those that the user has set."""
    # As pip does: take a package from whichever index has it. A lock's hashes say which file is right.
    variables = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    cache = user_caches().absolute() / "uv"
    if not os.access(next(path for path in (cache, *cache.parents) if path.exists()), os.W_OK):
        variables["UV_NO_CACHE"] = "1"  # else uv fails, unlike pip, in a container whose user has no home
    variables |= {
        variable: separator.join(settings[name].split()) if separator else settings[name]
        for name, (variable, separator) in _UV_VARIABLES.items()
        if name in settings
    }
    return {variable: value for variable, value in variables.items() if variable not in os.environ}


def pip_settings(python: str) -> dict[str, str]:
    """Return the settings in pip's files and PIP_ variables, by the option's long name."""
    argv = [python, "-I", "-m", "pip", "config", "list"]
    listed = subprocess.run(argv, capture_output=True, text=True, errors="replace").stdout
    settings = sorted(_SETTING.findall(listed), key=lambda each: _SECTIONS.index(each[0]))
    return {name: ast.literal_eval(value) for _, name, value in settings}


if __name__ == "__main__":
    # packages PYTHON ARGUMENTS: install for it. The arguments are those of `uv pip install` and pip alike.
    try:
        command, added = installer(sys.argv[1])
        _checked([*command, *sys.argv[2:]], "packages could not be installed", added, _PLACES)
    except (InstallError, BenchError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
