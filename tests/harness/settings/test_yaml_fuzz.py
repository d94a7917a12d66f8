"""Studies and claims in YAML: what is written is read, what is damaged is a line."""

from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from fuzzing import altered, assert_one_line, damaged, texts
from hypothesis import example, given
from hypothesis import strategies as st

from serving_bench.harness.claims import claim as claim_files
from serving_bench.harness.errors import UserError
from serving_bench.harness.settings.overrides import parse

# What PyYAML's constructors take for a date, a number, bytes or another kind, and then trip over.
PIECES = [
    b"2026-99-99", b"!!int x", b'!!int ""', b"!!float x", b"!!bool x", b"!!timestamp x", b"!!binary x",
    b"!!python/name:os.system", b"0x", b"1:" + b"9" * 4400, b"9" * 5000, b"<<: 3", b"? [a]\n: b", b"&a [*a]",
    b"*a", b'"\\ud800"', b".nan", b"\n- ", b"\n  ", b": ", b"{", b"[" * 3000, b"\xff", b"---\n", b"\t",
    b"!!set {a}",
]  # fmt: skip
STUDY = b"engine: [vllm, sglang]\nload.duration: 20s\nseed: 3\n"
LINES = tuple(islice(claim_files.known().values(), 3))
BOMB = b"a: &a [x, x]\n" + b"".join(
    b"%c: &%c [*%c, *%c]\n" % (98 + n, 98 + n, 97 + n, 97 + n) for n in range(24)
)
plain = st.text(st.characters(codec="ascii", categories=["Ll", "Nd"]), min_size=1, max_size=6)
scalars = st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | texts


@given(st.dictionaries(plain.map("load.{}".format), scalars | st.lists(scalars, min_size=1, max_size=3)))
def test_a_study_is_read_as_it_was_written(tmp_path: Path, said: dict[str, Any]) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(said), encoding="utf-8")
    assert parse([], path) == {k: tuple(v) if isinstance(v, list) else (v,) for k, v in said.items()}


@given(damaged(STUDY, PIECES))
@example(b"seed: !!timestamp x")
@example(b"seed: !!int ''")
@example(b"seed: !!bool x")
@example(b"seed: 2026-99-99")
@example(b'seed: "\\ud800"')
@example(b"".join(b"k%d: 1\n" % n for n in range(20_000)))
@example(BOMB)
def test_a_damaged_study_has_single_values_or_is_a_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    try:
        found = parse([], path)
    except UserError as error:
        assert_one_line(error, f"--from {path}: ")
        return
    assert all(isinstance(each, str | int | float | None) for values in found.values() for each in values)
    "".join(str(each) for values in found.values() for each in values).encode()


@given(
    st.sampled_from(LINES).flatmap(lambda path: damaged(path.read_bytes(), PIECES))
    | altered(yaml.safe_load(LINES[0].read_bytes())).map(lambda said: yaml.safe_dump(said).encode())
)
@example(b"[" * 3000)
@example(BOMB)
def test_a_damaged_claim_is_one_or_a_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "claim.yaml"
    path.write_bytes(content)
    try:
        found = claim_files.read(path)
    except UserError as error:
        assert_one_line(error, f"claim {path}: ")
        return
    assert all(each.words for each in found.predicates)
