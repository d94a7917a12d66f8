"""What charts by turn may be titled: findings that intervals support, else nothing. Knows no run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.measures.over_starts import Aggregate, has_interval
from reports.measures.turns import Growth
from reports.measures.written import several
from reports.stats.intervals import of_values
from reports.words.verdict_words import margin_text, ratio_words

# More names than these are told by their number.
_NAMED_AT_MOST = 2
# A prompt that is found in the cache by more than this is mostly there; by less than that, hardly.
MOSTLY, HARDLY = 0.5, 0.05


@dataclass(frozen=True)
class Turned:
    """A deployment's last turn against its first one, as a person counts them; None: not told."""

    deployment: str
    first: int
    last: int
    growth: Growth | None


def growth_title(quantity: str, found: Sequence[Turned], margin_share: float) -> str:
    """`Median TTFT rises from turn 1 to 5 on llama_cpp fp16; stays within 5 % on vllm awq`; empty where
    nothing is clear of any."""
    by_change: dict[str, list[str]] = {}
    for each in found:
        if each.growth and each.growth.change != "unclear":
            by_change.setdefault(each.growth.change, []).append(each.deployment)
    verbs = {"rises": "rises", "falls": "falls", "flat": f"stays within {margin_text(margin_share)}"}
    told = [(verb, by_change[change]) for change, verb in verbs.items() if change in by_change]
    if not told:
        return ""
    (verb, names), *rest = told
    head = f"{quantity} {verb} from turn {found[0].first} to {found[0].last}{_on(names, len(found))}"
    return "; ".join([head, *(f"{verb}{_on(names, len(found))}" for verb, names in rest)])


def _on(names: Sequence[str], of_all: int) -> str:
    """` on a and b`, ` on 3 of 4 deployments`, ` on all 4 deployments`; nothing for the only one."""
    if len(names) == of_all:
        return "" if of_all == 1 else f" on {'both' if of_all == 2 else f'all {of_all}'} deployments"
    if len(names) > _NAMED_AT_MOST:
        return f" on {len(names)} of {of_all} deployments"
    return f" on {' and '.join(names)}"


def growth_note(found: Sequence[Turned]) -> str:
    """The ratios with their intervals; empty where no deployment has one."""
    ratios = [f"{each.deployment} {_ratio(each.growth)}" for each in found if each.growth]
    if not ratios:
        return ""
    return f"Turn {found[0].last} against turn {found[0].first} of the same start: {several(ratios, '; ')}."


def _ratio(found: Growth) -> str:
    doubt = " (cannot tell)" if found.change == "unclear" else ""
    return f"{ratio_words(found.ratio, found.interval, is_told=found.change in ('rises', 'falls'))}{doubt}"


def cache_title(found: Mapping[str, Mapping[int, Aggregate]], confidence: float) -> str:
    """Which deployments have most of the last turn's prompt in the prefix cache, and which hardly any, by
    their whole interval at this confidence; empty where none of either is clear. Turns from 0."""
    last = min(max(turn for turn, mean in means.items() if mean.mean is not None) for means in found.values())
    ends = {
        name: _interval(mean, confidence)
        for name, means in found.items()
        if (mean := means.get(last)) and has_interval(mean)
    }
    mostly = [name for name, (low, _) in ends.items() if low > MOSTLY]
    hardly = [name for name, (_, high) in ends.items() if high < HARDLY]
    if mostly:
        head = f"The prefix cache has most of turn {last + 1}'s prompt{_on(mostly, len(found))}"
        return f"{head}; hardly any{_on(hardly, len(found))}" if hardly else head
    return (
        f"The prefix cache has hardly any of turn {last + 1}'s prompt{_on(hardly, len(found))}"
        if hardly
        else ""
    )


def _interval(mean: Aggregate, confidence: float) -> tuple[float, float]:
    """Of the starts' values, wider than the one that is drawn."""
    known = [value for value in mean.values if value is not None]
    return of_values(known, is_log=False).interval(confidence)
