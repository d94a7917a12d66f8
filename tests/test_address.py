"""HOST:PORT as people write it."""

from __future__ import annotations

import pytest

from harness.errors import UserError
from harness.load.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.5:6000", "10.0.0.5", 6000),
        ("gpu-box", "gpu-box", 5557),
        ("[::1]:6000", "::1", 6000),
        ("[::1]", "::1", 5557),
    ],
)
def test_an_address_is_read_and_shown(text: str, host: str, port: int) -> None:
    address = parse_address("load.bind", text)
    assert address == Address(host, port)
    assert parse_address("load.bind", str(address)) == address


@pytest.mark.parametrize(
    "text", ["", ":5557", "host:", "host:0", "host:65536", "host:http", "::1", "[]:5557"]
)
def test_what_is_no_address_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"--master=.*: must be HOST:PORT, such as"):
        parse_address("--master", text)
