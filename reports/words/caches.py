"""What a prefix cache served, in sentences."""

from reports.checks.finding import group_name
from reports.data import Run, grouped
from reports.measures import number, several
from reports.measures.traffic.cache import doubts, served_of

_MORE_NEW = (
    "Chats have new prompts with scenario.system_words=0; scenario=NAME,fixed scenario.input_tokens=32..512 "
    "sends others beside any scenario."
)


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


def contradictions(run: Run) -> list[str]:
    """Say where the numbers of a group contradict each other; if nowhere, whether the times agree."""
    found = served_of(run)
    said = [
        f"{group_name(own[0].group)}, {several(wrong, '; ')}."
        for own in grouped(found, lambda each: each.group.key).values()
        if (wrong := doubts(own))
    ]
    if said or not found:
        return said
    alone = [each for each in found if each.group.cells[0].at_once == 1]
    if any(each.inferred and each.reported is not None for each in alone):
        return ["At one user the times to the first token agree with what is reported."]
    whys = list(dict.fromkeys(each.why for each in alone if each.why))
    return [f"The times to the first token tell nothing: {several(whys, '; ')}. {_MORE_NEW}"] if whys else []
