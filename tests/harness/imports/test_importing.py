"""Result files of other tools, as these wrote them against bench's reference server, come out as their own
summaries say, and never with a verdict."""

import json
import os
import shutil

import pytest
from bench_command import Place, told
from places import TESTS

from serving_bench.reports import open_run
from serving_bench.reports.checks.examine import clean_of, findings_of
from serving_bench.reports.data.tables import Chunks, chunk_totals
from serving_bench.reports.measures import values_of
from serving_bench.reports.page.document import page

DATA = TESTS / "data" / "foreign"
FILES = {
    "vllm": DATA / "vllm-0.32.0" / "result.json",
    "guidellm": DATA / "guidellm-0.8.1" / "benchmarks.json",
    "aiperf": DATA / "aiperf-0.13.0" / "profile_export.jsonl",
}
NAMES = {"vllm": "vllm bench serve", "guidellm": "GuideLLM 0.8.1", "aiperf": "AIPerf 0.13.0"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A place with a run of each tool's file, in a folder of its name."""
    made = Place(tmp_path_factory.mktemp("foreign"))
    for tool, path in FILES.items():
        done = told(made, "import", path, "--output", tool)
        assert (done.stdout, done.stderr) == (f"{tool}/report.html\n", "")
    return made


@pytest.fixture(scope="module")
def runs(place):
    return {tool: open_run(place.path / tool) for tool in FILES}


def figures(run) -> dict[str, float | None]:
    return {name: found.value for name, found in values_of(run)[1].items()}


# --- the same figures as the tool's own --------------------------------------------------------------------


def test_vllm_bench_has_the_figures_of_its_summary(runs):
    own, ours = json.loads(FILES["vllm"].read_text()), figures(runs["vllm"])
    for name, theirs in (("ttft_s.p50", "median_ttft_ms"), ("tpot_s.p50", "median_tpot_ms")):
        assert ours[name] == pytest.approx(own[theirs] / 1e3, rel=1e-6)
    for level, theirs in ((50, "median_itl_ms"), (99, "p99_itl_ms")):
        assert ours[f"itl_s.p{level}"] == pytest.approx(own[theirs] / 1e3, rel=1e-6)
    # It begins to count a moment before the first request, and ends a moment after the last.
    assert ours["output_tokens_per_s"] == pytest.approx(own["output_throughput"], rel=2e-3)
    assert ours["requests_per_s"] == pytest.approx(own["request_throughput"], rel=2e-3)
    assert ours["success_share"] == own["completed"] / own["num_prompts"]
    assert ours["output_tokens"] == own["total_output_tokens"] / own["completed"]


def test_guidellm_has_the_figures_of_its_summary(runs):
    own = json.loads(FILES["guidellm"].read_text())["benchmarks"][0]["metrics"]
    ours = figures(runs["guidellm"])
    same = {
        "ttft_s.p50": "time_to_first_token_ms",
        "tpot_s.p50": "inter_token_latency_ms",
        "e2e_s.p50": "request_latency",
    }
    for name, theirs in same.items():
        scale = 1e3 if theirs.endswith("_ms") else 1
        assert ours[name] == pytest.approx(own[theirs]["successful"]["median"] / scale, rel=1e-5)
    assert ours["output_tokens_per_s"] == pytest.approx(
        own["output_tokens_per_second"]["successful"]["mean"], rel=1e-6
    )
    assert ours["requests_per_s"] == pytest.approx(own["requests_per_second"]["successful"]["mean"], rel=1e-6)
    # No instants of chunks: nothing of them is made up.
    assert ours["itl_s.p50"] is None
    assert ours["tokens_per_chunk"] is None


def test_aiperf_has_the_figures_of_its_summary(runs):
    own = json.loads(FILES["aiperf"].with_name("profile_export_aiperf.json").read_text())
    ours = figures(runs["aiperf"])
    assert ours["ttft_s.p50"] == pytest.approx(own["time_to_first_token"]["p50"] / 1e3, rel=1e-6)
    assert ours["e2e_s.p50"] == pytest.approx(own["request_latency"]["p50"] / 1e3, rel=1e-5)
    for level in (50, 90, 95, 99):
        theirs = own["inter_chunk_latency"][f"p{level}"] / 1e3
        assert ours[f"itl_s.p{level}"] == pytest.approx(theirs, rel=1e-6)
    # Its own rate counts with its tokenizer, over a longer time.
    duration_s = own["benchmark_duration"]["avg"]
    served, counted = own["total_usage_completion_tokens"]["avg"], own["total_output_tokens"]["avg"]
    assert ours["output_tokens_per_s"] == pytest.approx(served / duration_s, rel=1e-6)
    assert own["output_token_throughput"]["avg"] == pytest.approx(counted / duration_s, rel=2e-3)


def test_tokens_without_chunks_are_spread_over_their_span():
    import numpy as np

    nothing = np.empty(0, dtype=np.int64)
    batch = Chunks(
        at_ns=nothing,
        of=nothing,
        tokens=np.array([8.0, 5.0]),
        is_ok=np.array([True, True]),
        in_window=np.array([True, True]),
        spans_ns=np.array([[500.0, 300.0], [1500.0, 300.0]]),
    )
    arrived = chunk_totals([batch], (0, 1000)).arrived
    # Half of the first answer came after the window; all of the second at one instant of it.
    assert arrived is not None
    assert arrived.sum() == pytest.approx(9.0)
    assert arrived[: len(arrived) // 2].sum() == pytest.approx(5.0)


# --- whose they are, and no verdict ------------------------------------------------------------------------


@pytest.mark.parametrize("tool", FILES)
def test_first_screen_says_who_measured(runs, tool):
    whole = page(runs[tool])
    first = whole[: whole.index('id="side')]
    assert f"Measured by {NAMES[tool]}, not by bench." in first
    assert "no winner and no verdicts" in first
    assert findings_of(runs[tool])[0].title == "Measured by another tool"
    for sentence in runs[tool].record.foreign.definitions:
        assert sentence in findings_of(runs[tool])[0].text


def test_what_bench_did_not_do_is_not_called_clean(runs):
    clean, _ = clean_of(runs["guidellm"])
    assert not {"The client was late", "The machine was busy or not fit", "Answers were cut short"} & {*clean}


def test_repeats_of_a_label_get_no_verdict(place):
    files, labels = [FILES["vllm"]] * 6, [word for name in "abc" for word in ("--label", name) * 2]
    assert told(place, "import", *files, *labels, "--output", "six").returncode == 0
    made = open_run(place.path / "six")
    assert [(each.deployment.label, each.repeat) for each in made.record.plan.starts] == [
        (name, repeat) for name in "abc" for repeat in (0, 1)
    ]
    assert told(place, "report", "six", "--output", "six.md").returncode == 0
    text = (place.path / "six.md").read_text()
    assert "No winner" in text
    assert "measured by vllm bench serve, not by bench" in text


def test_compare_shows_values_and_says_why_no_verdict(place):
    done = told(place, "compare", "vllm", "guidellm")
    assert done.returncode == 0
    assert "no verdicts: A was measured by vllm bench serve, not by bench" in done.stdout
    assert "ttft_s.p50" in done.stdout


def test_gate_refuses(place):
    done = told(place, "gate", "aiperf", "guidellm", "gate.metric=ttft_s.p50")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "aiperf: measured by AIPerf 0.13.0, not by bench, so it is not gated; bench compare shows its values"
    ]


@pytest.mark.parametrize("words", ["run --resume", "run repeats=9 --resume", "search --resume", "merge"])
def test_what_only_bench_can_go_on_with_is_refused(place, words):
    done = told(place, *words.split(), "aiperf")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("aiperf: was measured by AIPerf; ")


def test_an_imported_directory_is_as_any_other(place):
    assert told(place, "verify", "vllm").returncode == 0
    assert told(place, "view", ".").returncode == 0
    assert "measured by vllm bench serve, not by bench" in (place.path / "index.html").read_text()


def test_its_files_are_their_users_alone_and_name_no_secret(place, monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", "not-of-any-form-1")
    assert (
        told(place, "import", FILES["vllm"], "--label", "not-of-any-form-1", "--output", "own").returncode
        == 0
    )
    made = [place.path / "own", *(place.path / "own").rglob("*")]
    assert [path for path in made if path.stat().st_mode & 0o077] == []
    assert "not-of-any-form-1" not in "".join(open_run(place.path / "own").record.argv)


def test_a_request_that_was_never_sent_fails_and_moves_no_window(place, tmp_path):
    path = changed(tmp_path, "vllm", put("start_times", 8, value=0.0))  # it failed
    assert told(place, "import", path, "--output", "unsent").returncode == 0
    before, after = (figures(open_run(place.path / name)) for name in ("vllm", "unsent"))
    assert after["success_share"] == before["success_share"]
    assert after["output_tokens_per_s"] == before["output_tokens_per_s"]
    assert told(place, "report", "unsent").returncode == 0


def test_loads_of_unlike_limits_are_no_repeats(place, tmp_path):
    paths = []
    for users in (2, 64):
        made = tmp_path / f"{users}.json"
        document = json.loads(FILES["vllm"].read_text())
        made.write_text(json.dumps({**document, "request_rate": 5.0, "max_concurrency": users}))
        paths.append(made)
    assert told(place, "import", *paths, "--output", "limits").returncode == 0
    starts = open_run(place.path / "limits").record.plan.starts
    found = [(start.repeat, start.cells[0].load.label) for start in starts]
    assert found == [(0, "5/s poisson, up to 2 at once"), (0, "5/s poisson, up to 64 at once")]
    assert told(place, "report", "limits").returncode == 0


def test_run_json_names_the_files(runs):
    foreign = runs["aiperf"].record.foreign
    assert foreign is not None
    assert list(foreign.files) == ["profile_export.jsonl", "profile_export_aiperf.json"]
    assert "what the server ran on, its settings and memory" in foreign.missing


# --- files that are not read -------------------------------------------------------------------------------


def changed(tmp_path, tool: str, change) -> str:
    """Copy a tool's folder, and change the decoded document (of AIPerf the first record)."""
    folder = shutil.copytree(FILES[tool].parent, tmp_path / tool)
    path = folder / FILES[tool].name
    first, _, rest = path.read_text().partition("\n")
    document = json.loads(first)
    change(document)
    path.write_text("\n".join([json.dumps(document), rest]))
    return str(path)


def refused(tmp_path, *words: object) -> str:
    done = told(Place(tmp_path), "import", *words, "--output", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert not (tmp_path / "out").exists()
    (line,) = done.stderr.splitlines()
    return line.replace(f"{tmp_path}/", "")


def drop(*names: str):
    return lambda document: [document.pop(name) for name in names]


def put(*keys: object, value: object):
    def change(document):
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


_TIMINGS = ("benchmarks", 0, "requests", "successful", 0, "info", "timings")
BAD = (
    ("vllm", drop("ttfts", "itls"), "has no requests; vllm bench serve writes them with --save-detailed"),
    ("vllm", lambda made: made["ttfts"].pop(), "damaged: its lists are not equally long"),
    ("vllm", put("ttfts", 3, value="soon"), "Expected `float`, got `str` - at `$.ttfts[3]`"),
    ("vllm", put("start_times", 0, value=3e9), "instants of one load are more than a year apart"),
    ("vllm", put("itls", 0, value=[3.9e9] * 9), "instants of one load are more than a year apart"),
    ("vllm", put("output_lens", 0, value=2**60), "at `$.output_lens[0]`"),
    ("vllm", put("ttfts", 0, value=float("nan")), "cannot be read"),
    ("vllm", put("errors", value=["x"] * 39), "damaged: its lists are not equally long"),
    ("vllm", put("start_times", value=None), "at `$.start_times`"),
    ("guidellm", put("benchmarks", value=[]), "has no benchmark"),
    ("guidellm", put(*_TIMINGS, "request_start", value=-1.0), "request_start`"),
    ("guidellm", put("benchmarks", 0, "requests", "successful", value=[]), "has 3 of its 40 requests"),
    (
        "guidellm",
        put("benchmarks", 0, "config", "strategy", "type_", value="\x1b[2Jnew"),
        "its strategy is [2Jnew; synchronous, concurrent,",
    ),
    ("aiperf", put("metadata", "request_start_ns", value=None), "line 1: cannot be read"),
    ("aiperf", put("metrics", "time_to_first_token", "unit", value="s"), "Invalid enum value 's'"),
    ("aiperf", put("metadata", "request_start_ns", value=7), "more than a year apart"),
)


@pytest.mark.parametrize(("tool", "change", "why"), BAD)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, tool, change, why):
    assert why in refused(tmp_path, changed(tmp_path, tool, change))


def test_a_file_that_is_not_of_the_tool_that_was_named_is_told_what_is_read(tmp_path):
    path = tmp_path / "w.json"
    path.write_text('{"median_ttft_ms": 3}')
    assert refused(tmp_path, f"vllm={path}").endswith("vllm bench serve's with --save-detailed are read")


def test_an_import_tells_programs_its_directory(tmp_path):
    done = told(Place(tmp_path), "import", FILES["guidellm"], "--output", "out", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (
        0,
        {"directory": "out", "report": "out/report.html"},
    )
    assert (tmp_path / "out/report.html").is_file()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (FILES["guidellm"].read_bytes()[:60_000], "cannot be read: Input data was truncated"),
        (b'{"metrics": {"http_reqs": 3}}', "not a result file that bench reads"),
        (b"[" * 100_000, "cannot be read"),
        (b"", "cannot be read: Input data was truncated"),
        (b"\xff\xfe\x00", "not a result file that bench reads; AIPerf's"),
        (b"# A text\n", "not a result file that bench reads; AIPerf's"),
    ],
    ids=["torn", "other", "deep", "empty", "binary", "text"],
)
def test_what_no_tool_wrote_is_refused_in_one_line(tmp_path, content, why):
    path = tmp_path / "some.json"
    path.write_bytes(content)
    assert why in refused(tmp_path, path)


def test_other_things_than_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 1 << 40)
    assert "not a regular file" in refused(tmp_path, tmp_path / "pipe")
    assert "more than the 268,435,456 that are read" in refused(tmp_path, tmp_path / "huge")
    assert "no such file; AIPerf's" in refused(tmp_path, tmp_path / "none.json")
    assert "no such tool or file; did you mean" in refused(tmp_path, f"aipref={FILES['aiperf']}")


def test_aiperf_needs_all_its_records_and_its_summary(tmp_path):
    summary = FILES["aiperf"].with_name("profile_export_aiperf.json")
    assert "give profile_export.jsonl, which is beside it" in refused(tmp_path, summary)
    alone = tmp_path / "profile_export.jsonl"
    lines = FILES["aiperf"].read_text().splitlines(keepends=True)
    alone.write_text("".join(lines[:30]))
    assert "needs AIPerf's profile_export_aiperf.json beside it" in refused(tmp_path, alone)
    shutil.copy(summary, tmp_path)
    assert "has 30 of the 40 requests" in refused(tmp_path, alone)
    alone.write_text("".join(lines)[:-20])
    assert "line 40: cannot be read" in refused(tmp_path, alone)


def test_files_of_two_tools_are_not_one_run(tmp_path):
    assert "import each tool's by themselves" in refused(tmp_path, FILES["vllm"], FILES["aiperf"])
    assert "1 given for 2 files" in refused(tmp_path, FILES["vllm"], FILES["vllm"], "--label", "a")


def test_hostile_words_are_text(tmp_path):
    evil = "<script>alert(1)</script>\x1b[2J api_key=sk-aaaaaaaaaaaaaaaaaaaaaaaa"

    def change(document):
        document["model_id"] = evil
        document["errors"] = [evil if each else each for each in document["errors"]]

    path = changed(tmp_path, "vllm", change)
    assert told(Place(tmp_path), "import", path, "--output", "out").returncode == 0
    whole = page(open_run(tmp_path / "out"))
    assert "&lt;script&gt;alert(1)" in whole
    assert "<script>alert" not in whole
    everything = b"".join(each.read_bytes() for each in (tmp_path / "out").rglob("*") if each.is_file())
    assert b"sk-aaaa" not in everything
    assert b"\x1b" not in (tmp_path / "out" / "run.json").read_bytes()
