"""How deployments look: what is fixed for an engine, what tells its deployments apart, and for whom."""

import itertools
import re
from importlib import resources

import pytest
from make_run import begin_run, deployment, served

from serving_bench.harness.contracts import Load
from serving_bench.reports import open_run
from serving_bench.reports.page.looks import CACHE, INKS, MEMORY, STAGES, looks, named

ENGINES = ("vllm", "sglang", "tgi", "llama_cpp", "transformers", "openai", "reference")
# A difference that is seen at once; 2.3 is one that is just seen.
APART = 12.0
# How dichromats see linear RGB (Machado, Oliveira and Fernandes 2009, severity 1).
VISION = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}  # fmt: skip


def looks_of(path, *wanted):
    begin_run(path, wanted, [Load(1)])
    return looks(open_run(path))


def test_an_engine_has_its_colour_on_every_page_of_several(tmp_path):
    everyone = looks_of(tmp_path / "all", *(deployment(engine, "bf16") for engine in ENGINES))
    assert len({look.colour for look in everyone.values()}) == len(ENGINES)
    for first, second in itertools.pairwise(ENGINES):
        pair = looks_of(tmp_path / first, deployment(second, "bf16"), deployment(first, "bf16"))
        assert {label: look.colour for label, look in pair.items()} == {
            f"{name} bf16": everyone[f"{name} bf16"].colour for name in (first, second)
        }


def test_programs_of_one_engine_have_a_dash_each(tmp_path):
    programs = ("xllamacpp", "llama-server", "llama-cpp-python")
    wanted = [served("llama_cpp", "gguf-q4_k_m", program) for program in programs]
    found = list(looks_of(tmp_path, *wanted, deployment("vllm", "awq")).values())[:3]
    assert len({look.dash for look in found}) == 3
    assert [look.fill for look in found] == ["full", "open", "dotted"]
    assert len({look.marker for look in found}) == 1
    drawn = {marker(look) for look in found}
    assert len(drawn) == 3


def test_a_dash_that_a_quantization_has_is_not_lent_to_another_program(tmp_path):
    wanted = [
        served("llama_cpp", "bf16", "xllamacpp"), served("llama_cpp", "bf16", "llama-server"),
        served("llama_cpp", "gguf-q4_k_m", "xllamacpp"), served("llama_cpp", "gguf-q8_0", "xllamacpp"),
    ]  # fmt: skip
    found = [look.dash for look in looks_of(tmp_path, *wanted).values()]
    assert found == ["solid", "dashdot", "dot", "dash"]


def test_quantizations_have_a_marker_each(tmp_path):
    names = ("fp16", "bf16", "awq", "gptq", "fp8", "gguf-q8_0")
    found = looks_of(tmp_path, *(deployment("vllm", name) for name in names), deployment("tgi", "awq"))
    assert len({look.marker for look in list(found.values())[:6]}) == 6
    assert found["tgi awq"].marker == found["vllm awq"].marker


def test_the_legend_draws_the_marker_that_the_chart_has(tmp_path):
    names = ("fp16", "bf16", "awq", "gptq", "fp8", "gguf-q8_0", "gguf-q4_0", "one", "other", "third")
    found = looks_of(tmp_path, *(deployment("vllm", name) for name in names))
    shapes = {look.marker: re.sub(r' style="[^"]*"', "", marker(look)) for look in found.values()}
    assert len(set(shapes.values())) == len(shapes) == 9  # fp8 and gguf-q4_0 share a triangle


def test_eight_deployments_are_told_apart_without_colour(engines):
    found = looks(open_run(engines.parent)).values()
    shapes = [(look.label.split()[0], look.dash) for look in found]
    assert len(set(shapes)) == len(shapes) == 8


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("vision", VISION)
def test_engines_are_told_apart_by_everyone(tmp_path, theme, vision):
    found = looks_of(tmp_path, *(deployment(engine, "bf16") for engine in ENGINES)).values()
    names = style(theme)
    seen = {look.label: lab(names[look.colour], VISION[vision]) for look in found}
    distances = {pair: distance(seen[pair[0]], seen[pair[1]]) for pair in itertools.combinations(seen, 2)}
    assert min(distances.values()) > APART, min(distances, key=distances.__getitem__)


@pytest.mark.parametrize(
    ("pairs", "colours"),
    [
        # A hue for each quantization of a run's only engine, else a shade of the engine's.
        (("llama_cpp fp16", "llama_cpp gguf-q8_0", "llama_cpp q4"), ("blue", "vermilion", "green")),
        (("vllm fp16", "vllm awq", "vllm fp8", "tgi awq"), ("blue", "blue-2", "blue-3", "green")),
    ],
)
def test_quantizations_have_a_hue_or_a_shade_each(tmp_path, pairs, colours):
    found = looks_of(tmp_path, *(deployment(*pair.split()) for pair in pairs)).values()
    assert [look.colour for look in found] == [f"--c-{colour}" for colour in colours]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_colour_and_its_shades_stand_out(theme):
    names = style(theme)
    hues = [name for name in names if re.fullmatch(r"--c-[a-z]+", name)]
    assert len(hues) == 8
    for hue in hues:
        shades = [names[name] for name in (hue, f"{hue}-2", f"{hue}-3")]
        assert min(contrast(shade, names["--card"]) for shade in shades) >= 3
        assert min(contrast(*pair) for pair in itertools.combinations(shades, 2)) > 1.3


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_marks_can_be_read_on_what_they_stand_on(theme):
    names = style(theme)
    words = itertools.product(("--good", "--bad", "--warn", "--mut", "--fg"), ("--card", "--bg"))
    pairs = [*words, ("--bad", "--badbg"), ("--fg", "--badbg"), ("--mut", "--badbg")]
    low = {pair: contrast(names[pair[0]], names[pair[1]]) for pair in pairs}
    assert min(low.values()) >= 4.5, low


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("fills", [MEMORY, CACHE, STAGES], ids=["memory", "cache", "stages"])
def test_pieces_of_a_bar_are_told_apart_without_colour(theme, fills):
    """By patterns that are not each other turned, in an ink that is seen; plain ones by how dark they are."""
    names = style(theme)
    patterns = [pattern for _, pattern in fills.values() if pattern]
    assert len(set(patterns)) == len(patterns)
    assert not {"/", "\\"} <= set(patterns)
    inked = [(colour, INKS.get(colour, "--card")) for colour, pattern in fills.values() if pattern]
    assert min(contrast(names[colour], names[ink]) for colour, ink in inked) > 2.4
    plain = [names[colour] for colour, pattern in fills.values() if not pattern]
    assert min(contrast(*pair) for pair in itertools.combinations(plain, 2)) > 1.6


def marker(look) -> str:
    """The marker in a deployment's picture, without its line."""
    return re.sub(r"<line[^>]*>", "", re.search(r"<svg.*?</svg>", named(look))[0])


def style(theme: str) -> dict[str, str]:
    whole = resources.files("serving_bench.reports.page").joinpath("style.css").read_text(encoding="utf-8")
    parts = whole.split("@media (prefers-color-scheme: dark)")
    found = dict(re.findall(r"(--[\w-]+): (#\w+)", parts[0] if theme == "light" else parts[1]))
    return {name: colour if len(colour) == 7 else doubled(colour) for name, colour in found.items()}


def doubled(colour: str) -> str:
    """`#abc` as `#aabbcc`."""
    return "#" + "".join(2 * digit for digit in colour[1:])


def linear(colour: str) -> list[float]:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def contrast(first: str, second: str) -> float:
    dark, light = sorted(
        sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear(colour), strict=True))
        for colour in (first, second)
    )
    return (light + 0.05) / (dark + 0.05)


def lab(colour: str, vision) -> tuple[float, float, float]:
    """CIE L*a*b* (D65) of a colour as somebody with this vision sees it."""
    rgb = [max(0.0, sum(a * b for a, b in zip(line, linear(colour), strict=True))) for line in vision]
    to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    xyz = [sum(a * b for a, b in zip(line, rgb, strict=True)) for line in to_xyz]
    f = [_cube_root(value / white) for value, white in zip(xyz, (0.95047, 1.0, 1.08883), strict=True)]
    return 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])


def _cube_root(t: float) -> float:
    return t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116


def distance(first, second) -> float:
    return sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) ** 0.5
