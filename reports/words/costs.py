"""What a deployment costs against another, in words: memory, and quality that nobody looked at."""

from functools import partial

from reports.checks.examine import marks_across_quantizations
from reports.data.cells import Group
from reports.data.run import Run
from reports.stats.fronts import Told
from reports.verdicts.comparisons import comparisons_of
from reports.verdicts.decision import by_pairs
from reports.words.lineups import Lineup
from reports.words.verdict_words import margin_text, ratio_text

MEMORY = "memory_peak_bytes"


def memory_words(run: Run, lineup: Lineup, a: str, b: str) -> str:
    """`, needing 0.52x [0.51, 0.53] of its memory over all loads`, or `in ... of its peak memory` where what
    was needed is not known; empty where the two are not told apart."""
    verdict = on_memory(run, lineup)(a, b)
    before, after = (", needing", f"memory{over_loads(run)}") if lineup.needed else (", in", "peak memory")
    if verdict is None or verdict.kind in ("none", "unknown"):
        return ""
    if verdict.kind == "same":
        return f"{before} the same {after} within {margin_text(run.record.compare.margin_share)}"
    return f"{before} {ratio_text(MEMORY, verdict)} of its {after}"


def over_loads(run: Run) -> str:
    """What has to stand beside memory that was needed, which is of a start and of no single load; empty of
    one load."""
    return " over all loads" if len({(group.scenario, group.load) for group in run.groups}) > 1 else ""


def on_memory(run: Run, lineup: Lineup) -> Told:
    """By what each needed where that is known of all, in a family of its own, else by the peaks."""
    if lineup.needed:
        return by_pairs(run, lineup.needed, comparisons_of(run).why_none)
    return partial(comparisons_of(run).of, lineup.scenario, lineup.load, MEMORY)


def quality_words(run: Run, a: Group, b: Group) -> str:
    """That nobody measured what a choice between two quantizations costs; empty for one quantization."""
    if a.quantization == b.quantization or not marks_across_quantizations(run):
        return ""
    return "; what its quantization costs in quality was not measured"
