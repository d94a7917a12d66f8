"""The sentences of reports, fixed or built of values, as they are in tests/data/sentences.json."""

import ast
import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

from serving_bench.harness.contracts import sentences
from serving_bench.reports.checks import bounds, late_client, ledger, starts, unequal_work, windows
from serving_bench.reports.checks.examine import CHECKS
from serving_bench.reports.two_runs import answers, compare, gate, matching
from serving_bench.reports.words import (
    answer,
    claims,
    described,
    digest,
    grounds,
    quality,
    report,
    verdict_words,
)

PATH = Path(__file__).parents[2] / "data" / "sentences.json"
SENTENCES = json.loads(PATH.read_text(encoding="utf-8"))
MODULES = (
    *(answer, claims, described, digest, grounds, quality, report, verdict_words),
    *(bounds, late_client, ledger, starts, unequal_work, windows, answers, compare, gate, matching),
)


def texts_in(value: object) -> list[str]:
    """Return the texts of a constant that are more than a word."""
    if isinstance(value, str):
        return [value] if " " in value else []
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else ()
    return [text for part in parts for text in texts_in(part)]


def built(module: ModuleType) -> list[str]:
    """Return the texts of three words or more that a module's functions build, with {} for each value."""
    texts = []
    for function in ast.walk(ast.parse(inspect.getsource(module))):
        if not isinstance(function, ast.FunctionDef):
            continue
        nodes = [node for statement in function.body for node in ast.walk(statement)]
        parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
        parts |= {id(node.value) for node in nodes if isinstance(node, ast.Expr)}  # docstrings
        for node in nodes:
            if isinstance(node, ast.JoinedStr):
                each = [str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values]
                texts.append("".join(each))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
                texts.append(node.value)
    return sorted({text for text in texts if " " in text and len(re.findall("[A-Za-z]{2,}", text)) > 2})


def said_by(module: ModuleType) -> dict[str, list[str]]:
    """Return the texts of a module's constants by their names, and those that its functions build."""
    constants = {name: texts_in(value) for name, value in vars(module).items() if name.isupper()}
    return {name: texts for name, texts in {**constants, "built": built(module)}.items() if texts}


@pytest.mark.parametrize("check", CHECKS, ids=lambda each: each.name)
def test_a_check_says_what_it_looks_for_and_what_to_do(check):
    assert [check.title, check.text, check.remedy] == SENTENCES[check.name]


@pytest.mark.parametrize("module", MODULES, ids=lambda each: each.__name__.rpartition(".")[2])
def test_the_words_of_a_module_read_as_they_should(module):
    name = module.__name__.rpartition(".")[2]
    assert said_by(module) == SENTENCES[name]


def test_the_sentence_of_each_fact_reads_as_it_should():
    assert SENTENCES["facts"] == sentences.SENTENCES
