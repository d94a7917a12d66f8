"""What is said first of values side by side, of throughput and of latency; and how to read them."""

from collections.abc import Sequence

from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.distributions import Spread
from reports.measures.over_starts import BARS
from reports.measures.written import several
from reports.verdicts.comparisons import comparisons_of
from reports.verdicts.searches import Answer, Capacity
from reports.words.verdict_words import family_text, margin_text, slo_words

# --- side by side ----------------------------------------------------------------------------------

BESIDE = {
    "starts": "Means over starts, with their 95 % interval in brackets (of two starts their range).",
    "blocks": "Means over blocks (repeats), with their range in brackets: the server was running already and "
    "not restarted between them, so how much starts differ is not known.",
}
SIDE_BY_SIDE = (
    "A dash is no value; its tooltip says why, that of a value has its n. Where not all starts have a "
    "value, how many have stands below it; a percentile has a mean only if each start has requests enough. "
    "E2E and requests/s need answers of the length asked for. A ratio is the mean of the blocks' ratios; a "
    "block is one repeat, in which every deployment was started once."
)
START_UP = (
    "Means over a bar's starts; a tick is one start. Each step ends with the stage that it is named by; one "
    "that was not seen is part of the next. A first start may compile, and read its files for the first time."
)


def repeats_word(run: Run) -> str:
    """Return what a repeat is: `starts`, or `blocks` on a server that was not restarted."""
    return "starts" if all(map(run.is_restarted, run.deployments)) else "blocks"


def ratios(run: Run) -> str:
    """Return what ratios are to and at which level, or why there are none."""
    found = comparisons_of(run)
    if not found.rows:
        return "No verdicts on values: no two deployments are of one model."
    if found.why_none or not found.family:
        return f"No verdicts: {found.why_none or 'no comparison allows one; each says why'}."
    return (
        "Below a value its ratio to that of the column's reference (the leader, or compare.baseline), "
        f"{family_text(found.family, found.alpha)}; "
        f"same: within {margin_text(run.record.compare.margin_share)}."
    )


# --- throughput ------------------------------------------------------------------------------------

AGAINST = (
    "Up and to the left is better. A line is a deployment, its points are loads from the lowest to the "
    "highest. The broad grey line is the front: no other point has more tokens/s at less latency."
)
_KEEPS = (
    "A deployment keeps the SLO where the interval of each objective's share (95 % over its loads together) "
    "is not below what is asked; it does not where one is wholly below; else it is not clear. Of several "
    "starts the interval also holds the t interval of their shares. A failed request meets no objective."
)
SEARCHED = (
    "A deployment's answer is the least of its starts' answers. Loads are steps of a grid and have no "
    "variance: they order deployments and are never tested. Points are means over the starts that tried it. "
    + _KEEPS
)


def how_against(run: Run) -> str:
    """Return how to read throughput against latency, and with an SLO who keeps it."""
    slo = f" Goodput: requests per second that met every objective. {_KEEPS}" if run.record.slo else ""
    return f"Points are means over starts. {BARS} The front goes by means and is no verdict.{slo}"


def not_drawn(name: str, wanted: str, absent: Sequence[Group]) -> str:
    """Return why another percentile (`ttft_s.p95`) is drawn than wanted, and which points are not."""
    drawn, asked = (each.partition(".")[2] for each in (name, wanted))
    said = f"{drawn}: too few points have requests enough for {asked}. " if name != wanted else ""
    names = several([f"{group.deployment} at {group.load}" for group in absent], "; ")
    return said + (f"Not drawn, with no value of both: {names}." if absent else "")


def search_claim(run: Run) -> str:
    """Return what was searched for, from where to where, and how finely."""
    terms = run.record.search
    if terms is None:
        return ""
    what, least = "conversations begun per second", ""
    if terms.over == "concurrency":
        what, least = "users", ", or one user"
    return (
        f"The highest load, in {what}, that keeps the SLO ({slo_words(run.record.slo)}). Searched on each "
        f"start from {terms.lowest:g} to {terms.highest:g}: doubled until an objective broke, then halved "
        f"between the two to within {100 * terms.precision_share:g} %{least}."
    )


def kept_and_broken(found: Capacity) -> str:
    """Return between which loads each start's answer lies: `8 – 9; 6 – 7`, once if all say the same."""
    said = list(map(_bracket, found.answers))
    return "; ".join(said if len(set(said)) > 1 else said[:1])


def _bracket(answer: Answer) -> str:
    if not answer.is_whole or answer.broken is None:
        return answer.words
    return f"{'none' if answer.kept is None else f'{answer.kept:g}'} – {answer.broken:g}"


# --- latency ---------------------------------------------------------------------------------------

LATENCY = "Lower is better. ITL is the gap between chunks; how many tokens these have stands in Trust."
PERCENTILES = (
    f"Points are means over starts of each start's percentile. {BARS} A point is missing where a start "
    "had too few requests for that percentile. TTFT and E2E count from the moment a request was sent "
    "(users), or was due (rates and traces)."
)
SAME_REQUESTS = (
    "Below the dotted line the deployment answered that request sooner. Requests of one start are not "
    "independent: no verdict comes from it."
)


def too_few(found: Sequence[Spread]) -> str:
    """Return which deployments have too few requests for a distribution."""
    few = [each.group.deployment for each in found if not each.whole.is_enough]
    return f"Too few requests: {several(few)}." if few else ""
