"""Speculation: what was proposed and accepted, what it gained, and that the answers stay the same."""

from reports.checks.unequal_work import BECAME
from reports.data import Run
from reports.measures.speculation import Speculated, speculated_of
from reports.measures.written import NOTHING, number
from reports.page.cells import none_cell
from reports.page.declared import Table, Topic, below, of_group
from reports.page.looks import Html, prose
from reports.verdicts import SPEED, comparisons_of
from reports.words import quality
from reports.words.verdict_words import ratio_text, title_of, word_of


def _gain(run: Run, each: Speculated) -> Html:
    if each.off is None:
        return none_cell("there is none without speculation to hold it against")
    found = comparisons_of(run).of(*each.group.key[1:], SPEED, each.group.deployment, each.off)
    if found is None:
        return none_cell("compare.baseline is another: these two are not compared")
    if found.why:
        return none_cell(found.why)
    return below(ratio_text(SPEED, found), word_of(SPEED, found, run.record.compare.margin_share))


def _answers(each: Speculated) -> Html | str:
    others = [f"{n} {BECAME[became]}" for became, n in each.became.items() if became != "same"]
    same = f"{each.became.get('same', 0)} of {sum(each.became.values())}"
    return below(same, ", ".join(others)) if each.became else NOTHING


SPECULATION = Topic(
    "speculation",
    "Speculation",
    [
        Table[Speculated](
            "By load",
            speculated_of,
            lambda run: {
                "deployment": lambda each: each.group.deployment,
                "load": lambda each: each.group.load,
                "drafted tokens": lambda each: number(each.drafted_tokens, 0),
                "accepted %": lambda each: number(each.accepted_share, scale=100),
                "accepted per step": lambda each: number(each.accepted_per_step, 2),
                f"{title_of(SPEED)} against off": lambda each: _gain(run, each),
                "KL nats against off": lambda each: below(*quality.cells(each.quality)[0]),
                "the same answers": _answers,
            },
            lambda each: of_group(each.group),
            is_bare=True,
        )
    ],
    prose("speculation"),
)
