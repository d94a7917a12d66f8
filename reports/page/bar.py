"""The bar at the top of the page: links to its sections, filters of what is shown, and the one legend.

Draws no chart and hides nothing itself: follow.js and filters.js do.
"""

from collections.abc import Mapping

from reports.data.run import Run
from reports.page.looks import key
from reports.page.markup import Html, macro


def bar(run: Run, names: Mapping[str, str]) -> Html:
    """Return the bar. `names` are those of the sections that the page has, by id."""
    word = "start" if all(map(run.is_restarted, run.deployments)) else "block"
    wholes = {"deployment": "all deployments", "load": "all loads", "start": f"all {word}s"}
    filters = [(name, wholes[name], found) for name, found in choices(run, word).items()]
    return macro("bar", names, filters, key(run))


def choices(run: Run, word: str) -> dict[str, list[tuple[str, str]]]:
    """Return what can be chosen, as value and words, of each filter that has more than one choice."""
    by_load = {group.load: (group.family, group.level) for group in run.groups}
    starts = sorted({cell.planned.repeat + 1 for cell in run.planned_cells})
    found = {
        "deployment": [(label, label) for label in run.deployments],
        "load": [(load, load) for load in sorted(by_load, key=by_load.__getitem__)],
        "start": [(str(start), f"{word} {start}") for start in starts],
    }
    return {name: pairs for name, pairs in found.items() if len(pairs) > 1}
