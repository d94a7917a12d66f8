"""Find secrets by the names of variables and flags and by well-known tokens, and mask them in texts."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

MASK = "***"
# As whole parts of a name: HF_TOKEN and --api-key, not TOKENIZERS_PARALLELISM or --max-total-tokens.
_SECRET_PARTS = {
    "apikey", "apikeys", "auth", "authorization", "bearer", "credential", "credentials", "key", "keys",
    "passphrase", "passwd", "password", "passwords", "pat", "secret", "secrets", "token",
}  # fmt: skip
_HARMLESS_ENDS = frozenset({"dir", "env", "file", "mode", "name", "parallelism", "path", "type"})
_TOKEN = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|eyJ[\w-]{10,}\.[\w.-]+)"
)
_BEARER = re.compile(r"\b(bearer\s+)\S+", re.IGNORECASE)
# Up to the last @ before the path: a password may have one.
_USER_INFO = re.compile(r"(?<=://)[^/?#\s\"'<>`]+(?=@)")
_ASSIGNED = re.compile(r"(?P<name>-{0,2}[A-Za-z][\w.-]*)=(?P<value>.*)", re.DOTALL)
# In prose a `key` or a `token` is rarely a secret, so only longer names count there. A server prints its
# arguments as `--api-key X`, `api_key='X'` or `'api_key': ['X']`.
_SAID = re.compile(
    r"(?P<name>(?:api[_-]?keys?|passw(?:or)?d|secret|(?:access|auth|hf|hub|hub_access)[_-]?token)"
    r"(?:(?<=api-key)\s+|['\"]?\s*[=:]\s*)[\['\"]*)"
    r"(?!(?:None|null)\b)[^\s'\",;)\]}]+",
    re.IGNORECASE,
)


def is_secret(name: str) -> bool:
    parts = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip("-")).lower())
    return bool(_SECRET_PARTS & set(parts)) and parts[-1] not in _HARMLESS_ENDS


def masked(text: str) -> str:
    """Return a text without well-known tokens, values after `Bearer` or `api_key=`, and users of URLs."""
    found = _BEARER.sub(rf"\1{MASK}", _USER_INFO.sub(MASK, _TOKEN.sub(MASK, text)))
    return _SAID.sub(rf"\g<name>{MASK}", found)


def secret_names(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that are secrets by their names or by what they hold."""
    return sorted(n for n, value in environment.items() if is_secret(n) or masked(value) != value)


def masked_values(value: Any, name: str = "") -> Any:
    """Mask every text in mappings and lists. A text under a secret's name is masked whole."""
    if isinstance(value, str):
        return MASK if is_secret(name) else masked(value)
    if isinstance(value, Mapping):
        return {key: masked_values(each, str(key)) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [masked_values(each, name) for each in value]
    return value


def masked_argv(argv: Sequence[str]) -> tuple[str, ...]:
    """Return a command line without the values of `--api-key X`, `--api-key=X` and `-e HF_TOKEN=X`."""
    found: list[str] = []
    hides_next = False
    for argument in argv:
        assigned = _ASSIGNED.fullmatch(argument)
        if hides_next and not argument.startswith("--"):
            found.append(MASK)
        elif assigned and is_secret(assigned["name"]):
            found.append(f"{assigned['name']}={MASK}")
        else:
            found.append(masked(argument))
        hides_next = argument.startswith("-") and "=" not in argument and is_secret(argument)
    return tuple(found)
