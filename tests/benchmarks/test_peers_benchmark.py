"""benchmarks/peers: what real files of each client say, and the table of what was measured."""

import json
import os
import re
import shutil
import subprocess
from importlib import metadata
from itertools import pairwise
from statistics import median

import pytest
from benchmark_modules import modules_of
from places import ROOT, TESTS
from test_truth import MS, sends

from serving_bench.harness.errors import MissingError
from serving_bench.harness.selftest import selftest
from serving_bench.harness.selftest.sends import served

FOREIGN = TESTS / "data" / "foreign"
PEERS = TESTS / "data" / "peers"
FILES = {  # as written by the tools, against the reference server
    "aiperf": FOREIGN / "aiperf-0.13.0",
    "guidellm": FOREIGN / "guidellm-0.8.1",
    "vllm": FOREIGN / "vllm-0.32.0" / "result.json",
    "sglang": PEERS / "sglang",
    "sglang-rust": PEERS / "sglang-rust",
    "locust": PEERS / "locust",
    "bench": PEERS / "bench",
}


@pytest.fixture(scope="module")
def peers():
    folders = ("benchmarks/peers", "benchmarks")
    return modules_of("clients", "pinned", "rows", "side_by_side", "tools", folders=folders)


@pytest.fixture
def read(peers, tmp_path):
    """Return the requests of a client's recorded file that went well."""

    def requests(name: str):
        folder = FILES[name]
        if folder.is_file():
            folder = tmp_path
            shutil.copy(FILES[name], folder / "vllm.json")
        return [each for each in peers["tools"].READERS[name](folder) if each.is_ok]

    return requests


def ttfts_ms(requests) -> list[float]:
    return [(each.chunk_ns[0] - each.start_ns) / MS for each in requests]


def gaps_ms(requests) -> list[float]:
    return [gap for each in requests for gap in (b - a for a, b in pairwise(each.chunk_ns))]


# --- what the clients' files say ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sglang", "sglang-rust"])
def test_a_file_of_sglang_has_the_figures_of_its_summary(read, name):
    own, requests = json.loads((FILES[name] / "sglang.jsonl").read_text()), read(name)
    assert len(requests) == own["completed"] == 16
    assert median(ttfts_ms(requests)) == pytest.approx(own["median_ttft_ms"], rel=1e-5)
    assert median(gaps_ms(requests)) / MS == pytest.approx(own["median_itl_ms"], rel=1e-5)


def test_a_file_of_vllm_has_the_figures_of_its_summary(read):
    own, requests = json.loads(FILES["vllm"].read_text()), read("vllm")
    assert len(requests) == own["completed"]
    assert median(ttfts_ms(requests)) == pytest.approx(own["median_ttft_ms"], rel=1e-5)
    assert median(gaps_ms(requests)) / MS == pytest.approx(own["median_itl_ms"], rel=1e-5)


def test_a_file_of_aiperf_has_the_figures_of_its_summary(read):
    own = json.loads((FILES["aiperf"] / "profile_export_aiperf.json").read_text())
    requests = read("aiperf")
    assert median(ttfts_ms(requests)) == pytest.approx(own["time_to_first_token"]["p50"], rel=1e-3)


def test_guidellm_has_ttft_and_its_tokens_are_spread_evenly(read):
    requests = read("guidellm")
    assert all(0 < ttft < 5000 for ttft in ttfts_ms(requests))
    first = requests[0].chunk_ns
    assert max(first[at + 1] - first[at] for at in range(len(first) - 1)) - (first[1] - first[0]) <= 1


@pytest.mark.parametrize("name", ["locust", "bench"])
def test_our_own_files_have_each_token(read, name):
    requests = read(name)
    assert {len(each.chunk_ns) for each in requests} == {8}
    assert all(50 <= ttft < 60 for ttft in ttfts_ms(requests)), "the server sends the first one after 50 ms"


# --- figures -----------------------------------------------------------------------------------------------


@pytest.fixture
def figures(peers):
    """Two requests, each 3 ms late at its first token and in its gap; 2 s of processor time in between."""
    clients, pinned, rows, tools = (peers[name] for name in ("clients", "pinned", "rows", "tools"))
    case = clients.Case(2, 100, window_s=5.0, tokens=2)
    said = [clients.Reported(name, True, 0, [53 * MS, 66 * MS], 66 * MS) for name in ("one", "two")]
    lines = [line for name in ("one", "two") for line in sends(name, 100, [(150, 150), (160, 160)], 160)]
    samples = (
        pinned.Sample(90 * MS, 1.0, 5, 7),
        pinned.Sample(159 * MS, 3.0, 9),
        pinned.Sample(900 * MS, 8.0, 9, 6),
    )
    cost = pinned.Cost(20 * MS, 0, 8.0, samples)

    def measured(said=said, case=case):
        return rows.figures(tools.peers()["vllm"], case, said, served(lines), cost)

    return measured


def test_errors_are_of_percentiles_and_the_cost_ends_with_the_last_answer(figures):
    found = figures()
    assert found.ttft_error_s == pytest.approx((0.003, 0.003))
    assert found.itl_error_s == pytest.approx((0.003, 0.003))
    assert found.cpu_s_per_token == pytest.approx(2.0 / 4)
    assert (found.start_s, found.memory_bytes) == (pytest.approx(0.08), 7)
    assert (found.counted, found.sent) == (2, 2)


def test_a_client_that_played_something_else_has_no_figures(figures, peers):
    with pytest.raises(ValueError, match=r"answers have \[2\] tokens, not 128"):
        figures(case=peers["clients"].Case(2, 100, window_s=5.0))


def test_a_client_of_which_nothing_went_well_has_no_figures(figures):
    with pytest.raises(ValueError, match="no request succeeded"):
        figures(said=[])


# --- the table ---------------------------------------------------------------------------------------------


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split(" | ")]


@pytest.fixture
def table(peers):
    """Return the cells of each row of a table, and its notes."""
    rows, known = peers["rows"], peers["tools"].peers()

    def made(measured, failures=None, asked=("bench", "guidellm")):
        chosen = [known[name] for name in asked]
        text = rows.markdown(chosen, [64], measured, {"bench": 480_600_000}, failures or {})
        lines = text.splitlines()
        return [cells(line) for line in lines[2 : 2 + len(asked)]], "\n".join(lines[2 + len(asked) :])

    def one(peer: str, ttft_ms: float, late_s: float = 0.0):
        errors = (ttft_ms / 1e3, ttft_ms / 1e3)
        return rows.Figures(peer, 64, errors, errors, 2e-5, 46_000_000, 0.6, 320, 321, late_s)

    return made, one


def test_the_best_is_bold_whoever_it_is_and_so_is_what_passes_do_not_tell_from_it(table):
    made, one = table
    (bench, guidellm), _ = made([one("bench", 0.3), one("bench", 0.5), one("guidellm", 0.1)])
    assert (bench[2], guidellm[2]) == ("0.30 - 0.50", "**0.10**")
    (bench, guidellm), _ = made([one("bench", 0.1), one("bench", 0.5), one("guidellm", 0.4)])
    assert (bench[2], guidellm[2]) == ("**0.10 - 0.50**", "**0.40**")


def test_a_row_has_size_and_requests_of_each_pass(table):
    made, one = table
    (bench, guidellm), notes = made([one("bench", 0.1), one("bench", 0.1), one("guidellm", 0.4)])
    assert bench[0] == "64"
    assert bench[1].startswith("[bench](")
    assert bench[-2:] == ["481", "320 of 321, 320 of 321"]
    assert guidellm[-2] == "-"
    assert guidellm[4].endswith(" *")
    assert "no time for each token" in notes


def test_a_peer_that_fails_has_a_row_with_why_and_the_rest_have_values(table):
    made, one = table
    (bench, guidellm), _ = made([one("bench", 0.1)], {("guidellm", None): "no such package"})
    assert bench[2] == "**0.10**"
    assert guidellm[2:] == ["not measured: no such package", *["-"] * 8]


def test_a_pass_of_a_peer_that_failed_in_another_is_the_best_of_none(table):
    made, one = table
    measured = [one("bench", 0.3), one("guidellm", 0.1)]
    (bench, guidellm), _ = made(measured, {("guidellm", 64): "it ended with code 1"})
    assert bench[2] == "**0.30**"
    assert guidellm[2:] == ["not measured: it ended with code 1", *["-"] * 8]


def test_a_late_server_is_told(table):
    made, one = table
    _, notes = made([one("bench", 0.1, late_s=0.002)], asked=("bench",))
    assert "over 1 ms late (p99) in 1 of 1: 64 streams of bench" in notes


def test_a_busy_machine_marks_the_table_and_a_quiet_one_does_not(peers):
    preface = peers["side_by_side"].preface
    assert "**The machine was not known to be quiet" in preface(2, "native", 0.5)
    assert "**The machine was not known to be quiet" in preface(2, "native", None)
    assert "The machine was not known to be quiet" not in preface(2, "native", 0.02)


# --- commands and environments -----------------------------------------------------------------------------


def test_each_command_is_whole_and_every_version_is_pinned(peers, tmp_path):
    clients, tools = peers["clients"], peers["tools"]
    case = clients.Case(64, 100, window_s=5.0)
    for peer in tools.peers().values():
        folder = tmp_path / peer.name
        folder.mkdir()
        client = tools.client_of(peer, tmp_path / "bin" / "python")
        argv = client.argv(case, "http://127.0.0.1:1/v1", folder)
        assert argv[0].startswith(str(tmp_path / "bin"))
        assert not any("{" in word and '{"' not in word for word in argv)
        assert not peer.command or any("64" in word for word in argv)
        assert all(
            "==" in word or word.startswith("-") or word.endswith(("txt", "lock")) for word in peer.packages
        )
        assert peer.name in tools.READERS


def test_a_title_has_the_version_that_is_installed(peers):
    found = {name: peer.title for name, peer in peers["tools"].peers().items()}
    file = (ROOT / "benchmarks" / "peers" / "peers.toml").read_text()
    assert re.findall(r'^title = "(.*\d.*)"', file, re.MULTILINE) == []
    pinned = dict(re.findall(r'"([a-z]+)==([\w.]+)"', file))
    for name in ("locust", "aiperf", "guidellm", "sglang"):
        assert f" {pinned[name]}" in found[name]
    assert found["sglang-rust"] == f"SGLang rust_client {pinned['sglang']}"
    for device in ("cpu", "cuda"):
        lock = (ROOT / "engines" / "locks" / f"vllm-{device}.txt").read_text()
        [version] = re.findall(r"^vllm(?:-cpu)?==(\S+)", lock, re.MULTILINE)
        assert found["vllm"] == f"vllm bench serve {version}"


def test_the_line_above_the_table_has_the_version_and_the_commit_of_bench(peers):
    line, _, _ = peers["side_by_side"].preface(2, "native", 0.02).partition("\n")
    said = ["git", "-C", ROOT, "rev-parse", "HEAD"]
    commit = subprocess.run(said, capture_output=True, text=True, check=True).stdout[:12]
    assert f", bench {metadata.version('serving-bench')} ({commit}" in line


def test_a_peer_that_does_not_install_has_a_reason_of_one_line(peers, monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path))
    tools, side_by_side = peers["tools"], peers["side_by_side"]
    peer = tools.Peer(name="aiperf", title="X 1", page="", packages=["-r", str(tmp_path / "absent.txt")])
    with pytest.raises(MissingError, match=r"absent\.txt"):
        tools.python_for(peer)
    measured, sizes, failures = side_by_side.measure([peer], [16], 2, reference=None)
    assert (measured, sizes) == ([], {})
    assert "absent.txt" in failures["aiperf", None]
    assert "\n" not in failures["aiperf", None]


# One chat, as long as the server is asked for, and a file like SGLang's of when its tokens came.
SMALL_CLIENT = """
import json, sys, time, urllib.request
server, tokens, file = sys.argv[1:]
body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": int(tokens), "stream": True}
request = urllib.request.Request(f"{server}/v1/chat/completions", json.dumps(body).encode())
began_s = time.perf_counter()
with urllib.request.urlopen(request) as answer:
    came_s = [time.perf_counter() - began_s for line in answer if b'"content"' in line]
gaps_s = [after - before for before, after in zip(came_s, came_s[1:])]
with open(file, "w") as result:
    print(json.dumps({"ttfts": came_s[:1], "itls": [gaps_s], "errors": [""]}), file=result)
"""


@pytest.fixture
def small(peers, tmp_path, monkeypatch):
    """Return a peer that runs a Python source without packages, and writes a file like SGLang's."""
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    readers = peers["tools"].READERS
    nothing = tmp_path / "nothing.txt"
    nothing.touch()

    def peer(name: str, source: str):
        monkeypatch.setitem(readers, name, readers["sglang"])
        program = tmp_path / f"{name}.py"
        program.write_text(source)
        return peers["tools"].Peer(
            name=name, title=name, page="", packages=["-r", str(nothing)],
            command=f"{{python}} {program} {{server}} {{tokens}} {{folder}}/sglang.jsonl",
        )  # fmt: skip

    return peer


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="server and client have a core each")
def test_whatever_a_peer_does_costs_its_row_and_the_rest_run(peers, small, tmp_path):
    tools, side_by_side = peers["tools"], peers["side_by_side"]
    absent = tools.Peer(name="aiperf", title="X 1", page="", packages=["-r", str(tmp_path / "absent.txt")])
    empty = small("empty", SMALL_CLIENT + "\nopen(file, 'w').close()")
    endless = small("endless", SMALL_CLIENT.replace("came_s[:1]", "[1e308]"))
    asked = [absent, empty, endless, small("good", SMALL_CLIENT)]
    reference = selftest.find_reference("python", tmp_path)
    measured, sizes, failures = side_by_side.measure(asked, [1], 1, reference)
    assert [(each.peer, each.counted, each.sent) for each in measured] == [("good", 1, 1)]
    assert sizes.keys() == {"empty", "endless", "good"}
    assert failures.keys() == {("aiperf", None), ("empty", 1), ("endless", 1)}
    assert "absent.txt" in failures["aiperf", None]
    assert failures["empty", 1] == "sglang.jsonl is empty"
    assert failures["endless", 1].startswith("OverflowError(")
    table = peers["rows"].markdown(asked, [1], measured, sizes, failures).splitlines()[2:6]
    assert ["not measured: " in line for line in table] == [True, True, True, False]


def test_what_cannot_be_asked_for_is_refused(peers, capsys):
    for words in (["--only", "wrk"], ["--streams", "0"], ["--streams", "16,x"]):
        with pytest.raises(SystemExit):
            peers["side_by_side"].arguments(words)
    assert "wrk: choose from bench, locust, aiperf" in capsys.readouterr().err
