"""What is said first of memory, of energy and cost, and of what bounded each load; and how to read them."""

from collections import Counter

from reports.checks.bounds import BUSY_SHARE, KV_FULL_SHARE, MOST, bounds_of, decodes_of
from reports.data.cells import grouped
from reports.data.run import Run
from reports.measures.anatomy import anatomies
from reports.measures.energy import COST, ENERGY, api_prices, powers_of, told_of, why_unknown
from reports.measures.held import Held, courses_of, held_of
from reports.measures.over_starts import BARS, aggregate
from reports.measures.values import price_of
from reports.measures.written import number, plural, precise, several
from reports.verdicts.load_cases import load_cases_of, opened
from reports.words.verdict_words import capital, title_at

GIB = 2.0**-30


# --- memory ----------------------------------------------------------------------------------------

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
    spare = max((1 - each.needed_bytes / each.total_bytes for each in whole if each.needed_bytes), default=0)
    if spare > 0.1:
        return f"Up to {100 * spare:.0f} % of a server's memory is KV cache that no request needed"
    return "What the servers' memory is made of"


def held_claim(run: Run) -> str:
    """Return what was measured, on which starts, and which starts are left out."""
    starts = [start for each in held_of(run) for start in each.starts]
    every = {start.record.name for each in anatomies(run).values() for start in each}
    left_out = ", ".join(sorted(every - {start.record.name for start in starts}))
    return (
        f"{capital(several([start.what for start in starts], '; '))}: means over "
        f"{plural(len(starts), 'start')}. Needed: with the KV cache that requests held at once, not the one "
        "reserved." + (f" Left out, as other cells were measured on them: {left_out}." if left_out else "")
    )


def held_finding(run: Run) -> str | None:
    """Return which deployment needs the least memory, where that is decided."""
    found = (title_at(run, "memory_peak_bytes", case.groups) for case in opened(run, load_cases_of(run)))
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


# --- energy and cost -------------------------------------------------------------------------------

_POWER = (
    "Power in the windows, of all the server's devices together (on a host: of the CPU's packages, and what "
    "the load process and bench itself draw is in it). Joules are net of idle, which is read in the second "
    "before each start. "
)


def cost_claim(run: Run) -> str:
    """Return how to read the charts of energy and cost; nothing where there is none."""
    known = [aggregate(run, group, name).mean for group in run.groups for name in (ENERGY, COST)]
    return f"Lower is better. Points are means over starts. {BARS}" if any(known) else ""


def cost_note(run: Run) -> str:
    """Return how power was measured, what an hour costs, and whose prices providers' are."""
    told = told_of(run)
    said = _POWER if any(powers_of(run, group) for group in told) else ""
    if price := price_of(run):
        said += (
            f"At {precise(price.gpu_hour, 2)} {price.currency} for an hour of a device (a host is one), "
            "used for nothing else and as busy as in the window. "
        )
        if known := [api for group in told for api in api_prices(run, group).values()]:
            sources = dict.fromkeys(f"{api.source}, {api.as_of}" for api in known)
            said += f"Providers: the same requests at their prices for the model ({', '.join(sources)}). "
    return said


def cost_unknown(run: Run) -> list[str]:
    """Return what is not known of energy and cost, of which groups, and why."""
    groups = [group for group in run.groups if group.counted]
    found = [(what, why, group) for group in groups for what, why in why_unknown(run, group).items()]
    said = []
    for (what, why), own in grouped(found, lambda each: each[:2]).items():
        of = f" of {several([f'{group.deployment} at {group.load}' for *_, group in own])}"
        said.append(f"{what} is not known{'' if len(own) == len(groups) else of}: {why}.")
    return said


# --- what bounded each load ------------------------------------------------------------------------

BOUNDS = "What bounded each load"
BOUND_BY = (
    "What kept each deployment from serving more at a load. Users: no request waited, each one's own time "
    "counts; arrival rate: as many ended as came; slots, KV cache: requests waited for these; compute: "
    "processor or device busy all the time; the client: bench itself did not keep up."
)
BOUND_HOW = (
    "By the servers' metrics, asked once a second, and the client's own record, in the windows that count. "
    f"Waited: in more than {100 * MOST:.0f} % of the samples. Full: {100 * KV_FULL_SHARE:.0f} % of the KV "
    f"cache or more, or no room for a long request. Busy: {100 * BUSY_SHARE:.0f} % of what there is. The "
    "first that holds is given, from the client to the users."
)
DECODE = (
    "A decode step reads all weights once for all requests in flight, so this is the least bandwidth that "
    "the device gave; of a mixture of experts it is the most. Dashed: what its memory can give, as measured "
    "when the run began (of a card: by NVML's clock and bus)."
)
DECODE_NOTE = (
    "Level while few are in flight: bandwidth bounds it, and smaller weights are faster. Falling: compute, "
    "the KV cache or the queue takes over."
)
TOLD = (
    "Means in the windows over starts, and the highest sample. By each server's page of metrics, asked "
    "once a second: requests, KV cache, preemptions, time until work begins. By the system: "
    "cores that the server kept busy, what neither it nor the client used."
)


def bounds_title(run: Run) -> str:
    """Return what bounded the heaviest load, where the run has one axis of loads."""
    found = bounds_of(run)
    if len({(group.scenario, group.family) for group, _ in found}) > 1:
        return BOUNDS
    heaviest = max((group for group, _ in found), key=lambda group: group.level)
    last = [bound.words for group, bound in found if group.level == heaviest.level]
    said = (f"{words} ({count} of {len(last)})" for words, count in Counter(last).most_common())
    return f"What bounded {heaviest.load}: {', '.join(said)}"


def decode_finding(run: Run) -> str | None:
    """Return the greatest share of what the memory can give that decode read."""
    most = max((e.read_gb_per_s / e.roof_gb_per_s for e in decodes_of(run) if e.roof_gb_per_s), default=0.0)
    return f"Decode reads up to {100 * most:.0f} % of what the memory can give" if 0 < most <= 1 else None


def unread(run: Run) -> str:
    """Return which servers' metrics could not be read, and why; nothing where none was asked."""
    notes = {
        name: [each.memory_notes.get("server samples") for each in run.starts_of(name)]
        for name in run.deployments
    }
    said = [f"{name} ({several([w for w in why if w], '; ')})" for name, why in notes.items() if any(why)]
    return f"Not read: {'; '.join(said)}." if said and run.server is not None else ""
