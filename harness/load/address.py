"""HOST:PORT as people write it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import UserError

DEFAULT_PORT = 5557  # Locust's own


@dataclass(frozen=True)
class Address:
    """`host` without the brackets of an IPv6 address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(key: str, text: str) -> Address:
    """`HOST`, `HOST:PORT` or `[::1]:PORT`. Raises UserError, which names `key`."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    is_number = port.isascii() and port.isdigit() and 0 < int(port) < 65536
    is_bracketed = host.startswith("[") and host.endswith("]")
    if not is_number or not host.strip("[]") or (":" in host and not is_bracketed):
        raise UserError(f"{key}={text}: must be HOST:PORT, such as 127.0.0.1:{DEFAULT_PORT}")
    return Address(host[1:-1] if is_bracketed else host, int(port))
