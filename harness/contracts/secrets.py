"""Find secrets and mask them: by the names of variables and flags, by the form of well-known tokens, and by
their own characters in any encoding.

`masked_known` is for the text of a server that was sent a key, `masked` for text whose secrets are not known.
`secrets_in` says where a file's bytes hold either.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from html.entities import html5
from typing import Any

MASK = "***"
OURS = "the value of "
# As whole parts of a name: HF_TOKEN and --api-key, not TOKENIZERS_PARALLELISM or --max-total-tokens.
_SECRET_PARTS = {
    "apikey", "apikeys", "auth", "authorization", "bearer", "credential", "credentials", "key", "keys",
    "passphrase", "passwd", "password", "passwords", "pat", "secret", "secrets", "token",
}  # fmt: skip
_HARMLESS_ENDS = frozenset({"dir", "env", "file", "mode", "name", "parallelism", "path", "type"})
# None may begin within another, or a megabyte of beginnings would take minutes.
_TOKEN = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}"
    r"|(?:github_pat_|glpat-|xox[abprs]-|AIza)[A-Za-z0-9_-]{16,}|(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|(?<!-)eyJ[\w-]{10,}+\.[\w.-]+)"
)
_BEARER = re.compile(r"\b(bearer\s+)\S+", re.IGNORECASE)
# Up to the last @ before the path: a password may have one.
_USER_INFO = re.compile(r"(?<=://)[^/?#\s\"'<>`]+(?=@)")
# A URL with a query, a fragment or a user. A password may have any character but a space. A URL that became
# a path has one slash.
_HIDDEN_IN_URL = re.compile(r"(?P<scheme>://|\bhttps?:/)(?P<place>[^\s?#@]*)[?#@]\S*")
_ASSIGNED = re.compile(r"(?P<name>-{0,2}[A-Za-z][\w.-]*)=(?P<value>.*)", re.DOTALL)
_LONG_BEARER = re.compile(r"\bbearer\s+(?=[\w.~+/-]*\d)[\w.~+/-]{16,}", re.IGNORECASE)
_LONG_USER = re.compile(r"(?<=://)[^/?#\s\"'<>`@:]+:(?!\*)[^/?#\s\"'<>`]+(?=@)")
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----")
# In prose a `key` or a `token` is rarely a secret, so only longer names count there. A server prints its
# arguments as `--api-key X`, `api_key='X'` or `'api_key': ['X']`.
_SAID = re.compile(
    r"(?P<name>(?:api[_-]?keys?|passw(?:or)?d|secret|(?:access|auth|hf|hub|hub_access)[_-]?token)"
    r"(?:(?<=api-key)\s+|['\"]?\s*[=:]\s*)[\['\"]*)"
    r"(?!(?:None|null)\b)[^\s'\",;)\]}]+",
    re.IGNORECASE,
)
# A shorter secret is only searched for as it stands: in other encodings, too much would look like it.
_LEAST_CHARACTERS = 8
# Search for the first 12 characters, so that a secret that was cut is found, too. The rest may follow in any
# encoding. Every repetition is bounded or possessive, so the time is linear in the text.
_PIECE = 12
_SPACE = r"[\s\-\u00ad\u200b-\u200f\u2060\ufeff]"
_SPACED = (
    rf"(?:{_SPACE}|"
    r"\\{1,4}[nrt]|&\#0{0,6}(?:9|10|13|32|45);"
    r"|(?i:(?:%(?:25){0,3}|\\{1,4}(?:u00|x)|&\#x0{0,6})(?:20|0[9ad]|2d));?)*+"
)
_ANY = r"(?:%(?:25){0,3}[0-9A-Fa-f]{2}|\\{1,4}(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2})|&\#?\w{1,8};|\\{0,4}.)"
_HEX_SPACED, _BASE64_SPACED = r"[\s:,-]*+(?:0x)?", r"(?:\s|\\{1,4}[nr])*+"
_BASE64 = {"+": "[+-]", "/": "[/_]"}  # the standard alphabet, and that of URLs


def is_secret(name: str) -> bool:
    parts = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip("-")).lower())
    return bool(_SECRET_PARTS & set(parts)) and parts[-1] not in _HARMLESS_ENDS


def masked(text: str) -> str:
    """Return a text without well-known tokens, values after `Bearer` or `api_key=`, and users of URLs."""
    without = _BEARER.sub(rf"\1{MASK}", _USER_INFO.sub(MASK, _TOKEN.sub(MASK, text)))
    return _SAID.sub(rf"\g<name>{MASK}", without)


def masked_urls(text: str) -> str:
    """Return a text whose URLs have neither a user before an @ nor anything after a ? or #."""
    return _HIDDEN_IN_URL.sub(_without_secret, text)


def _without_secret(url: re.Match[str]) -> str:
    return url["scheme"] + (MASK if "@" in url[0] else f"{url['place']}?{MASK}")


def masked_known(text: str, secret_values: Iterable[str | None]) -> str:
    """Return a text without the known secrets, however they are encoded in it.

    It finds them plain, percent-encoded, escaped as in JSON or HTML, in hexadecimal or base64 (also within
    `user:secret`), and with spaces, line ends or hyphens in between. The time is linear in the text: 1 MB
    takes about 0.1 s, and 1 s at worst.
    """
    for secret in filter(None, secret_values):
        for pattern in _patterns(secret):
            text = pattern.sub(MASK, text)
    return text


def masked_bytes(data: bytes | bytearray, secret_values: Iterable[str | None]) -> bytes:
    """Mask bytes as `masked_known` masks a text, but keep their length, so that offsets stay valid."""
    text = data.decode("latin-1")
    for secret in filter(None, secret_values):
        for pattern in _patterns_in_bytes(secret):
            text = pattern.sub(lambda match: "*" * len(match[0]), text)
    return text.encode("latin-1")


def known_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are secrets, except values too short to be told from a word."""
    names = secret_names(environment)
    return {name: environment[name] for name in names if len(environment[name]) >= _LEAST_CHARACTERS}


def secrets_in(data: bytes, secret_values: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Yield the offset and the kind, but not the value, of each secret in a byte string.

    It finds the `secret_values` (see known_secrets) in every encoding that `masked_known` finds; their kind
    begins with OURS. Then it finds well-known tokens, private keys, what follows `Bearer`, and users of URLs.
    Compressed data must be decompressed first.
    """
    text = data.decode("latin-1")
    forms = [
        (OURS + name, pattern)
        for name, value in secret_values.items()
        for pattern in _patterns_in_bytes(value)
    ]
    forms += [
        ("a well-known token", _TOKEN),
        ("a private key", _PRIVATE_KEY),
        ("a bearer's token", _LONG_BEARER),
        ("a URL's user", _LONG_USER),
    ]
    for kind, pattern in forms:
        yield from ((match.start(), kind) for match in pattern.finditer(text))


def _patterns_in_bytes(secret: str) -> list[re.Pattern[str]]:
    """Return the patterns that find a secret in bytes read as latin-1, where a character may be several."""
    forms = dict.fromkeys((secret, _utf8(secret).decode("latin-1")))
    return [pattern for form in forms for pattern in _patterns(form)]


def _utf8(text: str) -> bytes:
    return text.encode(errors="surrogateescape")  # as the environment holds it


@lru_cache(maxsize=64)
def _patterns(secret: str) -> tuple[re.Pattern[str], ...]:
    """Return the patterns that find a secret: as characters, in hexadecimal, in base64 at three offsets."""
    characters = re.sub(_SPACE, "", secret)
    if len(characters) < _LEAST_CHARACTERS:
        return (re.compile(re.escape(secret)),)
    units = _SPACED.join(map(_unit, characters[:_PIECE]))
    rest = len(characters[_PIECE:])
    patterns = [rf"{units}(?:{_SPACED}{_ANY}){{0,{rest}}}+"]
    data = _utf8(secret)
    digits = (f"[{each}{each.upper()}]" for each in data[:_PIECE].hex())
    patterns.append(_HEX_SPACED.join(digits) + rf"(?:{_HEX_SPACED}[0-9A-Fa-f])*+")
    for before in range(3):
        # Only the digits that do not depend on the secret's neighbours.
        begin, end = -(-8 * before // 6), 8 * (before + len(data)) // 6
        code = b64encode(bytes(before) + data).decode()[begin:end][: 4 * _PIECE // 3]
        one = _BASE64_SPACED.join(_BASE64.get(each, each) for each in code)
        patterns.append(rf"{one}(?:{_BASE64_SPACED}[A-Za-z0-9+/_=-])*+")
    return tuple(re.compile(each, re.DOTALL) for each in patterns)


def _unit(character: str) -> str:
    """Return a pattern that finds a character in either case, percent-encoded, or escaped in JSON or HTML.
    It begins with a set, which a search finds fast."""
    plain = re.escape(character) + (character.swapcase() if character.isalpha() else "")
    code = ord(character)
    names = "".join(f"|{name}" for name, value in html5.items() if value == character and name[-1] == ";")
    by_percent = "%".join(rf"(?:25){{0,3}}{byte:02x}" for byte in _utf8(character))
    in_json = rf"(?<=\\)\\{{0,3}}(?:u{code:04x}|x{code:02x}|{re.escape(character)})"
    in_html = rf"(?<=&)(?:\#0{{0,6}}{code};|\#x0{{0,6}}{code:x};{names})"
    return rf"[{plain}%\\&](?:(?<=[{plain}])|(?i:(?<=%){by_percent}|{in_json}|{in_html}))"


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
    masked_words: list[str] = []
    hides_next = False
    for argument in argv:
        assigned = _ASSIGNED.fullmatch(argument)
        if hides_next and not argument.startswith("--"):
            masked_words.append(MASK)
        elif assigned and is_secret(assigned["name"]):
            masked_words.append(f"{assigned['name']}={MASK}")
        else:
            masked_words.append(masked(argument))
        hides_next = argument.startswith("-") and "=" not in argument and is_secret(argument)
    return tuple(masked_words)
