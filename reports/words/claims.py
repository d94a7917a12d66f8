"""What each section says first, and notes on how to read it. The words of Trust are in grounds.py."""

from collections import Counter
from collections.abc import Sequence

from serving_bench.reports.checks.bounds import BUSY_SHARE, KV_FULL_SHARE, MOST, WORDS, bounds_of, decodes_of
from serving_bench.reports.data import Group, Run, grouped
from serving_bench.reports.measures import BARS, aggregate, number, plural, precise, price_of, several
from serving_bench.reports.measures.anatomy import anatomies
from serving_bench.reports.measures.distributions import Spread
from serving_bench.reports.measures.energy import COST, ENERGY, api_prices, powers_of, told_of, why_unknown
from serving_bench.reports.measures.memory_parts import Held, courses_of, held_of
from serving_bench.reports.measures.traffic.cache import confirmation, doubts, served_of
from serving_bench.reports.verdicts import comparisons_of, load_cases_of
from serving_bench.reports.words.verdict_words import capital, family_text, margin_text, slo_words, title_at

# --- side by side ----------------------------------------------------------------------------------

BESIDE = {
    "start": "Means over starts, with the 95 % interval in brackets (for two starts, their range).",
    "block": "Means over blocks (repeats), with their range in brackets. The server was already running and "
    "was not restarted between them, so how much starts differ is not known.",
}


def repeat_word(run: Run) -> str:
    """Return what a repeat is: a `start`, or a `block` on a server that was not restarted."""
    return "start" if all(map(run.is_restarted, run.deployments)) else "block"


def ratios(run: Run) -> str:
    """Return what the ratios are to and at which level they hold, or why there are none."""
    comparisons = comparisons_of(run)
    if not comparisons.rows:
        return "No verdicts: no two deployments serve the same model." * bool(run.planned_cells)
    if comparisons.why_none or not comparisons.family:
        return f"No verdicts: {comparisons.why_none or 'each value has the reason below it'}."
    return (
        "Below a value is its ratio to the best of its column, or to compare.baseline "
        f"({family_text(comparisons.family, comparisons.alpha)}). "
        f"Same: within {margin_text(run.record.compare.margin_share)}."
    )


# --- throughput and latency -------------------------------------------------------------------------


def not_drawn(name: str, wanted: str, absent: Sequence[Group]) -> str:
    """Return why another percentile (`ttft_s.p95`) is drawn than asked for, and which points are missing."""
    drawn, wanted_part = (each.partition(".")[2] for each in (name, wanted))
    prefix = (
        f"This is {drawn}: too few points have enough requests for {wanted_part}. " if name != wanted else ""
    )
    names = several([group.name for group in absent], "; ")
    return (prefix + (f"Not drawn, because a value is missing: {names}." if absent else "")).rstrip()


def search_claim(run: Run) -> str:
    """Return what was searched for, from where to where, and how finely."""
    terms = run.record.search
    if terms is None:
        return ""
    is_of_users = terms.over == "concurrency"
    what = "users" if is_of_users else "conversations begun per second"
    return (
        f"The highest load, in {what}, that keeps the SLO ({slo_words(run.record.slo)}). It was searched on "
        f"each start from {terms.lowest:g} to {terms.highest:g}: doubled until an objective was missed, then "
        f"bisected to within {100 * terms.precision_share:g} %{' or one user' * is_of_users}."
    )


def too_few(spreads: Sequence[Spread]) -> str:
    few = [each.group.deployment for each in spreads if not each.whole.is_enough]
    return f"Too few requests: {several(few)}." if few else ""


# --- memory ----------------------------------------------------------------------------------------

GIB = 2.0**-30


def gib(size_bytes: float | None, digits: int = 3) -> str:
    """Return a size in GiB without the unit."""
    return number(size_bytes, digits, GIB)


def tokens(count: float | None) -> str:
    return "" if count is None else f"{count:,.0f} tokens"


def part_name(name: str) -> str:
    return name.replace("kv_", "KV ")


def held_title(run: Run) -> str:
    """Return how much of a server's memory no request needed, if that is over a tenth."""
    memories = held_of(run)
    # If the heaviest load of a deployment does not count, what it needed is understated.
    loads = frozenset[tuple[str, str]]().union(*(each.starts[0].loads for each in memories))
    whole = [each for each in memories if each.starts[0].loads == loads]
    spare = max((1 - each.needed_bytes / each.total_bytes for each in whole if each.needed_bytes), default=0)
    if spare > 0.1:
        return f"Up to {100 * spare:.0f} % of a server's memory is KV cache that no request needed"
    return "What the servers' memory is made of"


def held_claim(run: Run) -> str:
    """Return what was measured, on which starts, and which starts are left out."""
    starts = [start for each in held_of(run) for start in each.starts]
    others = [start for each in anatomies(run).values() for start in each if start not in starts]
    left_out = {
        "other cells were measured on them": sorted(each.record.name for each in others if each.loads),
        "no cell on them counts": sorted(each.record.name for each in others if not each.loads),
    }
    count = "one start each" if len(starts) == len(held_of(run)) else f"means over {len(starts):,} starts"
    return (
        f"{capital(several([start.what for start in starts], '; '))}: {count}. "
        "Needed counts only the KV cache that requests held at once, not all that is reserved."
        + "".join(f" Left out, since {why}: {', '.join(names)}." for why, names in left_out.items() if names)
    )


def held_finding(run: Run) -> str | None:
    cases = (case for case in load_cases_of(run) if case.is_open)
    titles = (title_at(run, "memory_peak_bytes", case.groups) for case in cases)
    return next(filter(None, titles), None)


def held_words(memory: Held) -> str:
    needed = "held" if memory.needed_bytes is None else f"needs {gib(memory.needed_bytes, 2)} of"
    return f"{memory.label} {needed} {gib(memory.total_bytes, 2)}"


def held_range(memory: Held) -> str:
    low, high = (gib(end(start.total_bytes for start in memory.starts)) for end in (min, max))
    return "" if low == high else f"{low}–{high}"


def course_claim(run: Run) -> str:
    """Return which memory is drawn over time, and how; empty if none was sampled."""
    kinds = "; ".join(dict.fromkeys(each.what for each in courses_of(run)))
    if not kinds:
        return ""
    return f"{capital(kinds)}. One line per start, the first in bold. All charts have the same scale."


# --- energy and cost -------------------------------------------------------------------------------

_POWER = (
    "Power is the sum over the server's devices, averaged over the windows. On a host it is that of the CPU "
    "packages, and includes what the load process and bench itself draw. Joules are net of idle power, which "
    "is read in the second before each start. "
)


def cost_claim(run: Run) -> str:
    """Return how to read the charts of energy and cost; empty if there are none."""
    values = [aggregate(run, group, name).mean for group in run.groups for name in (ENERGY, COST)]
    return f"Lower is better. Points are means over starts. {BARS}" if any(values) else ""


def cost_note(run: Run) -> str:
    """Return how power was measured, which prices were given, and where the providers' prices are from."""
    groups = told_of(run)
    note = _POWER if any(powers_of(run, group) for group in groups) else ""
    price = price_of(run)
    if price and price.is_by_token:
        cached = "" if price.cached_tokens is None else f" ({precise(price.cached_tokens, 2)} if cached)"
        note += (
            f"Priced at {precise(price.input_tokens, 2)}{cached} {price.currency} per million input tokens "
            f"and {precise(price.output_tokens, 2)} per million output tokens, as the server counted them "
            "for requests that were answered. "
        )
    if price and price.gpu_hour is not None:
        note += (
            f"Priced at {precise(price.gpu_hour, 2)} {price.currency} per device hour (a host is one "
            "device), with the device used for nothing else and as busy as in the window. "
        )
        if prices := [api for group in groups for api in api_prices(run, group).values()]:
            sources = dict.fromkeys(f"{api.source}, {api.as_of}" for api in prices)
            note += f"Providers: the same requests at their prices for the model ({', '.join(sources)}). "
    return note


def cost_unknown(run: Run) -> list[str]:
    groups = [group for group in run.groups if group.counted]
    unknowns = [(what, why, group) for group in groups for what, why in why_unknown(run, group).items()]
    return [
        f"{what} is not known{_whose([group for *_, group in same_why], len(groups))}: {why}."
        for (what, why), same_why in grouped(unknowns, lambda each: each[:2]).items()
    ]


def _whose(groups: Sequence[Group], of: int) -> str:
    named = several([group.name for group in groups])
    return "" if len(groups) == of else f" of {named}"


# --- what limited each load ------------------------------------------------------------------------

BOUNDS = "What limited each load"
BOUND_HOW = (
    "From the servers' metrics, read once a second, and the client's own record, in the windows that count. "
    f"Waited: in more than {100 * MOST:.0f} % of the samples. Full: {100 * KV_FULL_SHARE:.0f} % or more of "
    f"the KV cache in use, or no room for a long request. Busy: {100 * BUSY_SHARE:.0f} % of the capacity. "
    "The first cause that holds is given, in this order: other programs, the client, KV cache, slots, "
    "compute, arrival rate, users."
)
DECODE_NOTE = (
    "Level while few requests are in flight: bandwidth is the limit, and smaller weights are faster. "
    "Falling: compute, the KV cache or the queue takes over."
)


def bounds_title(run: Run) -> str:
    """Return what limited the heaviest load, if the run has one axis of loads."""
    bounds = bounds_of(run)
    if len({(group.scenario, group.family) for group, _ in bounds}) > 1:
        return BOUNDS
    heaviest = max((group for group, _ in bounds), key=lambda group: group.level)
    last = [WORDS[bound.kind] for group, bound in bounds if group.level == heaviest.level]
    counts = [f"{words} ({count} of {len(last)})" for words, count in Counter(last).most_common()]
    return f"What limited {heaviest.load}: {', '.join(counts)}"


def not_known(run: Run) -> list[str]:
    """Return what is not known about what limited a load, each once with the groups that lack it."""
    unknowns = [(bound.unknown, group) for group, bound in bounds_of(run)]
    by_what = grouped([pair for pair in unknowns if pair[0]], lambda pair: pair[0]).items()
    return [
        f"Not known{_whose([g for _, g in same_why], len(unknowns))}: {what}." for what, same_why in by_what
    ]


def decode_finding(run: Run) -> str | None:
    top = max((e.read_gb_per_s / e.roof_gb_per_s for e in decodes_of(run) if e.roof_gb_per_s), default=0.0)
    return f"Decode uses up to {100 * top:.0f} % of the memory's bandwidth" if 0.01 <= top <= 1 else None


def unread(run: Run) -> str:
    """Return which servers' metrics could not be read, and why; empty if no server was sampled."""
    notes = {
        name: [each.memory_notes.get("server samples") for each in run.starts_of(name)]
        for name in run.deployments
    }
    unread_columns = [
        f"{name} ({several([w for w in why if w], '; ')})" for name, why in notes.items() if any(why)
    ]
    return (
        f"Metrics that could not be read: {'; '.join(unread_columns)}."
        if unread_columns and run.server is not None
        else ""
    )


# --- what a prefix cache served ---------------------------------------------------------------------


_MORE_NEW = (
    "Prompts that were never sent before would show it: chats have them with scenario.system_words=0, and "
    "scenario=NAME,fixed scenario.input_tokens=32..512 adds them to any scenario."
)

# By the keys of CellRecord.ideal_by.
_COUNTED = {"tokens": "in tokens", "characters": "by its share of characters"}


def cache_claim(run: Run) -> str:
    """Return which share of the ideal each deployment says it served, at the first load; empty if unknown."""
    whole = [each for each in served_of(run) if not each.part and each.of_ideal is not None]
    shares = [
        f"{each.group.deployment} {number(each.of_ideal, 0, 100)} %"
        for each in whole
        if each.group.key[1:] == whole[0].group.key[1:]
    ]
    if not shares:
        return ""
    return f"Share of the ideal that was served, as reported, at {whole[0].group.load}: {several(shares)}."


def ideals(run: Run) -> list[str]:
    """Return how the ideals of the run's requests were counted."""
    records = [cell.record for cell in run.planned_cells if cell.record and cell.record.ideal_by]
    counts = sum((Counter(record.ideal_by) for record in records), Counter[str]())
    counts_by_kind = ", ".join(
        f"{_COUNTED[by]} for {plural(n, 'request')}" for by, n in sorted(counts.items())
    )
    return [f"The ideal was counted {counts_by_kind}."] if served_of(run) else []


def contradictions(run: Run) -> list[str]:
    """Return where the numbers of a group contradict each other.

    For every other group with one user, whether its times confirm what is reported.
    """
    clauses, whys = [], list[str]()
    for served in grouped(served_of(run), lambda each: each.group.key).values():
        group, reasons = served[0].group, doubts(served) or [confirmation(served[0])]
        if any(reasons):
            clauses.append(f"{group.name}, {several(reasons, '; ')}.")
        elif served[0].why and group.cells[0].at_once == 1:
            whys.append(f"{group.deployment}: {served[0].why}")
    if whys:
        clauses.append(f"TTFT says nothing about the cache of {several(whys, '; ')}. {_MORE_NEW}")
    return clauses
