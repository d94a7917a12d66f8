"""Facts and their sentences: each kind that the product names has one, with the values it needs."""

import ast
import re
import string
from collections.abc import Iterator
from functools import cache

import pytest
from places import ROOT

from serving_bench.harness.contracts import because, quoted
from serving_bench.harness.contracts.sentences import SENTENCES


@cache
def nodes() -> list[tuple[str, ast.AST]]:
    """Return each node of the product's syntax trees with its place, without the table of the sentences."""
    paths = [
        path
        for folder in ("harness", "engines", "scenarios", "reports")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]
    return [
        (f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node)
        for path in paths
        for statement in ast.parse(path.read_text(encoding="utf-8")).body
        if not (isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == "SENTENCES")
        for node in ast.walk(statement)
    ]


def calls() -> Iterator[tuple[str, list[str], ast.Call]]:
    """Yield the place and the kinds of each call of `because` that names them: one, or two of a condition."""
    for place, node in nodes():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "because":
            kind = node.args[0]
            options = [kind.body, kind.orelse] if isinstance(kind, ast.IfExp) else [kind]
            yield place, [str(each.value) for each in options if isinstance(each, ast.Constant)], node


def names_in(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_each_kind_that_is_named_has_a_sentence() -> None:
    kinds = [(place, kind) for place, kinds, _ in calls() for kind in kinds]
    assert len(kinds) > 100
    assert [each for each in kinds if each[1] not in SENTENCES] == []


def test_each_call_gives_the_values_that_its_sentence_uses() -> None:
    wrong = []
    for place, kinds, call in calls():
        given = {each.arg for each in call.keywords if each.arg}
        for kind in kinds:
            used = names_in(SENTENCES[kind])
            may_lack = any(each.arg is None for each in call.keywords)
            may_have_more = len(kinds) > 1
            if (used - given and not may_lack) or (given - used and not may_have_more):
                wrong.append((place, kind, given ^ used))
    assert wrong == []
    # In a record a fact's kind stands among its values.
    assert [kind for kind, text in SENTENCES.items() if "kind" in names_in(text)] == []


def test_each_sentence_is_used() -> None:
    literals = {node.value for _, node in nodes() if isinstance(node, ast.Constant)}
    assert set(SENTENCES) - literals == set()


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        (because("few_have_value", k=1, starts=3), "only 1 of 3 starts has a value"),
        (because("few_have_value", k=2, starts=3), "only 2 of 3 starts have a value"),
        (because("few_scores", items=1), "1 item with a score is too few"),
        (because("few_scores", items=4), "4 items with a score are too few"),
        (because("few_texts", items=1, tokens=1234), "only 1 text, 1,234 tokens"),
        (because("verdict_needs_starts", needed=3, counts=(2, 1)),
         "a verdict needs 3 starts of each or more, here 2 and 1"),
        (because("lengths_differ", what="answers", tokens=(1000.0, 9.5)),
         "their answers have different lengths: 1,000.0 and 9.5 tokens"),
        (because("unfit_before", fact=because("disk_low", free_mib=12.4, directory="results")),
         "12 MiB are free for results (before the cell)"),
        (because("few_files", files=256),
         "a process may open only 256 files, and each connection of an open loop is one"),
        (because("foreign_load_by_many", percent=60.4, least=5.0),
         "other programs used 60 % of the processor, but no visible program used 5 % or more"),
        (because("foreign_load_unseen", percent=60.4),
         "other programs used 60 % of the processor, none of it by a program that is visible from here"),
        (because("conversations_never_began", conversations=1),
         "1 conversation due before the window's end never began: the load was lower than asked for"),
        (because("widest_interval_times", metric="ttft_s.p50", times=2.345, case="tgi awq"),
         "the widest 95 % interval of ttft_s.p50 reaches 2.35 times the mean from its mean (tgi awq)"),
        (because("interval_needs_more_starts", needed=3, k=2),
         "an interval needs 3 starts or more, here 2"),
        (because("too_close", most=100),
         "needs more than 100 more repeats: the measured difference is close to the limit"),
        (because("value_unknown", n=7), "not known; n = 7"),
        (because("all", facts=(quoted("one\x1b[2J"), because("not_yet"))), "one [2J; not yet"),
        (because("of_side", side="B", why=because("failed", why=quoted("it died"))), "B: it failed: it died"),
        (because("prompts_differ_by_probe", a="A", b="B", counts="user 1 / 2",
                 causes=(because("system_prompt_dropped", label="A"),
                         because("one_token_more", more="B", less="A"))),
         "A drops the system prompt and B has exactly one token more in each prompt: a doubled BOS, or one "
         "that A lacks (tokens of the fixed prompts, A / B: user 1 / 2)"),
    ],
)  # fmt: skip
def test_a_fact_is_formatted_as_its_sentence(fact, words):
    assert (str(fact), f"{fact}") == (words, words)


def test_a_kind_without_a_sentence_is_refused() -> None:
    with pytest.raises(ValueError, match="no sentence for unheard_of"):
        because("unheard_of")


def test_facts_are_equal_by_kind_and_values_and_no_texts() -> None:
    assert because("not_in", side="B", what="x") == because("not_in", what="x", side="B")
    assert because("not_yet") != "not yet"
    assert because("needs_repeats", repeats=2) != because("needs_repeats", repeats=3)


def test_a_reason_is_a_fact_and_no_text_outside_of_what_shows_it() -> None:
    folders = ("data", "measures", "stats", "verdicts", "checks", "two_runs")
    files = [path for folder in folders for path in (ROOT / "reports" / folder).rglob("*.py")]
    files += [ROOT / "harness" / "store" / "records.py", ROOT / "harness" / "contracts" / "plans.py"]
    texts = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            kind = None
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name, kind = node.target.id, node.annotation
                kind = kind if re.fullmatch(r"why\w*|reasons?|few|stopped_because", name) else None
            elif isinstance(node, ast.FunctionDef):
                name = node.name
                kind = node.returns if re.fullmatch(r"_?why_\w+|withheld|few|unlike", name) else None
            if kind is not None and re.search(r"\bstr\b(?!\w*,)", ast.unparse(kind)):
                texts.add(f"{path.relative_to(ROOT)}:{name}")
    assert texts == set()
