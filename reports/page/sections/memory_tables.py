"""Tables of what servers' memory is made of: parts with their sources, the KV cache, stages, predictions.

`found` is the anatomies of each deployment's starts by its label, `shown` how the label looks.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from reports.measures.anatomy import (
    GRAPHS,
    KV_CACHE,
    KV_COPIES,
    PARTS,
    PROGRAM,
    REST,
    STAGES,
    WEIGHTS,
    WORKSPACE,
    Anatomy,
    expectations,
    mean,
    mean_part,
    mean_size,
    mean_total,
)
from reports.measures.anatomy import Part as Piece
from reports.measures.written import NOTHING, number
from reports.page.drawing.charts import Block, Part
from reports.page.listed import Columns, Shown, below, filled, listed, tabled
from reports.page.markup import Html, Of, Row, paragraph

GIB = 2.0**-30
TITLES = {
    WEIGHTS: "weights",
    KV_CACHE: "KV cache",
    KV_COPIES: "KV copies",
    GRAPHS: "graphs",
    WORKSPACE: "workspace",
    PROGRAM: "program",
    REST: "the rest",
}
SOURCES = (
    "Said: by the server, in its log or on its pages. Measured step: what the memory grew by between two "
    "stages of the start. Reckoned: from the model's shape, else from the size of the weights' files. "
    "Program is what was there when the weights began to be read. Workspace is what the first answers took "
    "beyond all other parts. KV copies are conversations that the server saves beside its KV cache. The "
    "rest is growth under load, which nothing explains."
)
Starts = Sequence[Anatomy]
Found = Mapping[str, Starts]
Names = Mapping[str, Html]
# A label with the anatomies of its deployment's starts.
_Of = tuple[str, Starts]


def gib(size_bytes: float | None, digits: int = 2) -> str:
    return number(None if size_bytes is None else size_bytes * GIB, digits)


def _about(pair: _Of) -> Of:
    return Of(pair[0])


def parts_rows(found: Found) -> tuple[list[str], list[Row]]:
    """Return a row per deployment: its parts with their sources, the total and what was needed of it."""
    columns: Columns[_Of] = {
        "deployment": lambda pair: pair[0],
        **{TITLES[name]: partial(_part, name) for name in PARTS},
        "total GiB": lambda pair: below(gib(mean_total(pair[1]), 3), _range(pair[1])),
        "needed GiB": lambda pair: gib(mean([a.needed_bytes for a in pair[1]]), 3),
        "explained": lambda pair: f"{100 * (1 - mean_size(pair[1], REST) / mean_total(pair[1])):.1f} %",
    }
    return filled(columns, list(found.items()), _about)


def _part(name: str, of: _Of) -> Shown:
    part = mean_part(of[1], name)
    if part is None:
        return NOTHING
    one = len(part.sources) == 1
    said = [source if one else f"{source} {gib(size, 3)}" for source, size in part.sources.items()]
    return below(gib(part.size_bytes, 3), *said, _cut(part, of[1][0]))


def _cut(part: Piece, of: Anatomy) -> str:
    if part.cut_bytes * GIB < 0.0005:
        return ""
    return f"+ {gib(part.cut_bytes, 3)} {'reserved, not yet touched' if of.is_host else 'said, not measured'}"


def _range(starts: Starts) -> str:
    low, high = (gib(end(a.total_bytes for a in starts), 3) for end in (min, max))
    return "" if low == high else f"{low}–{high}"


def kv_parts(found: Found, shown: Names) -> list[Part]:
    """Return the KV cache that each server reserved, what requests needed of it, and how far it goes."""
    pools = [(name, each) for name, each in found.items() if _has_pool(each[0])]
    columns: Columns[_Of] = {
        "deployment": lambda pair: shown[pair[0]],
        "reserved GiB": lambda pair: gib(pair[1][0].kv.pool.size_bytes, 3),
        "reserved tokens": lambda pair: number(pair[1][0].kv.pool.tokens, 0),
        "KiB per token": lambda pair: _per_token(pair[1][0]),
        "most tokens in flight": lambda pair: below(
            number(_need(pair[1]).kv.peak_tokens, 0), _need(pair[1]).kv.peak_load or ""
        ),
        "needed GiB": lambda pair: gib(_need(pair[1]).kv.needed_bytes, 3),
        "most in use % (server)": lambda pair: number(
            max((100 * a.kv.used_share for a in pair[1] if a.kv.used_share is not None), default=None)
        ),
        "longest conversation": lambda pair: _longest(pair[1]),
        "users that fit": lambda pair: number(
            min((a.kv.users for a in pair[1] if a.kv.users is not None), default=None), 0
        ),
    }
    said = (
        "Reserved: as the server says; in grey by the model's shape. In flight: prompts and answers so far "
        "of all requests at once, the most in any window. Users that fit: reserved tokens / the longest "
        "conversation of the scenario."
    )
    return listed("KV cache: reserved and needed", said, columns, pools, _about, "plain anatomy")


def _has_pool(of: Anatomy) -> bool:
    return of.kv.pool.tokens is not None or of.kv.pool.size_bytes is not None


def _need(starts: Starts) -> Anatomy:
    """Return the start that had the most tokens in flight."""
    return max(starts, key=lambda a: a.kv.peak_tokens or 0.0)


def _per_token(of: Anatomy) -> Shown:
    pool = of.kv.pool
    own, by_shape = (
        number(None if size is None else size / 1024)
        for size in (pool.per_token_bytes, pool.reckoned_per_token_bytes)
    )
    return below(own, by_shape) if by_shape != NOTHING else own


def _longest(starts: Starts) -> Shown:
    longest = next((a.kv.conversations for a in starts if a.kv.conversations), None)
    if longest is None:
        return NOTHING
    which = "the largest" if longest.is_largest else "p95"
    return below(number(longest.tokens, 0), f"{which} of {longest.n:,}")


def stages_parts(found: Found, shown: Names) -> list[Part]:
    """Return the memory at each stage of a start and after each load, folded."""
    each = [a for starts in found.values() for a in starts]
    loads = list(dict.fromkeys(load for a in each for load in a.cells))
    columns: Columns[_Of] = {
        "deployment": lambda pair: shown[pair[0]],
        "before": lambda pair: gib(mean([a.before_bytes for a in pair[1]]), 3),
        **{title: partial(_at_stage, name) for name, title in STAGES.items()},
        **{f"after {load}".replace(" u", "\u00a0u"): partial(_after_load, load) for load in loads},
        "highest": lambda pair: gib(mean_total(pair[1]), 3),
        # On a host it would be what all other programs took or gave back meanwhile.
        "left on the device": lambda pair: gib(
            mean([None if a.is_host else a.left_bytes for a in pair[1]]), 3
        ),
    }
    whose = "machine" if all(a.is_host for a in each) else "device"
    said = (
        f"GiB, means over starts. Before: all that was in use of the {whose} before the start; it is in no "
        f"other column. A stage is seen up to 20 ms late.{_late(each)}"
    )
    title = "Memory at each stage"
    whole = tabled(title, columns, list(found.items()), _about, "plain anatomy")
    return [Block(title, [paragraph(said), whole], is_folded=True)]


def _at_stage(name: str, of: _Of) -> str:
    return gib(mean([a.stages.get(name) for a in of[1]]), 3)


def _after_load(load: str, of: _Of) -> str:
    return gib(mean([a.cells.get(load) for a in of[1]]), 3)


def _late(each: Starts) -> str:
    is_late = any(
        "weights_begin" in a.stages and PROGRAM in a.parts and "reckoned" in a.parts[PROGRAM].sources
        for a in each
    )
    return (
        " Some weights were in already at weights begin: it shows more than the program." if is_late else ""
    )


def expected_parts(found: Found, shown: Names) -> list[Part]:
    """Return what `bench fit` expected beside what was measured; nothing where it expected nothing."""
    things = [(name, each) for name, starts in found.items() for each in expectations(starts)]
    return listed(
        "Predicted by bench fit",
        "GiB. Predicted from the model's shape alone, before anything is started; the total has what it "
        "assumes for all else. Error: predicted / measured - 1.",
        {
            "deployment": lambda pair: shown[pair[0]],
            "part": lambda pair: pair[1].part,
            "predicted": lambda pair: gib(pair[1].expected_bytes, 3),
            "measured": lambda pair: gib(pair[1].measured_bytes, 3),
            "error": lambda pair: f"{round(100 * pair[1].error_share, 1) + 0.0:+.1f} %",  # no -0.0
            "measured by": lambda pair: pair[1].source,
        },
        things,
        lambda pair: Of(pair[0]),
        "plain expected",
    )
