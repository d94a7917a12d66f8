"""Charts as pictures: whole and readable alone, in a real Chromium; and what is said where there is none."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest
from make_run import full_run
from repeated_run import repeated_run, three
from waiting import number_in, wait_until

from harness.errors import BenchError, MissingError
from reports import open_run
from reports.outputs.pictures import VARIABLE, chosen, pictures, program

SVG = "{http://www.w3.org/2000/svg}"
TTFT, RATIOS = "ttft_s-p50-0", "verdicts-output_tokens_per_s-0"


@pytest.fixture(scope="module")
def chromium():
    try:
        return program()
    except MissingError as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return open_run(repeated_run(tmp_path_factory.mktemp("three"), three(), repeats=3))


def drawn(run, *names: str, **look) -> list[bytes]:
    charts = [placed for name in names for placed in chosen(run, name)]
    return list(pictures(run, charts, **look).values())


@pytest.fixture(scope="module")
def svgs(chromium, run) -> list[bytes]:
    return drawn(run, TTFT, RATIOS, format_="svg")


def words_of(svg: bytes) -> list[str]:
    return ["".join(each.itertext()) for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def pixels(png: bytes) -> tuple[int, int, list[bytes]]:
    """Width, height and rows of an RGB or RGBA PNG whose rows have no other filter than is undone here."""
    width, height, depth, kind = struct.unpack(">IIBB", png[16:26])
    assert (png[:8], depth) == (b"\x89PNG\r\n\x1a\n", 8)
    size, packed, at = {2: 3, 6: 4}[kind], b"", 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        packed += png[at + 8 : at + 8 + length] if png[at + 4 : at + 8] == b"IDAT" else b""
        at += length + 12
    raw, rows, before = zlib.decompress(packed), [], bytearray(width * size)
    for number in range(height):
        begin = number * (width * size + 1)
        row = bytearray(raw[begin + 1 : begin + 1 + width * size])
        _unfilter(raw[begin], row, before, size)
        rows.append(bytes(row))
        before = row
    return width, height, [b"".join(row[k : k + 3] for k in range(0, len(row), size)) for row in rows]


def _unfilter(kind: int, row: bytearray, before: bytearray, size: int) -> None:
    """https://www.w3.org/TR/png/#9Filters"""
    for k in range(len(row)):
        left, up = (row[k - size] if k >= size else 0), before[k]
        corner = before[k - size] if k >= size else 0
        guess = left + up - corner
        paeth = min((left, up, corner), key=lambda each: abs(guess - each))
        row[k] = (row[k] + (0, left, up, (left + up) // 2, paeth)[kind]) % 256


@pytest.mark.browser
@pytest.mark.long
def test_an_svg_has_title_names_and_note_as_text_and_no_script(svgs, run):
    for svg, name in zip(svgs, (TTFT, RATIOS), strict=True):
        root, chart = ElementTree.fromstring(svg), chosen(run, name)[0][0]
        said = " ".join(words_of(svg))
        assert chart.title in said
        assert "run r1, 2026-01-02" in said
        assert all(label in said for label in ("llama_cpp gguf-q8_0", "vllm fp16"))
        assert not list(root.iter(f"{SVG}script"))
        assert not [key for each in root.iter() for key in each.attrib if key.startswith("on")]
        assert (root.get("width"), root.find(f"{SVG}title").text) == ("900", chart.title)


@pytest.mark.browser
@pytest.mark.long
def test_a_note_is_broken_and_whole(svgs, run):
    note = chosen(run, RATIOS)[0][0].note
    assert note in " ".join(words_of(svgs[1]))


@pytest.mark.browser
@pytest.mark.long
def test_an_svg_asks_for_nothing_from_elsewhere(svgs):
    for svg in svgs:
        links = [value for each in ElementTree.fromstring(svg).iter() for key, value in each.attrib.items()
                 if key.endswith(("href", "src"))]  # fmt: skip
        assert all(link.startswith(("#", "data:")) for link in links)


@pytest.mark.browser
@pytest.mark.long
@pytest.mark.parametrize(("theme", "is_dark"), [("light", False), ("dark", True)])
def test_a_png_has_twice_the_width_the_themes_ground_and_a_chart(chromium, run, theme, is_dark):
    [png] = drawn(run, TTFT, format_="png", theme=theme, width_px=600, height_px=480)
    width, height, rows = pixels(png)
    assert (width, height) == (1200, 960)
    ground = rows[0][:3]
    assert (max(ground) < 80) if is_dark else (ground == b"\xff\xff\xff")
    colours = Counter(row[k : k + 3] for row in rows for k in range(0, len(row), 3))
    assert len(colours) > 50
    assert colours[ground] > 0.7 * width * height


@pytest.mark.browser
@pytest.mark.long
def test_a_picture_too_low_for_its_key_and_its_plot_grows(chromium, run):
    [png] = drawn(run, TTFT, format_="png", width_px=400, height_px=200)
    width, height, _ = pixels(png)
    assert width == 800
    assert height > 400


@pytest.mark.browser
@pytest.mark.long
def test_hostile_names_are_words_in_the_picture(chromium, tmp_path):
    [svg] = drawn(open_run(full_run(tmp_path)), TTFT, format_="svg", width_px=390)
    root = ElementTree.fromstring(svg)
    assert not [
        each for each in root.iter() if each.tag.rpartition("}")[2] in ("script", "img", "foreignObject")
    ]
    assert "<script>document.title='pwned'</script>" in "".join(words_of(svg))


@pytest.mark.browser
@pytest.mark.long
def test_nothing_is_left_of_chromium(chromium, run, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    drawn(run, TTFT, format_="svg")
    assert [
        p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or ())
    ] == []
    assert list(tmp_path.iterdir()) == []


# --- without one ----------------------------------------------------------------------------------


def test_without_a_chromium_it_says_what_to_install(monkeypatch, run):
    monkeypatch.setenv("PATH", "/absent")
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(MissingError, match=r"need an installed Chromium, Chrome or Edge on PATH") as caught:
        drawn(run, TTFT, format_="png")
    assert caught.value.exit_code == 2
    monkeypatch.setenv(VARIABLE, "/absent/chromium")
    with pytest.raises(MissingError, match=r"BENCH_CHROMIUM=/absent/chromium: no such program"):
        program()


def script(path: Path, *lines: str) -> str:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return str(path)


def test_a_chromium_that_ends_at_once_is_one_line(monkeypatch, tmp_path, run):
    monkeypatch.setenv(VARIABLE, script(tmp_path / "chromium", "exit 1"))
    said = r"chromium ended before it had drawn; give the path of another Chromium in BENCH_CHROMIUM"
    with pytest.raises(MissingError, match=said) as caught:
        drawn(run, TTFT, format_="png")
    assert caught.value.exit_code == 2


def test_a_chromium_that_does_not_answer_is_ended_with_its_children(monkeypatch, tmp_path, run):
    sleep = f"{sys.executable} -c 'import time; time.sleep(600)' &"
    monkeypatch.setenv(
        VARIABLE, script(tmp_path / "chromium", sleep, f"echo $! > {tmp_path / 'child'}", "wait")
    )
    monkeypatch.setattr("reports.outputs.pictures._BEGIN_S", -3.5)
    with pytest.raises(BenchError, match=r"chromium did not answer in time"):
        drawn(run, TTFT, format_="png")
    child = number_in(tmp_path / "child")
    wait_until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
