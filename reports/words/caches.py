"""What a prefix cache served, in sentences."""

from collections import Counter

from reports.checks.finding import group_name
from reports.data import Run, grouped
from reports.measures import number, plural, several
from reports.measures.traffic.cache import confirmation, doubts, served_of

_MORE_NEW = (
    "Chats have new prompts with scenario.system_words=0; scenario=NAME,fixed scenario.input_tokens=32..512 "
    "sends others beside any scenario."
)

# By key of CellRecord.ideal_by.
_COUNTED = {"tokens": "in tokens", "characters": "by its share of characters"}


def claim(run: Run) -> str:
    """Say which share of what could be served each deployment says it served, at the first load."""
    whole = [each for each in served_of(run) if not each.part and each.of_ideal is not None]
    shares = [
        f"{each.group.deployment} {number(each.of_ideal, 0, 100)} %"
        for each in whole
        if each.group.key[1:] == whole[0].group.key[1:]
    ]
    if not shares:
        return ""
    return f"Of what had been sent before, served as reported at {whole[0].group.load}: {several(shares)}."


def ideals(run: Run) -> list[str]:
    """Say how the ideals of the run's requests were counted."""
    records = [cell.record for cell in run.planned_cells if cell.record and cell.record.ideal_by]
    counts = sum((Counter(record.ideal_by) for record in records), Counter[str]())
    said = ", ".join(f"{_COUNTED[by]} for {plural(n, 'request')}" for by, n in sorted(counts.items()))
    return [f"The ideal was counted {said}."] if served_of(run) else []


def contradictions(run: Run) -> list[str]:
    """Say where the numbers of a group contradict each other, and of each other group of one user whether its
    times confirm what is reported."""
    said, whys = [], list[str]()
    for own in grouped(served_of(run), lambda each: each.group.key).values():
        group, found = own[0].group, doubts(own) or [confirmation(own[0])]
        if any(found):
            said.append(f"{group_name(group)}, {several(found, '; ')}.")
        elif own[0].why and group.cells[0].at_once == 1:
            whys.append(f"{group.deployment}: {own[0].why}")
    if whys:
        said.append(f"The times to the first token tell nothing of {several(whys, '; ')}. {_MORE_NEW}")
    return said
