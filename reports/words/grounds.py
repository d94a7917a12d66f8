"""The words of Trust: what each of its parts comes to, and how to read it."""

from serving_bench.harness.contracts import AlikeTest, Figure
from serving_bench.reports.checks.examine import SIGN, clean_of, findings_of
from serving_bench.reports.checks.finding import Finding
from serving_bench.reports.checks.late_client import ms, nearest_of
from serving_bench.reports.checks.ledger import ARGS, MORE_SHARE, ledger_of
from serving_bench.reports.data import Cell, Run
from serving_bench.reports.measures import NOTHING, plural, several
from serving_bench.reports.verdicts import SPEED

# Heading and meaning of the findings that mark a number (True), and of all others.
KINDS = {
    True: (
        "Numbers with a mark",
        f"The values of these cells, or the deployment's name, are marked {SIGN} wherever they are shown.",
    ),
    False: (
        "Worth knowing",
        "Reasons to look twice: first the one that kept a winner from being named, then worst first. They "
        "mark no number, but a row may say that its starts are suspect.",
    ),
}
_MODES = {
    "matched": "engines are asked for equal context length, concurrent sequences, KV cache and prefix cache",
    "stock": "each engine keeps its own defaults, except for what was given",
    "tuned": "as matched, plus each engine's named set of options",
}
_LEDGER = (
    "Asked → what the server says it uses, over all its starts. ✕: not what was asked, or the engine could "
    f"not be told. ▲: a KV cache over {100 * MORE_SHARE:.0f} % larger than asked, which is another budget, "
    "or starts that disagree. “not said”: the server does not say. “–”: nor was it asked."
)
_CLIENT = (
    "Tokens are means per ok request, as the server counts them. If tokens per chunk are above 1, an ITL gap "
    "is between groups of tokens. Send lag: how late a request was sent. CPU: of the load process, in the "
    "start in which it was busiest."
)
_RESETS = {"unchecked": "emptied, not checked", "failed": "not emptied", "none": "left as it was"}


def checks_title(run: Run) -> str:
    clean, unlooked = clean_of(run)
    verb = (
        f"{plural(len(findings_of(run)), 'reason')} to distrust, {plural(len(clean), 'check')} found nothing"
    )
    return verb + (f", {len(unlooked)} had nothing to check" if unlooked else "")


def where(run: Run, finding: Finding) -> str:
    """Return the cells that a reason is about; empty if these are all cells of the run, or none."""
    if not 0 < len(finding.cells) < len(run.planned_cells):
        return ""
    return f"Cells {several([f'{cell:03d}' for cell in finding.cells])} of {len(run.planned_cells)}."


def fairness_claim(run: Run) -> str:
    """Return how many terms are not as asked; empty if none was asked for or reported."""
    off = sum(entry.is_off for row in ledger_of(run) for entry in row.entries.values())
    clause = f"{plural(off, 'term')} not as asked" if off else "all terms are as asked, as far as servers say"
    clause += "; bench does not know what further arguments change" * any(
        r.name == ARGS for r in ledger_of(run)
    )
    return clause if ledger_of(run) else ""


def fairness_notes(run: Run) -> list[str]:
    """Return what each fairness mode of the run asks for, and how to read the ledger."""
    modes = dict.fromkeys(each.terms.fairness for each in run.deployments.values())
    return [*(f"engine.fairness={mode}: {_MODES[mode]}." for mode in modes), _LEDGER]


def error_claim(run: Run) -> str:
    """Return bench's own error at the worst of the loads that the self-test tried nearest to the run's."""
    if run.selftest is None:
        return "not measured on this machine; after bench selftest, later runs show it here"
    errors_s = [each.error_s for each in nearest_of(run).values()]
    if not errors_s:
        return "not known at any load of this run"
    median_s, p99_s = max(errors_s, key=lambda error_s: error_s[1])
    return f"TTFT p50 {ms(median_s)} ms, p99 {ms(p99_s)} ms, at the worst of the nearest loads tested"


def client_notes(run: Run) -> list[str]:
    """Return where bench's own error is from, and how to read the table of the client."""
    notes = [_CLIENT] if any(cell.summary for group in run.groups for cell in group.counted) else []
    notes += [_alike_note(run.alike)] if run.alike else []
    selftest = run.selftest
    if selftest is None:
        return notes
    reach = "the p99 error of TTFT was 1 ms or more at every load tested"
    if selftest.largest:
        streams, rate = selftest.largest
        reach = f"the p99 error of TTFT stays under 1 ms up to {streams:,} streams x {rate:,.0f} chunks/s"
    return [
        "Own error: what bench reported minus what a server with known send times did, paired by request, on "
        f"this machine ({selftest.created_at[:10]}, bench {selftest.bench_version}); {reach}. "
        f"{'The machine was busy then. ' * selftest.is_of_busy_machine}{selftest.stopped or ''}",
        *notes,
    ]


def _alike_note(alike: AlikeTest) -> str:
    """Return how often a winner was named on this machine that was none, and what that does to intervals."""
    note = (
        f"Deployments that are the same: in {plural(alike.runs, 'short run')} of {alike.deployment} on this "
        f"machine ({alike.created_at[:10]}) bench named a winner, each a wrong one, in "
        f"{_percent(alike.named)} (at most {100 * alike.claimed:.1f} % are claimed)."
    )
    if starts := alike.by_metric.get(SPEED):
        note += (
            f" A start's output tokens/s vary by {_percent(starts.noise)}, and correlate with the next "
            f"start's by {starts.lag.value:.2f} [{starts.lag.low:.2f}, {starts.lag.high:.2f}]; a run moves "
            f"one beside the other by {_percent(starts.of_run)}, and one from run to run by "
            f"{_percent(starts.between)}. What is surely above 0 of these three widens intervals here."
        )
    return note


def _percent(figure: Figure) -> str:
    return f"{100 * figure.value:.1f} % [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"


def failures_claim(run: Run) -> str:
    failed = len(run.failed_requests)
    return f"{plural(failed, 'request')}, left out of every latency" if failed else "no request failed"


def cells_claim(run: Run) -> str:
    """Return how many cells failed or are in doubt; empty if none was begun."""
    doubted = sum(cell.became != "valid" for cell in run.planned_cells)
    is_begun = any(cell.record for cell in run.planned_cells)
    return f"{doubted or 'none'} of {len(run.planned_cells)} failed or in doubt" if is_begun else ""


def guard_notes(run: Run) -> list[str]:
    """Return how the guard watched the machine; empty if no cell was begun."""
    records = [cell.record for cell in run.planned_cells if cell.record]
    modes = " and ".join(dict.fromkeys(record.guard_mode for record in records if record.guard_mode))
    if not records:
        return []
    return [f"Checked with guard={modes}." if modes else "Nothing checked that the machine was fit."]


def guard_saw(cell: Cell) -> str:
    return "; ".join(f"{each.fact} ({each.when})" for each in cell.record.guard) if cell.record else ""


def cache_left(cell: Cell) -> str:
    """Return why the prefix cache may not have been empty before a cell; empty if it was reset."""
    reset = cell.record.cache_reset if cell.record else None
    return f"{_RESETS[reset.how]}: {reset.note or NOTHING}" if reset and reset.how != "reset" else ""


def order_claim(run: Run) -> str:
    """Return how many starts there were, and in which order; empty if there were none."""
    how = "interleaved" if len({each.repeat for each in run.start_records}) > 1 else "one after the other"
    return f"{plural(len(run.start_records), 'start')}, {how}" * bool(run.start_records)


def servers_claim(run: Run) -> str:
    return several([" ".join(filter(None, (r.deployment.engine, r.version))) for r in run.start_records])
