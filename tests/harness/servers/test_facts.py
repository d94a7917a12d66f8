"""What servers say of themselves, whatever shape their pages have."""

from pathlib import Path
from typing import Any

import pytest
from fake_http import FakeHttp, fake_http, page, text
from odd_facts import PAGES

from serving_bench.engines import ENGINES
from serving_bench.harness.contracts import Engine, Said
from serving_bench.harness.servers.scrape import read_said

NO_LOG = Path("no/log")


def asked(engine: Engine, server: FakeHttp, content: object) -> tuple[Said, list[str]]:
    server.reply = text(content) if isinstance(content, str) else page(content)
    return read_said(engine, server.base_url, NO_LOG, None)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_facts_of_its_server(name: str) -> None:
    with fake_http({}) as server:
        good, problems = asked(ENGINES[name], server, PAGES[name])
    assert good.terms
    assert problems == []


def test_what_is_left_out_is_named_with_its_value() -> None:
    with fake_http({}) as server:
        said, problems = asked(
            ENGINES["tgi"], server, {"max_total_tokens": {"a": 1}, "max_input_tokens": [2]}
        )
        assert said.terms == {}
        assert problems == [
            "tgi: the server says context_length={'a': 1}: left out (Expected `int | null`, got `object`)",
            "tgi: the server says max_input_tokens=[2]: left out "
            "(Expected `bool | int | float | str | null`, got `array`)",
        ]
        _, problems = asked(ENGINES["sglang"], server, {"version": "1", "disable_radix_cache": "no"})
        assert problems == [
            "sglang: the server says prefix_cache='no': left out (Expected `bool | null`, got `str`)"
        ]


def test_an_engine_that_trips_over_a_page_loses_its_facts_only() -> None:
    def said(log: str, pages: Any) -> Said:
        return Said({"seed": pages["/info"]["seed"] + 1})

    engine = Engine("odd", "", type, lambda deployment, place: NotImplemented, pages=("/info",), said=said)
    with fake_http({}) as server:
        assert asked(engine, server, {"seed": 1}) == (Said({"seed": 2}), [])
        found, (problem,) = asked(engine, server, {"seed": {}})
    assert found == Said()
    assert problem.startswith("odd: what the server says of itself cannot be read: TypeError(")


@pytest.mark.parametrize(
    "content", ["", "no JSON", "[" * 100_000, '"\ud800"'.encode(errors="replace").decode()]
)
def test_a_page_that_is_no_json_is_no_page(content: str) -> None:
    with fake_http({}) as server:
        said, _ = asked(ENGINES["tgi"], server, content)
    assert said == Said()


def test_the_log_is_read_where_there_is_one(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_bytes(b"\xff\xfe\nSharding model on 2 processes\n")
    with fake_http({}) as server:
        said, problems = read_said(ENGINES["tgi"], server.base_url, log, None)
    assert (said.terms, problems) == ({"tensor_parallel": 2}, [])
