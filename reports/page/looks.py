"""What all parts of the page are made with: small pieces of HTML, and how a deployment looks."""

import base64
import gzip
import html
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import numpy as np
from jinja2 import Environment, FunctionLoader
from markupsafe import Markup

from serving_bench.harness.contracts import timing
from serving_bench.reports.data import Run, gathered, grouped, once
from serving_bench.reports.measures import (
    BARS,
    PERCENTILES,
    REQUESTS_NEEDED,
    one_at_a_time,
    stand_ins,
    work_of,
)
from serving_bench.reports.measures.quality import limit_of
from serving_bench.reports.stats.intervals import STARTS_NEEDED
from serving_bench.reports.words.verdict_words import clipped

# Text that is safe to put into a page as it is.
Html = Markup
# A table of more rows is folded.
OPEN_ROWS = 12
# A longer word, such as a path or a hash, may break anywhere in a table of many columns.
LONG_WORD = 18
# What a reader cannot see: control characters, lone surrogates, and marks that change the direction of
# writing. A carriage return is among them because HTML reads it as another character, so a label with one
# would be two.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


@dataclass(frozen=True)
class Of:
    """What a part of the page is about. Filters and legend hide what is about something else.

    None: about all, so no filter hides it. `start` counts from 1.
    """

    deployment: str | None = None
    load: str | None = None
    start: int | None = None

    def to_builtins(self) -> dict[str, str]:
        return {name: str(value) for name, value in vars(self).items() if value is not None}


ALL = Of()


@dataclass(frozen=True)
class Head:
    """The title of a table's column, and what the column is about."""

    title: Html | str
    of: Of = ALL


@dataclass(frozen=True)
class Row:
    """A table's row: its cells by the title (text, Html or a Head) of their column, and what it is about."""

    cells: Mapping[Any, Html | str]
    of: Of = ALL


# --- text ------------------------------------------------------------------------------------------


def escaped(value: str) -> str:
    """Return text for HTML and for plotly, which reads labels as HTML.

    Invisible characters become `\\u202e`.
    """
    return html.escape(_visible(value))


def _visible(value: Any) -> Any:
    if isinstance(value, str) and not hasattr(value, "__html__") and not value.isprintable():
        return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", value)
    if isinstance(value, dict):
        return {_visible(key): _visible(each) for key, each in value.items()}
    return [_visible(each) for each in value] if isinstance(value, list | tuple) else value


def tag(name: str, /, *content: Html | str, **attributes: str) -> Html:
    """Return an element; strings are escaped. An attribute is written `class_` for class, and `_` for `-`."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"' for key, value in attributes.items()
    )
    return Html(f"<{name}{given}>{join(content)}</{name}>")


def join(parts: Iterable[Html | str]) -> Html:
    """Return the parts joined; strings are escaped."""
    return Html("".join(part if isinstance(part, Html) else escaped(part) for part in parts))


def unbroken(value: str) -> Html:
    """Return text in which short words with a hyphen, such as names and dates, do not break."""
    words = (
        tag("span", word, class_="unbroken") if "-" in word and len(word) <= LONG_WORD else word
        for word in value.split(" ")
    )
    return Html(" ".join(join([word]) for word in words))


def paragraph(content: Html | str, class_: str = "note") -> Html:
    return tag("p", content, class_=class_)


# --- templates -------------------------------------------------------------------------------------


def own_file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


_TEMPLATES = Environment(
    loader=FunctionLoader(own_file), autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_visible
)
_TEMPLATES.filters |= {"unbroken": unbroken, "clipped": clipped}
_TEMPLATES.globals.update(
    bars=BARS,
    percentiles=PERCENTILES,
    needed=timing.needed,
    fewest=REQUESTS_NEEDED,
    starts_needed=STARTS_NEEDED,
    limit_of=limit_of,
)


def render(template: str, **given: Any) -> str:
    """Return a filled template of this folder. Strings are escaped, `Html` is not."""
    return _TEMPLATES.get_template(template).render(**given)


def macro(name: str, *given: Any, of: str = "parts.html") -> Html:
    """Return a filled macro of a template."""
    return Html(str(getattr(_TEMPLATES.get_template(of).module, name)(*given)))


def prose(name: str, run: Run) -> Html:
    """Return how to read a section of this run: a filled macro of prose.html."""
    return macro(name, run, of="prose.html")


def table(rows: Sequence[Row], class_: str = "", name: str = "table") -> Html:
    """Return a table in a box that scrolls by itself; the first cell heads its row.

    `name` tells users of screen readers what the table shows.
    """
    titles = list(dict.fromkeys(title for row in rows for title in row.cells))
    heads = [each if isinstance(each, Head) else Head(each) for each in titles]
    cells = [(row.of, [row.cells.get(title, "") for title in titles]) for row in rows]
    return macro("table", heads, cells, class_, name)


# A ratio, and the low and high end of its interval.
Ratio = tuple[float, float, float]


def ratio_frame(ratios: Iterable[Ratio]) -> tuple[float, float]:
    """Return the ends of an axis for these ratios and 1, between 0.02 and 50 at most."""
    ends = np.array([(0.9, 0.9, 1.1), *ratios])[:, 1:]
    return max(0.02, float(ends.min())), min(50.0, float(ends.max()))


def ratio_picture(look: "Look", ratio: Ratio, frame: tuple[float, float]) -> Html:
    """Draw a ratio and its interval beside 1 on a log axis.

    What lies beyond the frame is drawn at its edge, so the numbers have to stand beside it.
    """
    places = np.log(np.clip((*ratio, 1.0), *frame) / frame[0]) / math.log(frame[1] / frame[0])
    return macro("ratio", (5 + 140 * places).round(1).tolist(), look)


# --- data for the script ---------------------------------------------------------------------------


def packed(name: str, content: str) -> Html:
    """Return text for the page's script as gzip in base64: small, and nothing in it can end the element.

    inflate.js reads it by its name, an id.
    """
    data = base64.b64encode(gzip.compress(content.encode(), 9, mtime=0)).decode("ascii")
    return Html(f'<script type="text/plain" id="{name}">{data}</script>')


def packed_json(name: str, data: Any) -> Html:
    """Return data for the page's script.

    Invisible characters are written as `escaped` does, so that both match.
    """
    return packed(name, json.dumps(_visible(data), allow_nan=False, separators=(",", ":")))


# --- how a deployment looks ------------------------------------------------------------------------

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
# Dash and marker of a quantization, the same on every page. A dash that its engine already has is replaced.
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
# The colours and patterns of a bar's pieces: memory by use. Each pattern is used once, because colours are
# lost in a black and white print; none is another's mirror image, which a legend would not show.
MEMORY = {
    "weights": ("--s-1", ""),
    "KV cache that requests held": ("--s-2", "/"),
    "KV cache": ("--s-2", "x"),
    "graphs and workspace": ("--s-3", ""),
    "program": ("--s-4", "."),
    "KV copies": ("--s-5", "|"),
    "the rest": ("--s-6", ""),
    "KV cache reserved, not needed": ("--line", "-"),
}
# What became of a prompt's tokens.
CACHE = {
    "cached, as reported": ("--s-1", ""),
    "sent before, read again": ("--s-3", "/"),
    "sent before, not reported": ("--s-3", "."),
    "new": ("--line", ""),
}
# Stages of a start, dark to light. Patterns separate steps that follow each other, whichever of them exist.
STAGES = {
    "process_up": ("--s-1", ""),
    "weights_begin": ("--s-2", "."),
    "weights_loaded": ("--s-2", "/"),
    "engine_ready": ("--s-3", ""),
    "listening": ("--s-4", "|"),
    "first_token": ("--s-5", ""),
    "ready": ("--s-5", "x"),
    "steady_token": ("--s-6", "-"),
}
# The colour of patterns on light colours, on which the card's own colour would not be seen.
INKS = {"--s-5": "--fg", "--s-6": "--fg", "--line": "--mut"}
Fill = Literal["full", "open", "dotted"]
_FILLS: Sequence[Fill] = ("full", "open", "dotted")


# A caveat that stands wherever a deployment's numbers do: its text, the reason (a tooltip), and its class.
Mark = tuple[str, str, str]


@dataclass(frozen=True)
class Look:
    """How a deployment is drawn. `colour` is a style variable.

    The marker's `fill` is open for the second deployment of an engine and quantization (another program or
    option), and dotted for further ones.
    """

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
    looks_by_label, marks = dict[str, Look](), gathered(_marks(run))
    for engine, labels in by_engine.items():
        quantizations = list(dict.fromkeys(each.quantization for _, each in labels))
        has_hues = len(by_engine) == 1 and len(quantizations) > 1
        # For a deployment whose own dash is taken by another one of its engine.
        free = [dash for dash in _DASHES if dash not in {shapes[name][0] for name in quantizations}]
        taken, earlier = set[str](), Counter[str]()
        for label, each in labels:
            dash, marker = shapes[each.quantization]
            if dash in taken and free:
                dash = free.pop(0)
            at, fill = quantizations.index(each.quantization), _FILLS[min(earlier[each.quantization], 2)]
            colour = (
                _HUES[at % len(_HUES)] if has_hues else _COLOURS.get(engine, "--c-other") + _SHADES[at % 3]
            )
            looks_by_label[label] = Look(label, colour, dash, marker, fill, tuple(marks.get(label, ())))
            taken.add(dash)
            earlier[each.quantization] += 1
    return {label: looks_by_label[label] for label in run.deployments}


def _marks(run: Run) -> Iterator[tuple[str, Mark]]:
    for label, what in stand_ins(run).items():
        why = f"{what}: this is not the speed of {run.deployments[label].engine}"
        yield label, ("✕ stand-in kernels", why, "bad")
    for label, unlike in work_of(run).odd.items():
        yield label, ("≠ other prompts", f"not comparable with the others: {unlike}", "warn")
    for label, clause in one_at_a_time(run).items():
        yield label, ("▲ one request at a time", clause, "warn")


def named(look: Look) -> Html:
    return macro("named", look)
