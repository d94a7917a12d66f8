"""The ways in which a server may repeat a key, as functions of it."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from urllib.parse import quote


def _by_percent(key: str) -> str:
    return "".join(f"%{byte:02X}" for byte in key.encode())


def _in_base64(before: str) -> Callable[[str], str]:
    def encoded(key: str) -> str:
        return base64.b64encode(f"{before}{key}".encode()).decode()

    return encoded


def _in_url_base64(key: str) -> str:
    return base64.urlsafe_b64encode(f"me:{key}".encode()).decode().rstrip("=")


def _in_lines_of_base64(key: str) -> str:
    code = base64.b64encode(key.encode()).decode()
    return "\r\n".join(code[at : at + 8] for at in range(0, len(code), 8))


def _in_hex(joint: str) -> Callable[[str], str]:
    def encoded(key: str) -> str:
        return joint.join(f"{byte:02x}" for byte in key.encode())

    return encoded


def _joined(joint: str, size: int = 1) -> Callable[[str], str]:
    def split(key: str) -> str:
        return joint.join(key[at : at + size] for at in range(0, len(key), size))

    return split


def _in_json(key: str) -> str:
    return "".join(f"\\u{ord(each):04x}" for each in key)


def _in_html(pattern: str) -> Callable[[str], str]:
    def encoded(key: str) -> str:
        return "".join(pattern.format(ord(each)) for each in key)

    return encoded


ECHOES: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in the other case": str.swapcase,
    "by percent where it must be": lambda key: quote(key, safe=""),
    "by percent": _by_percent,
    "by percent in the other case": lambda key: _by_percent(key).lower(),
    "by percent twice": lambda key: quote(_by_percent(key), safe=""),
    "in base64": _in_base64(""),
    "in base64 after one byte": _in_base64(":"),
    "in base64 after two bytes": _in_base64("a:"),
    "in Basic credentials": _in_base64("someone:"),
    "in the base64 of URLs": _in_url_base64,
    "in lines of base64": _in_lines_of_base64,
    "spaced": _joined(" "),
    "in lines": _joined("\n", 5),
    "in words": _joined("   ", 4),
    "with hyphens": _joined("-"),
    "with hyphens and line ends": _joined("-\r\n", 7),
    "with line ends as JSON": _joined("\\n", 6),
    "by JSON": _in_json,
    "by JSON in capitals": lambda key: _in_json(key).replace("\\u00", "\\U00").upper().replace("\\U", "\\u"),
    "as JSON": lambda key: json.dumps(key).replace("/", "\\/"),
    "by HTML": _in_html("&#{};"),
    "by HTML in hexadecimal": _in_html("&#x{:X};"),
    "as HTML": html.escape,
    "in hexadecimal": _in_hex(""),
    "in capital hexadecimal": lambda key: _in_hex("")(key).upper(),
    "in spaced hexadecimal": _in_hex(":"),
    "by C": lambda key: "".join(f"\\x{byte:02x}" for byte in key.encode()),
}
