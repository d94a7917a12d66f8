"""A run as Markdown: its answer and table, folded rest, and nothing in it that a forge would act on."""

import re
from dataclasses import replace

import pytest
from make_run import HOSTILE, deployment, empty_run
from repeated_run import LOADS, Made, repeated_run, three
from test_searches import write_search

from serving_bench.harness.contracts import Objective, Skip, quoted
from serving_bench.harness.store import store
from serving_bench.reports import open_run
from serving_bench.reports.checks.examine import examine
from serving_bench.reports.checks.finding import Finding
from serving_bench.reports.data import command
from serving_bench.reports.outputs import as_markdown
from serving_bench.reports.outputs.as_markdown import markdown_text
from serving_bench.reports.words.answer import answers_of
from serving_bench.reports.words.described import question

TRAPS = f"`x` @team #12 https://evil.example www.evil.example \u202e | a\\| {HOSTILE} \n\n# head\x07"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return open_run(repeated_run(tmp_path_factory.mktemp("three"), three()))


@pytest.fixture(scope="module")
def text(run):
    return markdown_text(run)


def tables_in(text: str) -> list[list[str]]:
    """The lines of each table."""
    return [found.splitlines() for found in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]


def cells(line: str) -> int:
    """As GitHub parts a row: at bars, where a backslash and the sign behind it are one."""
    return len(re.sub(r"\\[!-/:-@\[-`{-~]", "", line).strip("|").split("|"))


def outside_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE))


def test_it_has_question_answer_reasons_and_command(run, text):
    lines, [said] = text.splitlines(), answers_of(run)
    assert lines[0] == f"### {question(run)}"
    assert lines[2].startswith(f"**{said.lead}.** {said.text}".partition(", llama_cpp")[0])
    items = re.findall(r"^- \*\*.+\*\*: .+ \*.+\*$", text, re.MULTILINE)
    assert f"#### {len(items)} reasons to distrust" in text
    assert f"```sh\n{command(run)}\n```" in text


def test_the_table_of_the_deciding_load_is_open_and_its_leader_bold(text):
    before, _, after = text.partition("<details><summary>At 1 user</summary>")
    assert "#### At 4 users" in before
    [table], [_] = tables_in(before), tables_in(after.partition("</details>")[0])
    assert table[0].startswith("| deployment | output tokens/s | against the leader | TTFT p50 ms |")
    value = r"\*\*41\.5 \\\[37\.\d, 45\.\d\\\]\*\*( ▲ \d)?"
    assert re.match(rf"\| `llama_cpp gguf-q8_0` \| {value} \| – \|", table[2])
    row = next(line for line in table if line.startswith("| `llama_cpp fp16` |"))
    assert re.search(r"\| 0\.80x \\\[0\.\d\d, 0\.\d\d\\\] \|", row)


def test_two_starts_have_no_ratio_and_their_range_in_round_brackets(full):
    text = markdown_text(full)
    assert "against the leader" not in text
    assert re.search(r"\| \d+\.\d+ \(\d+\.\d+–\d+\.\d+\)( ▲ \d)? \|", text)


def test_an_slo_is_told_at_the_highest_load_that_is_kept(tmp_path):
    slo = (Objective("ttft_s", 0.9, 0.15), Objective("success", 0.5))
    text = markdown_text(open_run(repeated_run(tmp_path, three(), slo=slo)))
    assert "#### At 4 users" in text
    assert tables_in(text)[0][0].startswith("| deployment | SLO | ")
    assert "| keeps it |" in text


def test_a_search_has_each_deployments_highest_load(tmp_path):
    text = markdown_text(open_run(write_search(tmp_path, [[4, 5, 4], [8, 10, 8]])))
    [table] = tables_in(text)
    assert len(table) == 4
    assert re.search(r"^\| `llama_cpp gguf-q4_k_m` \| 8 users \| ", table[2])


def test_a_run_that_was_cut_short_says_so(tmp_path):
    assert "**This run was cut short** (interrupted)." in markdown_text(open_run(empty_run(tmp_path)))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A run whose labels, settings, answers and errors are traps."""
    label = f"vllm {TRAPS}"
    other = replace(deployment("vllm", "fp16"), label=label)
    path = repeated_run(
        tmp_path_factory.mktemp("hostile"),
        [Made(deployment("llama_cpp", "fp16")), Made(other, 0.8)],
        settings={"scenario.path": (f"```{TRAPS}",)},
        environment={"machine": {"cpu_model": f"CPU {TRAPS}"}},
        start_changes=lambda start: {"weights": {"note": f"converted {TRAPS}"}},
    )
    return markdown_text(open_run(path))


def test_hostile_text_is_no_markup_no_mention_and_no_link(hostile):
    outside = outside_code(hostile)
    assert "TITLE" not in outside
    for trap in ("@team", "#12", "https://", "www.evil", "\u202e", "\x07"):
        assert trap not in outside
    tags = set(re.findall(r"(?<!\\)<[^>\s]*", outside))
    assert tags == {"<details", "<summary", "</summary", "</details"}
    assert "document.title" in outside
    assert [line for line in hostile.splitlines() if line.startswith("# ")] == []


def test_hostile_text_leaves_tables_and_code_whole(hostile):
    for table in tables_in(hostile):
        assert len({cells(line) for line in table}) == 1, table
    fences = [line for line in hostile.splitlines() if line.startswith("````")]
    assert len(fences) == 2


def test_long_reasons_and_skips_leave_room_for_the_answer_its_table_and_the_command(tmp_path):
    path = repeated_run(tmp_path, three()[:1], repeats=1, requests=12)
    skips = tuple(Skip(f"vllm awq {k}", quoted("no such weights " * 20)) for k in range(300))
    plan = replace(store.read_run(path).plan, skips=skips)
    store.write_record(path / "run.json", replace(store.read_run(path), plan=plan))
    run, words = open_run(path), "it is so " * 60
    found = [Finding(f"check_{k}", f"Reason {k}", words, "measure again") for k in range(200)]
    run.found_once[examine.__wrapped__,] = {each.check: each for each in found}
    text = markdown_text(run)
    assert "#### 200 reasons to distrust these numbers\n\n- **Reason 0**: it is so " in text
    assert "#### At 4 users" in text
    assert "```sh" in text
    assert "At 1 user<" in text
    assert "such weights" not in text
    assert text.endswith(f"\n\n{as_markdown._CUT}\n")


@pytest.mark.parametrize(("models", "length"), [(60, 1_500), (1, 15_000)])
def test_tables_that_have_no_room_are_left_out_whole(tmp_path, models, length):
    made = [
        Made(
            replace(deployment("vllm", "fp16"), model=f"model {k % models}", label=f"vllm {k} {'x' * length}")
        )
        for k in range(max(models, 5))
    ]
    text = markdown_text(open_run(repeated_run(tmp_path, made, loads=LOADS[:1], repeats=1, requests=4)))
    assert len(text) < 65_536
    assert text.endswith(f"\n\n{as_markdown._CUT}\n")
    assert text.count("<details>") == text.count("</details>")
    for table in tables_in(text):
        assert len({cells(line) for line in table}) == 1


@pytest.mark.parametrize(
    ("given", "plain"),
    [("a_b c", "a_b c"), ("_a_", r"\_a\_"), ("5 % [1, 2]", r"5 % \[1, 2\]"), ("a\nb\t c", "a b c"),
     ("<b>&amp;", r"\<b\>\&amp;"), ("x@y", "x@\u200by")],
)  # fmt: skip
def test_plain_text(given, plain):
    assert as_markdown.plain(given) == plain
