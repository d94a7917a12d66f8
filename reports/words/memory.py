"""What is said of memory: what it is made of, and how much of it no request needed."""

from reports.data.run import Run
from reports.measures.anatomy import anatomies
from reports.measures.held import Held, courses_of, held_of
from reports.measures.written import number, plural, several
from reports.verdicts.load_cases import load_cases_of, opened
from reports.words.titles import title_at
from reports.words.verdict_words import capital

GIB = 2.0**-30
SOURCES = (
    "Said: by the server, in its log or on its pages. Measured step: what the memory grew by between two "
    "stages of the start. Reckoned: from the model's shape, else from the size of the weights' files. "
    "Workspace is what the first answers took beyond all other parts. KV copies are conversations that the "
    "server saves beside its KV cache. The rest is growth under load, which nothing explains."
)
PREDICTED = (
    "GiB. Predicted from the model's shape alone, before anything is started; the total has what it assumes "
    "for all else. Error: predicted / measured - 1."
)
KV_CACHE = (
    "Reserved: as the server says. Needed: prompts and answers so far of all requests at once, the most in "
    "any window of any start. Users that fit: reserved tokens / the 95th percentile of conversations at "
    "their longest."
)
OVER_TIME = (
    "Shaded: the windows of the first start, with their loads. Lines are thinned; lows and highs are kept."
)


def gib(size_bytes: float | None, digits: int = 3) -> str:
    """Return a size in GiB without the unit."""
    return number(size_bytes, digits, GIB)


def tokens(count: float | None) -> str:
    """Return a count of tokens, or nothing."""
    return "" if count is None else f"{count:,.0f} tokens"


def part_name(name: str) -> str:
    """Return the name of a part as a person reads it."""
    return name.replace("kv_", "KV ")


def held_title(run: Run) -> str:
    """Return how much of a server's memory no request needed, where that is over a tenth."""
    found = held_of(run)
    # A deployment whose heavier load does not count needed less than it would.
    loads = frozenset[tuple[str, str]]().union(*(each.starts[0].loads for each in found))
    whole = [each for each in found if each.starts[0].loads == loads]
    spare = max(
        (1.0 - each.needed_bytes / each.total_bytes for each in whole if each.needed_bytes), default=0
    )
    if spare > 0.1:
        return f"Up to {100 * spare:.0f} % of a server's memory is KV cache that no request needed"
    return "What the servers' memory is made of"


def held_claim(run: Run) -> str:
    """Return what was measured, on which starts, and which starts are left out."""
    starts = [start for each in held_of(run) for start in each.starts]
    kept = [start.record.name for start in starts]
    every = [start.record.name for each in anatomies(run).values() for start in each]
    left_out = ", ".join(name for name in every if name not in kept)
    return (
        f"{capital(several([start.what for start in starts], '; '))}: means over "
        f"{plural(len(starts), 'start')}. Needed: with the KV cache that requests held at once, not the one "
        "reserved." + (f" Left out, as other cells were measured on them: {left_out}." if left_out else "")
    )


def held_finding(run: Run) -> str | None:
    """Return which deployment needs the least memory, where that is decided."""
    cases = opened(run, load_cases_of(run))
    found = (title_at(run, "memory_peak_bytes", case.groups) for case in cases)
    return next(filter(None, found), None)


def held_words(held: Held) -> str:
    """Return what stands above a deployment's bar."""
    total = gib(held.total_bytes, 2)
    said = f"held {total}" if held.needed_bytes is None else f"needs {gib(held.needed_bytes, 2)} of {total}"
    return f"{held.label} {said}"


def held_range(held: Held) -> str:
    """Return the totals of the least and the greatest start, where they differ."""
    low, high = (gib(end(start.total_bytes for start in held.starts)) for end in (min, max))
    return "" if low == high else f"{low}–{high}"


def course_claim(run: Run) -> str:
    """Return whose memory is drawn over time, and how; nothing where none was sampled."""
    kinds = capital("; ".join(dict.fromkeys(each.what for each in courses_of(run))))
    return f"{kinds}. A line per start, the first bold; all charts have the same scale." if kinds else ""
