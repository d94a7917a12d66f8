"""What a person sees while `bench run` measures: a panel on a terminal, lines in a pipe."""

import json
import os
import pty
import re
import signal
import weakref
from collections.abc import Callable, Iterator, Sequence
from subprocess import DEVNULL, Popen

import pytest
from bench_command import BENCH, Place, quick, side_by_side
from terminal import Ended, on_terminal
from waiting import patient, wait_until

from serving_bench.harness.cli.terminal import signals_interrupt
from serving_bench.harness.errors import Interrupted

RUN = (
    "run",
    *quick("load.duration=3s", "load.concurrency=2"),
    "reference.fault=http@500/5",
    "--output",
    "run",
)
RESULT = (
    r"cell 001 reference, 2 users: completed, \d+ requests, [\d,.]+ tokens/s, TTFT p50 [\d.]+ ms \(n=\d+\)"
)
HEADS = ["output", "to", "the", "leader", "TTFT", "p50", "TPOT", "p50", "peak", "memory"]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SHOW_CURSOR = "\x1b[?25h"


def unfolded(words: str) -> str:
    return " ".join(words.split())


def watched(place: Place) -> Ended:
    return on_terminal([BENCH, *RUN], place.path, place.environment())


def interrupted(place: Place) -> Ended:
    """Ctrl-C once the panel shows the load, on a narrow terminal without colours."""
    sent: list[int] = []

    def interrupt(shown: str, process: Popen[str]) -> None:
        if "window, " in shown and not sent:
            sent.append(process.pid)
            process.send_signal(signal.SIGINT)

    words = ("run", *quick("load.duration=60s"), "--output", "run")
    environment = place.environment(NO_COLOR="1")
    return on_terminal([BENCH, *words], place.path, environment, columns=40, on_text=interrupt)


TWO = ("reference.itl=20ms,40ms", "repeats=3", "load.concurrency=2", "load.duration=1s")


def compared(place: Place) -> Ended:
    words = ("run", *quick(*TWO), "--json", "--output", "run")
    return on_terminal([BENCH, *words], place.path, place.environment())


STORIES = {each.__name__: each for each in (compared, watched, interrupted)}


@pytest.fixture
def heeds_hup() -> Iterator[None]:
    """What is begun heeds SIGHUP, which `nohup` has ignored for all that comes of it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    with side_by_side(tmp_path_factory.mktemp("terminal"), STORIES) as runs:
        yield {name: run.result() for name, run in runs.items()}


@pytest.mark.parametrize(
    "said",
    [
        r"run      0 of 1 cell after \d+ s, (about|at least) \d+ s left [━╌]+",
        r"now      reference; start 1",
        r"phase    starting, \d+ s",
        r"now      reference, 2 users; start 1",
        r"phase    window, \d of 3 s",
        r"lately   [\d,.]+ tokens/s; TTFT p50 ([\d.]+ ms|from 11 requests on).* \(last \d s, n=\d+\)",
        r"requests [\d,]+ ok, [1-9]\d* failed \([1-9]\d* http_error\)",
        r"server   \d running, \d waiting; memory [\d.]+ MiB \(RSS of its processes\)",
        r"client   [012] in flight; event loop lag p99 [\d.]+ ms",
    ],
)
def test_a_terminal_shows_the_run_the_cell_and_its_figures(runs, said):
    assert re.search(said, runs["watched"].words)


def test_the_panel_goes_and_the_lines_stay(runs):
    ended = runs["watched"]
    assert (ended.code, ended.stdout) == (0, "run/report.html\n")
    assert re.search(RESULT, unfolded(ended.words))
    after = ended.shown.rpartition(SHOW_CURSOR)[2]
    assert "lately" not in after
    assert "writing the report" in after


def test_without_colours_and_on_forty_columns_it_says_the_same_in_short(runs):
    ended = runs["interrupted"]
    assert set(re.findall(r"\x1b\[([0-9;]*)m", ended.shown)) <= {"0", "1"}, "bold is no colour"
    panel = [line for line in re.split(r"[\r\n]+", ended.words) if line.startswith(("lately", "server"))]
    assert panel
    assert max(map(len, panel)) <= 40


def test_ctrl_c_takes_the_panel_away(runs):
    ended = runs["interrupted"]
    assert (ended.code, ended.stdout) == (130, "")
    after = ended.shown.rpartition(SHOW_CURSOR)[2]
    assert "nothing was measured yet; `bench run --resume run` goes on with it" in unfolded(ended.words)
    assert "lately" not in after


def test_after_each_repeat_but_the_last_the_standing_is_told_and_stays_in_the_panel(runs):
    said = unfolded(runs["compared"].words)
    standing = r"reference itl=20ms ahead(, | by )[\d.]+( %|x), not yet decided"
    for repeat in (1, 2):
        rest = r"\(next reference itl=40ms; output tokens/s at 2 users\); about [\d.]+ (s|minutes) left"
        assert re.search(f"after {repeat} of 3 repeats: {standing} {rest}", said)
    assert "after 3 of 3" not in said
    assert re.search(f"standing {standing}", said)


def test_at_the_end_stand_the_answer_and_the_table_of_five_columns_within_the_terminal(runs):
    after = ESCAPES.sub("", runs["compared"].shown.rpartition(SHOW_CURSOR)[2])
    assert "reference itl=20ms." in after
    assert "It measures bench itself: there is nothing to serve." in after
    lines = after.splitlines()
    assert max(map(len, lines)) <= 80
    top = next(place for place, line in enumerate(lines) if line.split() == HEADS)
    assert lines[top + 1].split()[0] == "deployment"
    rows = unfolded(" ".join(line[:18] for line in lines[top + 2 : top + 6]))
    assert rows.startswith("reference"), "the faster one first"
    assert 0 < rows.index("itl=20ms") < rows.index("itl=40ms")
    assert re.search(r"▲ \d+ reasons? to distrust this(; the first)?: ", unfolded(after))


def test_json_is_one_document_on_stdout_and_progress_stays_on_stderr(runs):
    ended = runs["compared"]
    found = json.loads(ended.stdout)
    assert (ended.code, found["exit_code"], found["report"]) == (0, 0, "run/report.html")
    [answer] = found["answers"]
    first, second = answer["rows"]
    assert (first["deployment"], second["deployment"]) == ("reference itl=20ms", "reference itl=40ms")
    speed = first["values"]["output_tokens_per_s"]
    assert speed["value"] > second["values"]["output_tokens_per_s"]["value"] > 0
    assert (speed["unit"], speed["starts"]) == ("tokens/s", 3)
    narrow = ["output_tokens_per_s", "ttft_s.p50", "tpot_s.p50", "memory_peak_bytes"]
    assert list(first["values"])[:4] == narrow
    assert (found["cells"]["planned"], found["cells"]["failed"]) == (6, [])
    assert [each["repeats"] for each in found["standings"]] == [1, 2]
    assert {each["leader"] for each in found["standings"]} == {first["deployment"]}
    assert unfolded(answer["sentence"]) in unfolded(ended.words)


def closed(place: Place, words: Sequence[str], is_time: Callable[[str], object]) -> int:
    """Return the exit code of a run whose terminal is closed as soon as it is time, by what was shown."""
    ours, theirs = pty.openpty()
    with Popen(
        [BENCH, "run", *words, "--output", "run"], cwd=place.path, env=place.environment(TERM="xterm"),
        stdin=DEVNULL, stdout=theirs, stderr=theirs,
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = ""
        # A terminal that nobody reads blocks who writes there.
        while not is_time(shown):
            shown += os.read(ours, 65536).decode(errors="replace")
        os.close(ours)
        process.send_signal(signal.SIGHUP)
        return process.wait(patient(60))


def test_a_run_whose_terminal_is_closed_leaves_its_page(tmp_path, heeds_hup):
    place = Place(tmp_path)
    # The second lasts 8 s with this seed: it is under way when the signal comes, however slow the machine is.
    words = quick("load.duration=1s,8s", "seed=4")
    assert closed(place, words, lambda _: place.rows_so_far(2) >= 1) == 129
    assert place.run()["status"] == "interrupted"
    assert place.report().endswith("</html>")


def test_a_terminal_that_is_closed_while_the_report_is_written_costs_nothing(tmp_path, heeds_hup):
    place = Place(tmp_path)
    assert closed(place, quick(), lambda shown: "writing the report" in shown) == 0
    assert place.run()["status"] == "completed"
    assert place.report().endswith("</html>")


def test_an_interrupt_in_a_callback_where_python_drops_it_comes_again():
    class Watched:
        pass

    watched = Watched()
    reference = weakref.ref(watched, lambda _: os.kill(os.getpid(), signal.SIGTERM))

    def lose() -> None:
        nonlocal watched
        with signals_interrupt():
            del watched
            wait_until(lambda: False, 5)

    with pytest.raises(Interrupted) as raised:
        lose()
    assert reference() is None
    assert raised.value.exit_code == 143
