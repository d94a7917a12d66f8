"""Each metric's definition, unit and source, and the rules that hold for all."""

from collections.abc import Sequence

from harness.contracts import timing
from reports.data.run import Run
from reports.measures.equal_work import LENGTHS_DIFFER
from reports.measures.metrics import METRICS, PERCENTILES, REQUESTS_NEEDED
from reports.page.charts import Section
from reports.page.markup import Html, join, table, tag

_RULES = (
    "The window runs from the end of the warm-up to the first ramp-down. A request belongs to it "
    "if it was sent "
    "in it; one that never got onto the wire belongs where it was due. Requests outside it are "
    "stored, and enter no "
    "statistic but the tokens that arrived in it and the requests that ended in it.",
    "Latency counts from a request's origin. Closed loop (users, each with one request in flight at most): "
    "the moment it was sent. Open loop and traces, which keep a schedule whether or not the server keeps up: "
    "the moment it was due, so that a late sending cannot hide a wait (coordinated omission); the send lag "
    "is shown by itself. Failed requests are left out of latencies and counted by kind.",
    "Whether a window was steady (requests in flight and throughput, its first third against its last) is "
    "checked and shown; it never chooses the window.",
    "A value is computed per start and then averaged over starts: by logarithms (a geometric mean), or as it "
    "is where it may be 0 or below. Beside it stands its 95 % t interval, by how much starts differ; of two "
    "starts their range. "
    "A percentile has a mean only if every start that counts has it: the start with too few requests is the "
    "slow one. Invalid cells are shown and left out; suspect ones are marked and count.",
    "E2E and requests/s depend on how long answers are. Beside other deployments they are not shown for an "
    "engine that cannot be made to give the length asked for, nor where answers to the same turns are more "
    f"than {100 * LENGTHS_DIFFER:.0f} % shorter or longer than asked and than the others'; figures per token "
    "are. Deployments of one model whose servers count other tokens for the same prompts are marked: their "
    "figures are not comparable.",
    "A percentile is shown from so many observations up that in 99 % of samples two lie beyond it, as in "
    "MLPerf's early-stopping estimate: "
    + ", ".join(f"p{level} from {timing.needed(level)}" for level in PERCENTILES)
    + ". Gaps of one request are not independent, so percentiles of gaps also need "
    f"{REQUESTS_NEEDED} requests. Between two observations it is interpolated linearly.",
    "“–” is a number that is not known. It is never a zero.",
)


def section(run: Run) -> Section | None:
    """The same in every report."""
    rows: list[Sequence[Html | str]] = [
        [m.title, tag("code", m.name), m.unit, m.better, m.formula, m.source] for m in METRICS
    ]
    columns = ["metric", "name", "unit", "better", "definition", "source"]
    rules = tag("ul", *(tag("li", rule) for rule in _RULES))
    stored = tag("p", "Stored in seconds and bytes, shown in ms and GiB (1 GiB = 2^30 bytes).", class_="note")
    return Section("Method", join([rules, table(columns, rows, "words method", "Metrics"), stored]))
