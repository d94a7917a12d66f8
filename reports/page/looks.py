"""How a deployment looks on the page: a hue per engine, a marker and a shade per quantization, a dash of its
own within its engine.

A run of one engine has a hue per quantization instead.
Colours are names of the style sheet's variables, so that a chart follows the page's theme.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from reports.data.run import Run, deployments
from reports.measures.equal_work import stand_ins, too_few_at_once, work_of
from reports.page.markup import Html, join, tag, text

_COLOURS = {
    "vllm": "--c-blue",
    "sglang": "--c-vermilion",
    "tgi": "--c-green",
    "llama_cpp": "--c-purple",
    "transformers": "--c-orange",
    "openai": "--c-sky",
    "reference": "--c-grey",
}
# Hues after the Okabe-Ito palette, for the quantizations of a run's only engine.
_HUES = ("--c-blue", "--c-vermilion", "--c-green", "--c-purple", "--c-orange", "--c-sky", "--c-grey")
# Endings of a hue's variables: an engine's own, then its further shades.
_SHADES = ("", "-2", "-3")
# dash, and the same as an SVG pattern
_DASHES = {
    "solid": "",
    "dash": "7 4",
    "dot": "2 3",
    "dashdot": "7 3 2 3",
    "longdash": "11 4",
    "longdashdot": "11 3 2 3",
}
# dash (the next free one where its engine has it already), marker; the same on every page
_SHAPES = {
    "fp16": ("solid", "circle"),
    "bf16": ("solid", "square"),
    "awq": ("dash", "diamond"),
    "gptq": ("dash", "cross"),
    "fp8": ("longdash", "triangle-up"),
    "gguf-q8_0": ("dash", "pentagon"),
    "gguf-q4_k_m": ("dot", "diamond"),
    "gguf-q4_0": ("dashdot", "triangle-up"),
    "-": ("solid", "circle"),
}
_OTHER_SHAPES = (
    ("longdashdot", "triangle-down"),
    ("longdash", "hexagon"),
    ("dashdot", "star"),
)
_FILLS: Sequence[Literal["full", "open", "dotted"]] = ("full", "open", "dotted")
_SVG_MARKERS = {
    "circle": '<circle cx="14" cy="6" r="4"/>',
    "square": '<rect x="10.5" y="2.5" width="7" height="7"/>',
    "diamond": '<path d="M14 1l5 5-5 5-5-5z"/>',
    "cross": '<path d="M12.5 1.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z"/>',
    "triangle-up": '<path d="M14 1l5 9H9z"/>',
    "triangle-down": '<path d="M14 11l5-9H9z"/>',
    "pentagon": '<path d="M14 1l5 3.7-1.9 5.8h-6.2L9 4.7z"/>',
    "hexagon": '<path d="M11.5 1.7h5L19 6l-2.5 4.3h-5L9 6z"/>',
    "star": '<path d="M14 .6l1.5 3.5 3.9.3-3 2.5.9 3.8-3.3-2-3.3 2 .9-3.8-3-2.5 3.9-.3z"/>',
}


@dataclass(frozen=True)
class Mark:
    """A caveat that stands wherever a deployment's figures do: in words, with why in a tooltip. The `kind`
    quiet is for what is only said."""

    words: str
    why: str
    kind: Literal["bad", "warn", "quiet"] = "warn"


@dataclass(frozen=True)
class Look:
    """How a deployment is drawn. `colour` is a style variable. The marker's `fill` is open for the second
    deployment of an engine and quantization (another program or option), dotted for further ones."""

    label: str
    engine: str
    colour: str
    dash: str
    pattern: str
    marker: str
    fill: Literal["full", "open", "dotted"]
    marks: tuple[Mark, ...] = ()

    @property
    def symbol(self) -> str:
        """Return the marker as plotly names it."""
        return self.marker + {"full": "", "open": "-open", "dotted": "-open-dot"}[self.fill]


def looks(run: Run) -> dict[str, Look]:
    """Return the look of each deployment by its label, in the plan's order."""
    found: dict[str, Look] = {}
    others = sorted({q for _, _, q in deployments(run)} - _SHAPES.keys())
    shapes = {name: _OTHER_SHAPES[k % len(_OTHER_SHAPES)] for k, name in enumerate(others)} | _SHAPES
    taken: dict[str, list[str]] = {}
    pairs: Counter[tuple[str, str]] = Counter()
    colours, marks = _colours(run), _marks(run)
    for label, engine, quantization in deployments(run):
        shape = shapes[quantization]
        kept_for = [shapes[q][0] for _, other, q in deployments(run) if other == engine]
        dash = _free(shape[0], taken.setdefault(engine, []), kept_for)
        taken[engine].append(dash)
        found[label] = Look(
            label,
            engine,
            colours[engine, quantization],
            dash,
            _DASHES[dash],
            shape[1],
            fill=_FILLS[min(pairs[engine, quantization], len(_FILLS) - 1)],
            marks=tuple(marks.get(label, ())),
        )
        pairs[engine, quantization] += 1
    return found


def _free(wanted: str, taken: Sequence[str], kept_for: Sequence[str]) -> str:
    """Return the dash that is wanted, or one that the engine's deployments have least often."""
    if wanted not in taken:
        return wanted
    return min(_DASHES, key=lambda dash: (taken.count(dash), dash in kept_for))


def _colours(run: Run) -> dict[tuple[str, str], str]:
    """Return colours by engine and quantization."""
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


def _marks(run: Run) -> dict[str, list[Mark]]:
    marks: dict[str, list[Mark]] = {}
    for label, what in stand_ins(run).items():
        why = f"{what}: no speed of {run.deployments[label].engine}"
        marks.setdefault(label, []).append(Mark("✕ stand-in kernels", why, "bad"))
    for label in run.deployments:
        if label in work_of(run).unlike:
            letter = work_of(run).prompt_class(label)
            why = f"comparable with prompts {letter} only: {work_of(run).why_unlike(label)}"
            is_most = letter == "A"
            mark = Mark(f"{'' if is_most else '≠ '}prompts {letter}", why, "quiet" if is_most else "warn")
            marks.setdefault(label, []).append(mark)
    for label, each in too_few_at_once(run).items():
        words = "▲ one request at a time" if each.is_one else "▲ requests at once not as asked"
        marks.setdefault(label, []).append(Mark(words, each.clause or "as its server says"))
    return marks


def mark(look: Look) -> Html:
    """Draw the line and marker of a deployment as a small picture."""
    line = f'<line x1="-6" x2="34" y1="6" y2="6" stroke-width="2" stroke-dasharray="{look.pattern}"/>'
    dot = '<circle cx="14" cy="6" r=".5"/>' if look.fill == "dotted" else ""
    shape = _SVG_MARKERS[look.marker] + dot
    style = (
        f"stroke:var({look.colour});fill:{f'var({look.colour})' if look.fill == 'full' else 'var(--card)'}"
    )
    return Html(
        f'<svg class="mark" viewBox="-6 0 40 12" width="40" height="12" aria-hidden="true" style="{style}">'
        f"{line}{shape}</svg>"
    )


def named(look: Look) -> Html:
    """Return a deployment's picture, name and marks."""
    engine, _, rest = look.label.partition(" ")
    name = join([tag("b", text(engine)), " ", tag("span", _breakable(rest), class_="q")])
    return join([tag("span", mark(look), name, class_="dep"), *map(_said, look.marks)])


def _breakable(rest: str) -> Html:
    """Return a name that a narrow column may break behind `program=`, not within a word."""
    return Html(text(rest).text.replace("=", "=<wbr>"))


def _said(found: Mark) -> Html:
    return tag("span", found.words, title=found.why, class_=f"said {found.kind}")


def key(run: Run) -> Html:
    """Return the page's legend: a button per deployment that isolates it; nothing for a single one."""
    found = looks(run).values()
    if len(found) < 2:
        return Html("")
    said = {"aria_pressed": "false", "title": "Show this deployment only; again: all", "type": "button"}
    names = [tag("button", named(replace(look, marks=())), data_isolate=look.label, **said) for look in found]
    return tag("p", *names, class_="key legend")
