"""What a server counts for fixed prompts: the reference server, and servers that do not say."""

from __future__ import annotations

import pytest
from reference_serving import serving
from test_probe import fake

from harness.servers.prompts import PROMPTS, count_prompt_tokens


def test_each_prompt_is_counted_by_the_server() -> None:
    with serving() as server:
        url = f"http://127.0.0.1:{server.port}/v1"
        counted = count_prompt_tokens(url, "reference", timeout_s=10, key=None)
    assert list(counted) == ["user", "system", "turns"]
    characters = {name: sum(len(m["content"]) for m in messages) for name, messages in PROMPTS.items()}
    # The reference server takes four characters for a token.
    added = (characters["system"] - characters["user"]) / 4
    assert abs(counted["system"] - counted["user"] - added) <= 1


@pytest.mark.parametrize("mode", ["healthy", "plain", "ok", "drip"])
def test_a_server_that_gives_no_usage_is_left_out(mode: str) -> None:
    with fake(mode) as url:
        assert count_prompt_tokens(url, "tiny", timeout_s=0.5, key=None) == {}
