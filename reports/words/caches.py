"""What a prefix cache served, in sentences."""

from reports.checks.finding import group_name
from reports.data import Run, grouped
from reports.measures import number, several
from reports.measures.traffic.cache import doubts, served_of


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
    """Say where the numbers of a group contradict each other, or that the times agree with what it says."""
    found = served_of(run)
    said = [
        f"{group_name(own[0].group)}, {several(wrong, '; ')}."
        for own in grouped(found, lambda each: each.group.key).values()
        if (wrong := doubts(own))
    ]
    if not said and any(each.inferred and each.reported is not None for each in found):
        return ["At one user the times to the first token agree with what is reported."]
    return said
