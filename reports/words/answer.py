"""The run's answer in a sentence or two: what is proven, with its interval and load, or why nothing is.

Names nothing as ahead without a verdict. Runs with an SLO and searches: reports/words/decision_text.py.
Knows no chart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.metrics import metric_of
from reports.measures.over_starts import shorter_half
from reports.measures.written import plural, several, span_text, supported
from reports.stats.family import Verdict
from reports.verdicts.comparisons import comparisons_of, remedy
from reports.words.costs import MEMORY, memory_words, on_memory, over_loads, quality_words
from reports.words.lineups import Contender, Lineup, lineups_of, metric_told
from reports.words.said import HEADLINE_AT_MOST, Said, at, capital, clipped, sentence
from reports.words.verdict_words import family_text, margin_text, ratio_text, title_of, word_of

# What is said of a deployment that stands alone.
_ALONE = ("output_tokens_per_s", "ttft_s.p50", "tpot_s.p50", MEMORY)
_REASON_AT_MOST = 200
_SHORT_REASON = 90
# Before the count, where a reason counts starts (reports/verdicts/pairs.py).
_HERE = ", here "

# Two groups and the metric that is compared.
Numbers = tuple[tuple[Group, Group, str], ...]
# A group and the metric that is told of it.
Values = tuple[tuple[Group, str], ...]


@dataclass(frozen=True)
class Against:
    """A deployment with its verdict against the baseline."""

    group: Group
    verdict: Verdict

    @property
    def label(self) -> str:
        return self.group.deployment


@dataclass(frozen=True)
class Compared:
    """`said` is the answer, one for each scenario and model; `basis` says by which rule, empty where there is
    no verdict. `numbers`: what they compare, as two groups and a metric, and `values`: what they say
    of one group alone, for the marks that these bear."""

    said: tuple[Said, ...]
    basis: str = ""
    numbers: Numbers = ()
    values: Values = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        return tuple(each.plain for each in self.said)


def answer_of(run: Run) -> Compared:
    """From the verdicts on the first compared metric, at each scenario's and model's highest common load."""
    if not any(cell.counts for cell in run.planned_cells):
        return Compared((_nothing_measured(run),))
    lineups = lineups_of(run)
    if not comparisons_of(run).rows:
        if len(run.deployments) == 1:
            alone = [each.group for lineup in lineups for each in lineup.contenders if each.group]
            told = tuple((group, name) for group in alone for name in _ALONE)
            return Compared(tuple(_alone(run, lineup) for lineup in lineups), values=told)
        why = "Deployments of different models are not compared."
        return Compared((Said("No winner", why, f"No winner: {why[0].lower()}{why[1:-1]}"),))
    if why_none := comparisons_of(run).why_none:
        text = f"{sentence(why_none)} The values stand side by side. {remedy(run)}".rstrip()
        return Compared((Said("No winner", text, clipped(f"No winner: {why_none}", HEADLINE_AT_MOST)),))
    said: list[Said] = []
    numbers: list[tuple[Group, Group, str]] = []
    for lineup in lineups:
        if found := _compared(run, lineup):
            said.append(found[0])
            numbers += found[1]
    if not comparisons_of(run).family:
        return Compared(tuple(said))
    basis = f"{family_text(comparisons_of(run).family)}; other loads and metrics are in Verdicts."
    return Compared(tuple(said), basis, tuple(numbers))


def _nothing_measured(run: Run) -> Said:
    cells = run.planned_cells
    count = f"None of the {plural(len(cells), 'cell')}" if len(cells) > 1 else "The only cell"
    verb = "has a value that counts" if len(cells) > 1 else "has no value that counts"
    whys = [f"{cell.label}: {cell.reason}" for cell in cells if cell.reason]
    why = clipped(several(whys, "; "), 2 * _REASON_AT_MOST)
    if not cells:
        return Said("No answer", "Nothing was planned.", "No answer: nothing was planned")
    text = f"{count} {verb}{f': {why}' if why else ''}"
    return Said("No answer", sentence(text), "No answer: no cell has a value that counts")


def _alone(run: Run, lineup: Lineup) -> Said:
    """What the run's only deployment does; nothing is compared."""
    [only] = lineup.contenders
    values = {name: text for name in _ALONE if (text := _amount(only, name))}
    if not values:
        return Said(only.label, f"{_where(run, lineup)} it has no value.", f"{only.label}: no value")
    listed = [f"{title_of(name)} {text}" for name, text in values.items()]
    text = f"{_where(run, lineup)}: {', '.join(listed)}. The run has one deployment, so nothing is compared."
    return Said(only.label, text, f"{only.label}: {listed[0]} {at(lineup.load)}")


def _amount(contender: Contender, name: str) -> str:
    """`167 [162, 172] ms`; empty where there is no value."""
    found = contender.value(name)
    if found.mean is None:
        return ""
    unit = "" if title_of(name).endswith("/s") else metric_of(name).shown_unit
    parts = (supported(name, found.mean, shorter_half(found)), span_text(name, found), unit)
    return " ".join(filter(None, parts))


# --- compared --------------------------------------------------------------------------------------


def _compared(run: Run, lineup: Lineup) -> tuple[Said, list[tuple[Group, Group, str]]] | None:
    """What is proven at the line-up's load, and the numbers that it compares; None without a comparison."""
    metric = metric_told(run)
    by_label = {each.label: each.group for each in lineup.contenders if each.group}
    baseline = by_label.get(lineup.baseline or "")
    others = [Against(each.group, each.verdict) for each in lineup.contenders if each.group and each.verdict]
    if baseline is None or not others:
        return None
    where = _where(run, lineup)
    better = [each for each in others if each.verdict.kind == "better"]
    better.sort(key=lambda each: each.verdict.ratio or 0.0, reverse=metric_of(metric).better != "lower")
    if better:
        said, named = _ahead(run, lineup, baseline, better), better
    else:
        said, named = _none_ahead(run, lineup, where, baseline.deployment, others)
    return said, [(each.group, baseline, metric) for each in named]


def _where(run: Run, lineup: Lineup) -> str:
    """`At 4 users`, with what tells it from the run's other answers: `At 4 users of chat with tiny-lm`."""
    has_scenarios = len({group.scenario for group in run.groups}) > 1
    has_models = len({group.model for group in run.groups}) > 1
    of, with_model = f" of {lineup.scenario}", f" with {lineup.model}"
    return capital(f"{at(lineup.load)}{of if has_scenarios else ''}{with_model if has_models else ''}")


def _none_ahead(
    run: Run, lineup: Lineup, where: str, baseline: str, others: Sequence[Against]
) -> tuple[Said, list[Against]]:
    metric, kinds = metric_told(run), {each.verdict.kind for each in others}
    title, where_short = title_of(metric), at(lineup.load)
    if kinds == {"none"}:
        why = _why_none(others)
        text = f"{where} no verdict is given on {title}: {clipped(why, _REASON_AT_MOST)}."
        return Said("No winner", text, f"No winner {where_short}: {clipped(why, _SHORT_REASON)}"), []
    if kinds == {"same"}:
        margin = margin_text(run.record.compare.margin_share)
        text = f"{where} all have the same {title} as {baseline} within {margin}: {_each(metric, others)}."
        text += _smaller(run, lineup, baseline)
        short = f"No difference {where_short}: the same {title} as {baseline} within {margin}"
        return Said("No difference", text, short), list(others)
    word = metric_of(metric).words[0]
    parts = [f"{where} nothing is proven {word} than {baseline} in {title}"]
    for kind in ("same", "worse", "unknown"):
        some = [each for each in others if each.verdict.kind == kind]
        if some:
            named = word_of(metric, some[0].verdict, run.record.compare.margin_share)
            parts.append(f"{named}: {_each(metric, some)}")
    none = [each.label for each in others if each.verdict.kind == "none"]
    parts += [f"no verdict: {several(none)}"] if none else []
    smaller = _smaller(run, lineup, baseline)
    are_worse = kinds == {"worse"}
    lead = baseline if are_worse else "No winner"
    if are_worse:
        who = f"{others[0].label} is" if len(others) == 1 else "all others are"
        how, found = metric_of(metric).words[1], _each(metric, others)
        if len(others) == 1:
            found = ratio_text(metric, others[0].verdict)
        parts = [f"{where} {who} proven {how} in {title}: {found}"]
        short = f"{baseline}: {who} {how} {where_short}, {found}"
    else:
        short = f"No winner {where_short}: nothing is proven {word} than {baseline} in {title}"
    said = Said(lead, f"{'; '.join(parts)}.{smaller}", short)
    return said, [each for each in others if each.verdict.kind != "none"]


def _why_none(others: Sequence[Against]) -> str:
    """Why none has a verdict: each reason once, one that counts starts with the count of each."""
    whys = {each.label: each.verdict.why or "no value" for each in others}
    heads = {why.partition(_HERE)[0] for why in whys.values()}
    if len(set(whys.values())) == 1 or len(heads) > 1:
        return several(list(whys.values()), "; ")
    counts = [f"{why.partition(_HERE)[2]} of {label}" for label, why in whys.items()]
    return f"{heads.pop()}{_HERE}{several(counts)}"


def _ahead(run: Run, lineup: Lineup, baseline: Group, better: Sequence[Against]) -> Said:
    """The one that is ahead by most, and who else is ahead of the baseline."""
    metric = metric_told(run)
    first, rest = better[0], better[1:]
    verb = "gives" if metric_of(metric).better == "higher" else "has"
    found, title = ratio_text(metric, first.verdict), title_of(metric)
    of = f"the {title} of" if first.verdict.is_log else f"{title} against"
    said = f"{_where(run, lineup)} it {verb} {found} {of} {baseline.deployment}"
    said += memory_words(run, lineup, first.label, baseline.deployment)
    said += quality_words(run, first.group, baseline) + "."
    also = f" Also {metric_of(metric).words[0]}"
    orders = {**_ORDERS, "same": f"the same within {margin_text(run.record.compare.margin_share)} as"}
    for kind, how in orders.items():
        some = [each for each in rest if _kind(run, metric, first.group, each.group) == kind]
        if some and kind == "better":
            said += f"{also}, and behind {first.label}: {_each(metric, some)}."
        elif some:
            said += f"{also}: {_each(metric, some)} ({how} {first.label})."
    short = f"{first.label}: {found} {of} {baseline.deployment} {at(lineup.load)}"
    return Said(first.label, said, short)


# How the first stands to the others that are ahead of the baseline.
_ORDERS: Mapping[str | None, str] = {
    "better": "behind",
    "same": "the same as",
    "unknown": "not told apart from",
    None: "not compared with",
}


def _kind(run: Run, metric: str, first: Group, other: Group) -> str | None:
    """Whether the first is proven better than the other, or the same, else `unknown`; None where it was not
    asked, as of pairs without the baseline where there is no SLO."""
    verdict = comparisons_of(run).of(first.scenario, first.load, metric, first.deployment, other.deployment)
    if verdict is None:
        return None
    return verdict.kind if verdict.kind in ("better", "same") else "unknown"


def _smaller(run: Run, lineup: Lineup, baseline: str) -> str:
    """Which others are proven smaller than the baseline, as a sentence; empty for none."""
    told = on_memory(run, lineup)
    asked = [(each.label, told(each.label, baseline)) for each in lineup.contenders if not each.is_baseline]
    found = [f"{label} {ratio_text(MEMORY, v)}" for label, v in asked if v and v.kind == "better"]
    what = f"Needing less memory{over_loads(run)}" if lineup.needed else "Smaller in peak memory"
    return f" {what} than {baseline}: {several(found)}." if found else ""


def _each(metric: str, some: Sequence[Against]) -> str:
    """`a 1.12x [1.08, 1.17], b 1.02x [0.99, 1.05] and 2 more`."""
    return several([f"{each.label} {ratio_text(metric, each.verdict)}" for each in some])
