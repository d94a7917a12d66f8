"""The fixed sentences of reports, as they are in tests/data/sentences.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

from serving_bench.harness.contracts import sentences
from serving_bench.reports.checks import bounds, ledger, starts, unequal_work, windows
from serving_bench.reports.checks.examine import CHECKS
from serving_bench.reports.two_runs import answers, compare, gate
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
    *(bounds, ledger, starts, unequal_work, windows, answers, compare, gate),
)


def texts_in(value: object) -> list[str]:
    """Return the texts of a constant that are more than a word."""
    if isinstance(value, str):
        return [value] if " " in value else []
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else ()
    return [text for part in parts for text in texts_in(part)]


def constants(module: ModuleType) -> dict[str, list[str]]:
    """Return the texts of a module's constants, by their names."""
    texts = {name: texts_in(value) for name, value in vars(module).items() if name.isupper()}
    return {name: each for name, each in texts.items() if each}


@pytest.mark.parametrize("check", CHECKS, ids=lambda each: each.name)
def test_a_check_says_what_it_looks_for_and_what_to_do(check):
    assert [check.title, check.text, check.remedy] == SENTENCES[check.name]


@pytest.mark.parametrize("module", MODULES, ids=lambda each: each.__name__.rpartition(".")[2])
def test_the_words_of_a_module_read_as_they_should(module):
    name = module.__name__.rpartition(".")[2]
    assert constants(module) == SENTENCES[name]


def test_the_sentence_of_each_fact_reads_as_it_should():
    assert SENTENCES["facts"] == sentences.SENTENCES
