"""What a server says of itself, on its pages, in its log, in its metrics: each costs itself at most."""

import json
import math
from typing import Any

import msgspec
from fuzzing import NO_VALUES, altered, damaged
from hypothesis import given
from hypothesis import strategies as st
from odd_facts import PAGES
from places import TESTS

from serving_bench.engines import ENGINES
from serving_bench.harness.servers.scrape import said_by, terms_on

DATA = TESTS / "data"
LOGS = {name: [path.read_bytes() for path in sorted((DATA / name).glob("*.log"))] for name in ENGINES}
NUMBERS = ("context_length", "concurrent_sequences", "seed", "kv_cache_bytes")
RECORDED = json.loads((DATA / "metrics.json").read_text())
PIECES = [
    b"{",
    b"}",
    b'"',
    b"\\",
    b",",
    b"=",
    b" ",
    b"#",
    b"\n",
    b"NaN",
    b"1e999",
    b"9" * 400,
    b"\xff",
    b"_total",
]


@st.composite
def saying(draw: st.DrawFn) -> tuple[str, str, dict[str, Any]]:
    """An engine, a log and its pages, of which some values or bytes are others."""
    name = draw(st.sampled_from(sorted(PAGES)))
    page = draw(altered({"page": PAGES[name]}))["page"]
    logs = LOGS[name] or [b""]
    log = draw(st.sampled_from(logs).flatmap(lambda whole: damaged(whole, [*NO_VALUES, *PIECES])))
    return name, log.decode(errors="replace"), dict.fromkeys(ENGINES[name].pages, page)


@given(saying())
def test_whatever_a_server_says_is_stored_as_it_is_read(said_to_be: tuple[str, str, dict[str, Any]]) -> None:
    name, log, pages = said_to_be
    said, problems = said_by(ENGINES[name], log, pages)
    stored = json.loads(msgspec.json.encode([said.terms, said.memory]))
    assert stored == [dict(said.terms), dict(said.memory)]
    assert not [problem for problem in problems if "cannot be read" in problem]
    assert all(type(said.terms.get(term)) in (int, type(None)) for term in NUMBERS)
    assert all("\n" not in problem for problem in problems)


@given(st.sampled_from(sorted(RECORDED)), st.data())
def test_a_damaged_page_of_metrics_has_finite_numbers_or_says_why_not(name: str, data: st.DataObject) -> None:
    metrics = ENGINES[RECORDED[name]["engine"]].metrics
    wanted = [line for line in (DATA / name).read_text().splitlines() if not line.startswith("#")]
    line = data.draw(st.sampled_from(wanted))
    other = data.draw(damaged(line.encode(), PIECES)).decode(errors="replace")
    found, problems = terms_on("\n".join([other if each == line else each for each in wanted]), metrics)
    assert found.keys() | problems.keys() == metrics.keys()
    assert not found.keys() & problems.keys()
    assert all(math.isfinite(value) for value in found.values())
