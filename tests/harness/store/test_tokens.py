"""Tokens counted with a tokenizer.json of the test's own, and what is said where there is none."""

import subprocess
import sys
from dataclasses import replace

import make_run
import pytest
from bench_command import Place, quick, told
from make_run import S
from tiny_tokenizer import train
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from serving_bench.harness.errors import UserError
from serving_bench.harness.store import store
from serving_bench.harness.store.tokenizer import read_tokenizer

TEXTS = ["the quick brown fox", "jumps over", "", "the lazy dog the lazy dog"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return train(TEXTS, tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


def test_texts_are_counted_one_by_one(path):
    expected = [len(Tokenizer.from_file(path).encode(text).ids) for text in TEXTS]
    assert read_tokenizer(path).count(TEXTS) == expected
    assert expected[0] >= 4
    assert expected[2] == 0


def test_special_tokens_are_not_counted_and_long_texts_are_not_cut(path, tmp_path):
    tokenizer = Tokenizer.from_file(path)
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=50)
    other = str(tmp_path / "other.json")
    tokenizer.save(other)
    assert read_tokenizer(other).count(TEXTS) == read_tokenizer(path).count(TEXTS)


def test_a_file_that_is_missing_or_no_tokenizer_is_one_line(tmp_path):
    damaged = tmp_path / "tokenizer.json"
    damaged.write_text('{"version": "1.0",\n "model": 7}')
    for path, said in ((tmp_path / "absent.json", "No such file"), (damaged, "not a tokenizer.json")):
        with pytest.raises(UserError, match=said) as caught:
            read_tokenizer(str(path))
        assert f"load.tokenizer={path}" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_run_says_so_before_anything_starts(tmp_path):
    (tmp_path / "damaged.json").write_text("{}")
    done = told(Place(tmp_path), "run", *quick("load.tokenizer=damaged.json"), "--output", "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"load.tokenizer={tmp_path / 'damaged.json'}: not a tokenizer.json (" in done.stderr
    assert not (tmp_path / "run" / "starts").exists()


def test_a_missing_package_is_one_line_that_says_what_to_install(tmp_path):
    """In an interpreter that has no package of that name to import."""
    program = (
        "import sys; sys.modules['tokenizers'] = None\n"
        "from serving_bench.harness import errors\n"
        "from serving_bench.harness.store.tokenizer import read_tokenizer\n"
        "try: read_tokenizer('t.json')\n"
        "except errors.UserError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "load.tokenizer=t.json: needs the package tokenizers; install 'tokenizers>=0.20' into bench's "
        "environment\n"
    )


def test_answers_and_reasoning_are_counted_while_the_table_is_written(path, tmp_path):
    tokenizer = read_tokenizer(path)
    said = make_run.row(0, S, output_text=TEXTS[0], reasoning_text=TEXTS[3], output_tokens=99)
    without = make_run.row(1, 2 * S, output_text=TEXTS[1], output_tokens=None, token_source=None)
    no_text = make_run.row(2, 3 * S, output_text="", output_tokens=None, token_source=None)
    cut = replace(
        make_run.failed_row(3, 4 * S, "reset"), output_text=TEXTS[0], chunk_ns=(5 * S,), token_source=None
    )
    make_run.write_requests(tmp_path, [said, without, no_text, cut], None, tokenizer)
    rows = store.read_requests(tmp_path).to_pylist()
    found = [(row["tokenizer_tokens"], row["output_tokens"], row["token_source"]) for row in rows]
    both, second, first = sum(tokenizer.count([TEXTS[0], TEXTS[3]])), *tokenizer.count([TEXTS[1], TEXTS[0]])
    assert found == [
        (both, 99, "server"),  # the server's count stays
        (second, second, "tokenizer"),
        (None, None, None),  # a tool call has no text: not known, and not 0
        (first, None, None),  # a failed request is no answer
    ]
