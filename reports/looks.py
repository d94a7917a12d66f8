"""How a deployment looks on the page: a hue per engine, with a shade, a dash and a marker per quantization.

A run of one engine has a hue per quantization instead.
Colours are names of the style sheet's variables, so that a chart follows the page's theme.
"""

from __future__ import annotations

from dataclasses import dataclass

from reports.frames import Run, deployments
from reports.markup import Html, join, tag, text

_COLOURS = {
    "vllm": "--c-blue",
    "sglang": "--c-vermilion",
    "tgi": "--c-green",
    "llama_cpp": "--c-purple",
    "transformers": "--c-orange",
    "openai": "--c-sky",
    "reference": "--c-grey",
}
# Hues of the Okabe-Ito palette, for the quantizations of a run's only engine.
_HUES = ("--c-blue", "--c-vermilion", "--c-green", "--c-purple", "--c-orange", "--c-sky", "--c-grey")
# Endings of a hue's variables: an engine's own, then its further shades.
_SHADES = ("", "-2", "-3")
# dash, dash as an SVG pattern, marker; the same on every page
_SHAPES = {
    "fp16": ("solid", "", "circle"),
    "bf16": ("solid", "", "square"),
    "awq": ("dash", "7 4", "diamond"),
    "gptq": ("dash", "7 4", "cross"),
    "fp8": ("longdash", "11 4", "triangle-up"),
    "gguf-q8_0": ("dash", "7 4", "square"),
    "gguf-q4_k_m": ("dot", "2 3", "diamond"),
    "gguf-q4_0": ("dashdot", "7 3 2 3", "triangle-up"),
    "-": ("solid", "", "circle"),
}
_OTHER_SHAPES = (
    ("longdashdot", "11 3 2 3", "triangle-down"),
    ("longdash", "11 4", "pentagon"),
    ("dashdot", "7 3 2 3", "hexagon"),
)
_SVG_MARKERS = {
    "circle": '<circle cx="14" cy="6" r="4"/>',
    "square": '<rect x="10.5" y="2.5" width="7" height="7"/>',
    "diamond": '<path d="M14 1l5 5-5 5-5-5z"/>',
    "triangle-up": '<path d="M14 1l5 9H9z"/>',
}


@dataclass(frozen=True)
class Look:
    """`colour` is a style variable; `is_open`: drawn hollow, as a second deployment of an engine and
    quantization."""

    label: str
    engine: str
    colour: str
    dash: str
    pattern: str
    marker: str
    is_open: bool


def looks(run: Run) -> dict[str, Look]:
    """The look of each deployment by its label, in the plan's order."""
    found: dict[str, Look] = {}
    others = sorted({q for _, _, q in deployments(run)} - _SHAPES.keys())
    seen: set[tuple[str, str]] = set()
    colours = _colours(run)
    for label, engine, quantization in deployments(run):
        shape = _SHAPES.get(quantization)
        if shape is None:
            shape = _OTHER_SHAPES[others.index(quantization) % len(_OTHER_SHAPES)]
        found[label] = Look(
            label, engine, colours[engine, quantization], *shape, is_open=(engine, quantization) in seen
        )
        seen.add((engine, quantization))
    return found


def _colours(run: Run) -> dict[tuple[str, str], str]:
    """By engine and quantization, in the plan's order."""
    pairs = list(dict.fromkeys((engine, quantization) for _, engine, quantization in deployments(run)))
    if has_one_engine(run) and len(pairs) > 1:
        return {pair: _HUES[index % len(_HUES)] for index, pair in enumerate(pairs)}
    colours: dict[tuple[str, str], str] = {}
    for engine, quantization in pairs:
        earlier = sum(engine == other for other, _ in colours)
        colours[engine, quantization] = _COLOURS.get(engine, "--c-other") + _SHADES[earlier % len(_SHADES)]
    return colours


def has_one_engine(run: Run) -> bool:
    return len({engine for _, engine, _ in deployments(run)}) == 1


def mark(look: Look) -> Html:
    """The line and marker of a deployment as a small picture."""
    line = f'<line x1="0" x2="28" y1="6" y2="6" stroke-width="2" stroke-dasharray="{look.pattern}"/>'
    shape = _SVG_MARKERS.get(look.marker, _SVG_MARKERS["circle"])
    style = f"stroke:var({look.colour});fill:{'var(--card)' if look.is_open else f'var({look.colour})'}"
    return Html(
        f'<svg class="mark" viewBox="0 0 28 12" width="28" height="12" aria-hidden="true" style="{style}">'
        f"{line}{shape}</svg>"
    )


def named(look: Look) -> Html:
    """A deployment's mark and name."""
    engine, _, rest = look.label.partition(" ")
    return tag(
        "span", mark(look), join([tag("b", text(engine)), " ", tag("span", rest, class_="q")]), class_="dep"
    )


def key(run: Run) -> Html:
    """The legend of a section's charts."""
    found = looks(run).values()
    names = [named(look) for look in found]
    if len({look.colour for look in found}) == 1:
        return tag("p", *names, class_="key")
    said = (
        "One engine, so a colour is a quantization (hues of the Okabe-Ito palette)."
        if has_one_engine(run)
        else "A hue is an engine; its shade, dash and marker are the quantization."
    )
    return tag("p", *names, tag("span", said, class_="caption"), class_="key")
