"""Paths as records name them, and the seal of a user's own records."""

import json
import os
from pathlib import Path

import pytest

from serving_bench.harness.cache import local, portable, seal_of


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "ho me"))
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "ho me" / "cache"))
    return tmp_path


TEXTS = [
    ("{home}/models/x.gguf", "~/models/x.gguf"),
    ("{home}", "~"),
    ("{home}/cache/weights", "$CACHE/weights"),
    ("--model={home}/x", "--model=~/x"),
    ("{home}/a:{home}/b/", "~/a:~/b/"),
    ('"{home}/a b"', '"~/a b"'),
    ("cannot open '{home}/x': gone", "cannot open '~/x': gone"),
    ("/data{home}/x", "/data{home}/x"),
    ("{home}2/x", "{home}2/x"),
    ("{home}.bak", "{home}.bak"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "stored"), TEXTS)
def test_a_record_names_home_and_cache_and_is_read_back_with_this_machines(text, stored, places):
    text, stored = (each.format(home=places / "ho me") for each in (text, stored))
    assert json.loads(portable(json.dumps(text).encode())) == stored
    assert local(stored) == text


def test_what_is_portable_stays_as_it_is(places):
    data = json.dumps([text.format(home=places / "ho me") for text, _ in TEXTS]).encode()
    assert portable(portable(data)) == portable(data)


def test_a_home_that_is_the_root_names_nothing(monkeypatch):
    monkeypatch.setenv("HOME", "/")
    assert portable(b'"/usr/bin/x"') == b'"/usr/bin/x"'


def test_a_seal_is_of_one_text_and_one_key(places, monkeypatch):
    first = seal_of(b"a")
    assert len(first) == 64
    assert seal_of(b"a") == first != seal_of(b"b")
    monkeypatch.setenv("BENCH_CACHE_DIR", str(places / "another"))
    assert seal_of(b"a") != first
    assert [path.name for path in (places / "another").iterdir()] == ["own.key"]


@pytest.mark.parametrize("harm", [lambda key: key.chmod(0o644), lambda key: key.write_bytes(b"short"),
                                  lambda key: (key.unlink(), key.symlink_to("/dev/zero"))])  # fmt: skip
def test_a_key_that_others_could_know_seals_nothing(harm, places):
    seal_of(b"a")
    key = places / "ho me" / "cache" / "own.key"
    harm(key)
    assert seal_of(b"a") == ""


def test_without_a_place_for_a_key_nothing_is_sealed(monkeypatch):
    monkeypatch.setenv("BENCH_CACHE_DIR", os.devnull)
    assert seal_of(b"a") == ""
