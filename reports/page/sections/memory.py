"""Memory: what each server held at its highest, by what it is for, as predicted and as needed."""

from functools import partial

from reports.measures.anatomy import PARTS
from reports.measures.held import Held, expectations, held_of
from reports.measures.written import number
from reports.page.cells import part_cell
from reports.page.declared import Chart, Table, Topic, below
from reports.page.drawing.more_kinds import memory_bars
from reports.page.looks import Of, looks, macro, prose
from reports.words import claims as words

PIECES = Chart[Held](
    "memory-parts",
    "Memory at its highest, by what it is for, GiB",
    held_of,
    lambda _, rows: memory_bars(rows),
    lambda _: {
        "deployment": lambda held: held.label,
        **{words.part_name(name): partial(part_cell, name) for name in PARTS},
        "total GiB": lambda held: below(words.gib(held.total_bytes), words.held_range(held)),
        "needed GiB": lambda held: words.gib(held.needed_bytes),
    },
    lambda held: Of(held.label),
    finding=words.held_finding,
    note="A tick is one start; the table says where each part is known from.",
    is_wide=True,
)
PREDICTED = Table[tuple[str, str, float, float]](
    "Predicted by bench fit",
    lambda run: [
        (held.label, part, *ends) for held in held_of(run) for part, ends in expectations(held.starts).items()
    ],
    lambda run: {
        "deployment": lambda row: macro("dep", looks(run)[row[0]]),
        "part": lambda row: words.part_name(row[1]),
        "predicted": lambda row: words.gib(row[2]),
        "measured": lambda row: words.gib(row[3]),
        "error": lambda row: f"{round(100 * (row[2] / row[3] - 1.0), 1) + 0.0:+.1f} %",  # no -0.0
    },
    lambda row: Of(row[0]),
    "plain expected",
    prose("predicted"),
)
KV_CACHE = Table[Held](
    "KV cache: reserved and needed",
    lambda run: [held for held in held_of(run) if (held.kv.tokens, held.kv.size_bytes) != (None, None)],
    lambda run: {
        "deployment": lambda held: macro("dep", looks(run)[held.label]),
        "reserved GiB": lambda held: below(words.gib(held.kv.size_bytes), words.tokens(held.kv.tokens)),
        "needed GiB": lambda held: below(words.gib(held.kv.needed_bytes), words.tokens(held.kv.peak_tokens)),
        "users that fit": lambda held: number(held.kv.users, 0),
    },
    lambda held: Of(held.label),
    "plain anatomy",
    prose("kv_cache"),
)
HELD = Topic("memory-held", words.held_title, [PIECES, PREDICTED, KV_CACHE], words.held_claim, prose("held"))
