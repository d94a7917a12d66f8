"""Installs packages into a Python environment: by uv, or by pip where uv has no program for this platform.

pip's configuration is passed on in uv's environment, never in arguments, which every list of processes shows.
Imports the standard library only, since `make install` runs it first of all.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# pip's setting -> uv's variable, and what separates values there. Constraints have no hashes, which uv wants.
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
# pip lists `section.name='value'`, with the value as Python writes it. A later section wins.
_SECTIONS = ("global", "install", ":env:")
_SETTING = re.compile(rf"^({'|'.join(_SECTIONS)})\.([\w-]+)=(.*)$", re.MULTILINE)


def uv_program() -> str | None:
    """Return the path of the uv that bench was installed with; None where there is none for this platform."""
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        return None


def installer(python: str) -> tuple[list[str], dict[str, str]]:
    """Return the command that installs packages for this Python, and what to add to its environment."""
    uv = uv_program()
    if uv is None:
        pip = [python, "-I", "-m", "pip", "install", "--no-input", "--progress-bar=off", "--quiet"]
        return [*pip, "--disable-pip-version-check"], {}
    settings = pip_settings(python)
    no_index = ["--no-index"] if settings.get("no-index", "").lower() in ("1", "true", "yes", "on") else []
    return [uv, "pip", "install", "--no-config", *no_index, "--python", python], uv_environment(settings)


def uv_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return pip's settings as uv's variables. What the user has set for uv stays."""
    # pip takes a package from whichever index has it. A lock's hashes say which file is right.
    found = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "uv"
    there = next(path for path in (cache, *cache.parents) if path.exists())
    if not os.access(there, os.W_OK):
        found["UV_NO_CACHE"] = "1"  # uv would fail, where pip goes on: a container whose user has no home
    for name, (variable, separator) in _UV_VARIABLES.items():
        if name in settings:
            found[variable] = separator.join(settings[name].split()) if separator else settings[name]
    return {variable: value for variable, value in found.items() if variable not in os.environ}


def pip_settings(python: str) -> dict[str, str]:
    """Return what pip's files and PIP_ variables say, by the long name of the option."""
    argv = [python, "-I", "-m", "pip", "config", "list"]
    listed = subprocess.run(argv, capture_output=True, text=True, errors="replace").stdout
    found = _SETTING.findall(listed)
    found.sort(key=lambda each: _SECTIONS.index(each[0]))
    return {name: ast.literal_eval(value) for _, name, value in found}


if __name__ == "__main__":
    # Install for this Python. The arguments are those of `uv pip install` and pip alike.
    command, environment = installer(sys.executable)
    os.execve(command[0], [*command, *sys.argv[1:]], {**os.environ, **environment})
