"""Find the cache, name its paths so that they hold on another machine, and seal records with its key.

Uses only the standard library.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
import sys
from contextlib import suppress
from pathlib import Path

from serving_bench.harness.errors import expanded

_KEY_FILE, _KEY_BYTES = "own.key", 32
# A name that stands for a directory at the beginning of a path, in a record.
_CACHE, _HOME = "$CACHE", "~"
_NAMED = re.compile(rf"(?<![\w.~/-])({re.escape(_CACHE)}|{_HOME})(?=[/\"]|$)")


def cache_dir() -> Path:
    """Return the folder of environments and weights: BENCH_CACHE_DIR, else one in the user's caches."""
    if given := os.environ.get("BENCH_CACHE_DIR"):
        return expanded("BENCH_CACHE_DIR", given).absolute()
    if sys.platform == "darwin":
        return expanded("HOME", "~/Library/Caches/serving-bench")
    return user_caches().absolute() / "serving-bench"


def user_caches() -> Path:
    return expanded("XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME") or "~/.cache")


def portable(data: bytes) -> bytes:
    """Return JSON with $CACHE and ~ for the cache's and the home directory where a path begins with them."""
    for name, folder in ((_CACHE, cache_dir()), (_HOME, expanded("HOME", "~"))):
        for path in {str(folder), os.path.realpath(folder)} - {"/"}:
            quoted = json.dumps(path, ensure_ascii=False)[1:-1].encode(errors="replace")
            data = re.sub(rb"(?<![\w.~/-])" + re.escape(quoted) + rb"(?![\w.-])", name.encode(), data)
    return data


def local(text: str) -> str:
    """Return a record's text with the paths of this machine again: the opposite of `portable`."""
    folders = {_CACHE: str(cache_dir()), _HOME: str(expanded("HOME", "~"))}
    return _NAMED.sub(lambda match: folders[match[1]], text)


def seal_of(data: bytes) -> str:
    """Return an HMAC of the data (64 hexadecimal digits), by which this user's bench knows its own records.

    Its key is kept in the cache and readable by the user alone. Empty if the cache cannot hold one.
    """
    with suppress(OSError):
        return hmac.new(_key(), data, hashlib.sha256).hexdigest()
    return ""


def _key() -> bytes:
    """Read the key, or make it. Raises OSError, also if other users could know it."""
    path = cache_dir() / _KEY_FILE
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
        try:
            with open(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
            with suppress(FileExistsError):  # another bench was faster: its key counts
                os.link(part, path)
        finally:
            part.unlink(missing_ok=True)
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        stat, key = os.fstat(file.fileno()), file.read(_KEY_BYTES)
    if stat.st_uid != os.getuid() or stat.st_mode & 0o077 or len(key) < _KEY_BYTES:
        raise PermissionError(f"{path}: is not private to this user")
    return key
