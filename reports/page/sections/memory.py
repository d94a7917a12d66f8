"""Memory: what each server held and needed of it, as predicted and as measured, and over time."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from reports.data.cells import grouped
from reports.data.run import Run
from reports.data.samples import memory_over_time
from reports.measures.anatomy import (
    KV_CACHE,
    PARTS,
    REST,
    Anatomy,
    alike,
    anatomies,
    expectations,
    mean_parts,
    mean_total,
)
from reports.measures.kv_need import KvCache
from reports.measures.metrics import mean
from reports.measures.over_starts import aggregate
from reports.measures.written import NOTHING, number, plural, several, span_text
from reports.page.drawing.bars import Bar, Fill, bar_chart
from reports.page.drawing.charts import Block, Chart, Part, Section
from reports.page.drawing.over_time import over_time
from reports.page.listed import Columns, Shown, below, filled, listed
from reports.page.looks import Look, looks, named
from reports.page.markup import Of, tag
from reports.verdicts.decisions import decisions_of
from reports.words.verdict_words import capital

_GIB = 2.0**-30
_SOURCES = (
    "Said: by the server, in its log or on its pages. Measured step: what the memory grew by between two "
    "stages of the start. Reckoned: from the model's shape, else from the size of the weights' files. "
    "Program is what was there when the weights began to be read. Workspace is what the first answers took "
    "beyond all other parts. KV copies are conversations that the server saves beside its KV cache. The "
    "rest is growth under load, which nothing explains."
)
_KV_CACHE = (
    "Reserved: as the server says. Needed: prompts and answers so far of all requests at once, the most in "
    "any window, of the start that had the most. Users that fit: reserved tokens / the 95th percentile of "
    "conversations at their longest."
)
_OVER_TIME = (
    "Shaded: the windows of the first start, with their loads. Lines are thinned; lows and highs are kept. "
    "The tables have each line at its stages, its peak and its end."
)
_FILLS: dict[str, Fill] = {
    "weights": ("--s-1", ""),
    "KV cache that requests held": ("--s-2", "/"),
    "KV cache": ("--s-2", "/"),
    "graphs and workspace": ("--s-3", ""),
    "program": ("--s-4", "\\"),
    "KV copies": ("--s-5", "."),
    "the rest": ("--s-6", ""),
    "KV cache reserved, not needed": ("--line", "/"),
}
# Less than this share of what a server holds is not worth a title.
_MUCH_SHARE = 0.1
_PEAK = "memory_peak_bytes"
# A deployment and its starts on which the same cells were measured.
_Held = tuple[Look, Sequence[Anatomy]]


def held(run: Run) -> Section:
    """Return what servers held and needed at their highest; empty where no part of any memory is known."""
    kept = {name: alike(each) for name, each in anatomies(run).items()}
    # What is marked is said of the work that was done, not of memory.
    found = [(replace(looks(run)[name], marks=()), each) for name, each in kept.items()]
    starts = [a for _, each in found for a in each]
    if all(set(a.parts) == {REST} for a in starts):
        return Section("")
    claim = (
        f"{capital(several([a.what for a in starts], '; '))}: means over {plural(len(starts), 'start')}. "
        "Needed: with the KV cache that requests held at once instead of the one reserved."
    )
    every = [(a, a in kept[name]) for name, each in anatomies(run).items() for a in each]
    if left_out := [a.record.name for a, is_kept in every if not is_kept]:
        claim += f" Left out, as other cells were measured on them: {', '.join(left_out)}."
    parts = [_parts_chart(run, found), *_predicted(found), *_kv_cache(found)]
    return Section(_title(found), claim, parts, _SOURCES)


def course(run: Run) -> Section:
    """Return memory over time, a chart per deployment, and what could not be read."""
    every = [(record, memory_over_time(run, record)) for record in run.start_records]
    seen = [(record, memory) for record, memory in every if len(memory.t_ns)]
    top = max((memory.size_bytes.max() for _, memory in seen), default=0.0)
    by_label = {name: [each for each in seen if each[0].deployment.label == name] for name in looks(run)}
    parts: list[Part] = [
        over_time(run, f"memory-{index}", looks(run)[name], starts, top)
        for index, (name, starts) in enumerate(by_label.items())
        if starts
    ]
    # What a server's page lacks stands in the section on what servers told.
    notes = [
        (f"{what.replace('_', ' ')}: {why}", record.name)
        for record in run.start_records
        for what, why in record.memory_notes.items()
        if not what.startswith("server ")
    ]
    unread = []
    for note, each in grouped(notes, lambda pair: pair[0]).items():
        is_all = len(each) == len(run.start_records)
        unread.append(tag("li", f"{'all starts' if is_all else several([name for _, name in each])}: {note}"))
    parts += [Block("What could not be read", [tag("ul", *unread, class_="note")])] if unread else []
    kinds = capital("; ".join(dict.fromkeys(memory.what for _, memory in seen)))
    claim = f"{kinds}. A line per start, the first bold; all charts have the same scale."
    return Section("Over time", claim if seen else "", parts, _OVER_TIME if seen else "")


def _title(found: Sequence[_Held]) -> str:
    """Return how much no request needed at most, where that is much. A deployment whose heavier load does not
    count needed less than it would."""
    loads = frozenset[tuple[str, str]]().union(*(each[0].loads for _, each in found))
    spare = [
        size / mean_total(each)
        for _, each in found
        if each[0].loads == loads and (size := mean([a.spare_bytes for a in each])) is not None
    ]
    if max(spare, default=0.0) > _MUCH_SHARE:
        return f"Up to {100 * max(spare):.0f} % of a server's memory is KV cache that no request needed"
    return "What the servers' memory is made of"


# --- what it is made of ----------------------------------------------------------------------------


def _pieces(of: Anatomy) -> dict[str, float]:
    """Return the bytes of a bar's pieces, which add up to the total."""
    size = {name: of.parts[name].size_bytes if name in of.parts else 0.0 for name in PARTS}
    spare = of.spare_bytes
    return {
        "weights": size["weights"],
        "KV cache that requests held": 0.0 if spare is None else size[KV_CACHE] - spare,
        "KV cache": size[KV_CACHE] if spare is None else 0.0,
        "graphs and workspace": size["graphs"] + size["workspace"],
        "program": size["program"],
        "KV copies": size["kv_copies"],
        "the rest": size[REST],
        "KV cache reserved, not needed": spare or 0.0,
    }


def _parts_chart(run: Run, found: Sequence[_Held]) -> Chart:
    bars = []
    for look, starts in found:
        each = [_pieces(a) for a in starts]
        means = {name: sum(pieces[name] for pieces in each) / len(each) * _GIB for name in _FILLS}
        needed, total = _needed(starts), _gib(mean_total(starts), 2)
        said = f"held {total}" if needed is None else f"needs {_gib(needed, 2)} of {total}"
        ticks = [(a.total_bytes * _GIB, Of(look.label, start=a.record.repeat + 1)) for a in starts]
        pieces = {name: size for name, size in means.items() if size > 0}
        bars.append(Bar(Of(look.label), f"{look.label} {said}", pieces, ticks))
    columns: Columns[_Held] = {
        "deployment": lambda held: held[0].label,
        **{name.replace("kv_", "KV "): partial(_part, name) for name in PARTS},
        "total GiB": lambda held: below(_gib(mean_total(held[1])), _range(held[1])),
        "needed GiB": lambda held: _gib(_needed(held[1])),
    }
    return bar_chart(
        "memory-parts",
        "Memory at its highest, by what it is for, GiB",
        _least(run),
        bars,
        _FILLS,
        ("GiB", "GiB"),
        filled(columns, found, lambda held: Of(held[0].label)),
        "A tick is one start; the table says where each part is known from.",
    )


def _needed(starts: Sequence[Anatomy]) -> float | None:
    """Return the mean total without the KV cache that no request needed."""
    spare = mean([a.spare_bytes for a in starts])
    return None if spare is None else mean_total(starts) - spare


def _least(run: Run) -> str | None:
    """Return which deployment holds the least, where that is decided."""
    for made in decisions_of(run):
        for group in made.groups:
            if made.leaders.get(_PEAK) == group.deployment:
                found = aggregate(run, group, _PEAK)
                return (
                    f"{group.deployment} holds the least: {_gib(found.mean, 2)} GiB {span_text(_PEAK, found)}"
                )
    return None


def _gib(size_bytes: float | None, digits: int = 3) -> str:
    return number(size_bytes, digits, _GIB)


def _range(starts: Sequence[Anatomy]) -> str:
    low, high = (_gib(end(a.total_bytes for a in starts)) for end in (min, max))
    return "" if low == high else f"{low}–{high}"


def _part(name: str, held: _Held) -> Shown:
    """Return a part's mean and its sources."""
    part = mean_parts(held[1]).get(name)
    return below(_gib(part.size_bytes), *part.sources) if part else NOTHING


def _predicted(found: Sequence[_Held]) -> list[Part]:
    """Return what `bench fit` expected beside what was measured; nothing where it expected nothing."""
    return listed(
        "Predicted by bench fit",
        "GiB. Predicted from the model's shape alone, before anything is started; the total has what it "
        "assumes for all else. Error: predicted / measured - 1.",
        {
            "deployment": lambda row: named(row[0]),
            "part": lambda row: row[1].replace("kv_", "KV "),
            "predicted": lambda row: _gib(row[2]),
            "measured": lambda row: _gib(row[3]),
            "error": lambda row: f"{round(100 * (row[2] / row[3] - 1.0), 1) + 0.0:+.1f} %",  # no -0.0
        },
        [(look, name, *ends) for look, starts in found for name, ends in expectations(starts).items()],
        lambda row: Of(row[0].label),
        "plain expected",
    )


def _kv_cache(found: Sequence[_Held]) -> list[Part]:
    """Return the KV cache that each server reserved, what requests needed of it, and how far it goes."""
    needs = [(look, max(starts, key=lambda a: a.kv.peak_tokens or 0.0).kv) for look, starts in found]
    columns: Columns[tuple[Look, KvCache]] = {
        "deployment": lambda pair: named(pair[0]),
        "reserved GiB": lambda pair: below(_gib(pair[1].size_bytes), _tokens(pair[1].tokens)),
        "needed GiB": lambda pair: below(_gib(pair[1].needed_bytes), _tokens(pair[1].peak_tokens)),
        "users that fit": lambda pair: number(pair[1].users, 0),
    }
    pools = [(look, kv) for look, kv in needs if kv.tokens is not None or kv.size_bytes is not None]
    title = "KV cache: reserved and needed"
    return listed(title, _KV_CACHE, columns, pools, lambda pair: Of(pair[0].label), "plain anatomy")


def _tokens(count: float | None) -> str:
    return "" if count is None else f"{count:,.0f} tokens"
