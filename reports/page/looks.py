"""How a deployment looks on the page: a hue per engine, a marker and a shade per quantization, a dash of its
own within its engine.

A run of one engine has a hue per quantization instead.
Colours are names of the style sheet's variables, so that a chart follows the page's theme.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reports.data.cells import grouped
from reports.data.run import Run, once
from reports.measures.equal_work import one_at_a_time, stand_ins, work_of
from reports.page.markup import Html, macro

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
_HUES = tuple(_COLOURS.values())
# Endings of a hue's variables: an engine's own, then its further shades.
_SHADES = ("", "-2", "-3")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
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
_OTHER_SHAPES = (("longdashdot", "triangle-down"), ("longdash", "hexagon"), ("dashdot", "star"))
# The colours and patterns of a bar's pieces: memory by what it is for.
MEMORY = {
    "weights": ("--s-1", ""),
    "KV cache that requests held": ("--s-2", "/"),
    "KV cache": ("--s-2", "/"),
    "graphs and workspace": ("--s-3", ""),
    "program": ("--s-4", "\\"),
    "KV copies": ("--s-5", "."),
    "the rest": ("--s-6", ""),
    "KV cache reserved, not needed": ("--line", "/"),
}
# Stages of a start, dark to light; stripes tell steps that follow each other apart, whichever are there.
STAGES = {
    "process_up": ("--s-1", ""),
    "weights_begin": ("--s-2", "."),
    "weights_loaded": ("--s-2", "/"),
    "engine_ready": ("--s-3", ""),
    "listening": ("--s-4", "\\"),
    "first_token": ("--s-5", ""),
    "ready": ("--s-5", "x"),
    "steady_token": ("--s-6", "."),
}
Fill = Literal["full", "open", "dotted"]
_FILLS: Sequence[Fill] = ("full", "open", "dotted")


# A caveat that stands wherever a deployment's figures do: its words, why (a tooltip), and its class.
Mark = tuple[str, str, str]


@dataclass(frozen=True)
class Look:
    """How a deployment is drawn. `colour` is a style variable. The marker's `fill` is open for the second
    deployment of an engine and quantization (another program or option), dotted for further ones."""

    label: str
    colour: str
    dash: str = "solid"
    marker: str = "circle"
    fill: Fill = "full"
    marks: tuple[Mark, ...] = ()

    @property
    def symbol(self) -> str:
        """Return the marker as plotly names it."""
        return self.marker + {"full": "", "open": "-open", "dotted": "-open-dot"}[self.fill]


@once
def looks(run: Run) -> dict[str, Look]:
    """Return the look of each deployment by its label, in the plan's order."""
    by_engine = grouped(run.deployments.items(), lambda pair: pair[1].engine)
    unknown = sorted({each.quantization for each in run.deployments.values()} - _SHAPES.keys())
    shapes = _SHAPES | {name: _OTHER_SHAPES[k % len(_OTHER_SHAPES)] for k, name in enumerate(unknown)}
    found, marks = dict[str, Look](), _marks(run)
    for engine, own in by_engine.items():
        quantizations = list(dict.fromkeys(each.quantization for _, each in own))
        has_hues = len(by_engine) == 1 and len(quantizations) > 1
        # Lent to a deployment whose quantization's dash another one of the engine has.
        free = [dash for dash in _DASHES if dash not in {shapes[name][0] for name in quantizations}]
        taken, earlier = set[str](), Counter[str]()
        for label, each in own:
            dash, marker = shapes[each.quantization]
            if dash in taken and free:
                dash = free.pop(0)
            at, fill = quantizations.index(each.quantization), _FILLS[min(earlier[each.quantization], 2)]
            colour = (
                _HUES[at % len(_HUES)] if has_hues else _COLOURS.get(engine, "--c-other") + _SHADES[at % 3]
            )
            found[label] = Look(label, colour, dash, marker, fill, tuple(marks[label]))
            taken.add(dash)
            earlier[each.quantization] += 1
    return {label: found[label] for label in run.deployments}


def _marks(run: Run) -> dict[str, list[Mark]]:
    work, marks = work_of(run), {label: list[Mark]() for label in run.deployments}
    for label, what in stand_ins(run).items():
        why = f"{what}: no speed of {run.deployments[label].engine}"
        marks[label].append(("✕ stand-in kernels", why, "bad"))
    for label, why in work.odd.items():
        marks[label].append(("≠ other prompts", f"not comparable with the others: {why}", "warn"))
    for label, why in one_at_a_time(run).items():
        marks[label].append(("▲ one request at a time", why, "warn"))
    return marks


def named(look: Look) -> Html:
    """Return a deployment's picture, name and marks."""
    return macro("named", look)


def unmarked(run: Run, label: str) -> Html:
    """Return a deployment's picture and name alone: marks are said of the work that was done."""
    return macro("dep", looks(run)[label])
