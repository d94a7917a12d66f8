"""What the numbers rest on: what was asked of servers and what they use, traffic, machine, method."""

import itertools
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from harness.contracts import MASK, is_secret, masked, masked_argv, masked_values, timing
from harness.store.store import StartRecord
from reports.checks.finding import gathered
from reports.checks.ledger import COMMON, MORE_SHARE, TOLD, ledger_of
from reports.data.cells import load_family, load_level
from reports.data.run import Run
from reports.data.samples import start_title
from reports.measures.metrics import METRICS, PERCENTILES, REQUESTS_NEEDED
from reports.measures.written import NOTHING, flat, number, plural, several
from reports.page.declared import fold, tabled
from reports.page.drawing.charts import Block, Table
from reports.page.looks import looks, named
from reports.page.markup import Head, Html, Of, join, macro, paragraph, tag
from reports.words.described import device, window_bound

_MODES = {
    "matched": "context length, requests served at once, KV cache and prefix cache are asked to be the same",
    "stock": "each engine with its own defaults; only what was given is asked",
    "tuned": "as matched, with each engine's named set of options on top",
}
_LEDGER = (
    "Asked → what the server says that it uses, of all its starts. ✕: not what was asked, or the engine "
    f"could not be told. ▲: a KV cache of more than {100 * MORE_SHARE:.0f} % above what was asked, which is "
    "another budget, or starts that disagree. “not said”: the server does not tell; “–”: nor was it asked."
)
# They serve to compare instants and boots, and say nothing to a reader; the self-test is bench's own error.
_NOT_SHOWN = ("clock", "machine.boot_id", "selftest")
# A load's terms that no name of it says, where they are not 0 or none.
_TERMS = {
    "ramp_up_s": "ramp-up",
    "warmup_s": "warm-up",
    "ramp_down_s": "ramp-down",
    "timeout_s": "a request at most",
    "max_failed_share": "failed share at most",
    "tokenizer": "tokens counted by",
}
# ending of a key, and the unit that a person reads
_UNITS = {"_bytes": " bytes", "_s": " s", "_pct": " %", "_w": " W", "_mhz": " MHz", "_mib": " MiB"}
_RULES = (
    "The window runs from the end of the warm-up to the first ramp-down. A request belongs to it if it was "
    "sent in it; tokens that arrived in it and requests that ended in it count, whenever they were sent.",
    "Latency counts from the moment a request was sent (closed loop) or was due (open loop and traces), so "
    "that a late sending cannot hide a wait. Failed requests are left out of latencies and counted by kind.",
    "A value is computed per start, then averaged over starts, by logarithms where it is never 0. Beside it "
    "stands its 95 % t interval, of two starts their range. Invalid cells are left out; suspect ones count.",
    "A percentile is shown where in 99 % of samples two observations lie beyond it: "
    + ", ".join(f"p{level} from {timing.needed(level)}" for level in PERCENTILES)
    + f". Those of gaps also need {REQUESTS_NEEDED} requests.",
    "“–” is a number that is not known, never a zero.",
)
Fact = tuple[str, Html | str]


def fairness_part(run: Run) -> Html | None:
    """Return the ledger: what was asked of each deployment, and what its server says that it uses. None where
    nothing was asked and no server said anything."""
    ledger = ledger_of(run)
    entries = [entry for row in ledger for entry in row.entries.values()]
    notes = list(dict.fromkeys(entry.clause for entry in entries if entry.clause))
    uneven = tag("span", "not the same everywhere", class_="said warn")
    rows = [
        [
            join([row.title, uneven if row.is_uneven else ""]),
            *(macro("entry", e, notes) for e in row.entries.values()),
        ]
        for row in ledger
    ]
    columns: list[Head | str] = ["term", *(Head(named(look), Of(name)) for name, look in looks(run).items())]
    numbered = tag("ol", *(tag("li", note) for note in notes), class_="note ledger-notes")
    off = sum(entry.is_off for entry in entries)
    claim = f"{plural(off, 'term')} not as asked" if off else "all terms are as asked, as far as servers tell"
    table = Table("Fairness", columns, rows, "ledger")
    modes = dict.fromkeys(each.terms.fairness for each in run.deployments.values())
    said = [f"engine.fairness={mode}: {_MODES[mode]}." for mode in modes]
    return fold("fairness", "Fairness", claim, *said, _LEDGER, table, numbered) if ledger else None


# --- servers ---------------------------------------------------------------------------------------


def servers_part(run: Run) -> Html | None:
    """Return what each deployment's server is and says of itself, and its command lines. None without a
    start."""
    found = {label: records for label in run.deployments if (records := run.starts_of(label))}
    facts = [_facts_of(records) for records in found.values()]
    rows = [
        [_name(key), *(_fact(key, own.get(key)) for own in facts)]
        for key in dict.fromkeys(itertools.chain(*facts))
    ]
    columns: list[Head | str] = ["fact", *(Head(named(looks(run)[label]), Of(label)) for label in found)]
    table = Table("What each server is, and says that it uses", columns, rows, "ledger")
    commands = (
        Block(f"Command of {label}", list(_commands(run, records)), Of(label), is_folded=True)
        for label, records in found.items()
        if any(record.argv for record in records)
    )
    versions = [" ".join(filter(None, (r.deployment.engine, r.version))) for r in run.start_records]
    return fold("servers", "Servers", several(versions), table, *commands) if found else None


def _facts_of(records: Sequence[StartRecord]) -> dict[str, Any]:
    """Return what is known of a deployment's server, but for what the ledger has."""
    deployment = records[0].deployment
    image = next((record.image for record in records if record.image), {})
    launcher = deployment.terms.launcher or ("docker" if image else "native")
    # Of one that was built here its id; as Docker shows it.
    digest = (image.get("image_digest") or image.get("image_id") or "").rpartition(":")[2][:12]
    options = msgspec.to_builtins(deployment.options)
    found: dict[str, Any] = {
        "version": several([record.version for record in records if record.version]),
        "launcher": "attached" if deployment.terms.base_url else launcher,
        "image": " ".join(filter(None, (image.get("image"), digest))),
        **{f"option.{key}": value for key, value in options.items()},
    }
    for record in records:
        found |= {key: value for key, value in record.resolved.items() if key not in {**COMMON, **TOLD}}
        # The note is said among the reasons to distrust.
        found |= {f"weights.{key}": value for key, value in record.weights.items() if key != "note"}
    return {key: value for key, value in found.items() if value not in (None, "")}


def _commands(run: Run, records: Sequence[StartRecord]) -> Iterator[Html]:
    """Yield each different command line with its environment, below the starts that it was of."""
    lines = (
        "\n".join(
            [f"{name}={shlex.quote(value)}" for name, value in masked_values(record.environment).items()]
            + [shlex.join(masked_argv(record.argv))]
        )
        for record in records
    )
    for whole, of in gathered(zip(lines, records, strict=True)).items():
        yield paragraph(f"Start {', '.join(start_title(run, record) for record in of)}")
        yield tag("pre", tag("code", whole), class_="command", tabindex="0")


# --- traffic, machine and method -------------------------------------------------------------------


def machine_part(run: Run) -> Html:
    """Return the traffic as planned, and the machine's facts as recorded; packages are folded."""
    tables: dict[str, list[Fact]] = {"Traffic": list(_traffic(run)), "Machine": [], "Packages": []}
    for key, value in flat(run.record.environment):
        topic, _, name = key.partition(".")
        if topic.endswith("packages"):
            whole = name if topic.startswith("engine") else f"bench.{name}"
            tables["Packages"].append((whole, _fact(key, value)))
        elif not key.startswith(_NOT_SHOWN):
            tables["Machine"].append((_name(key.removeprefix("machine.")), _fact(key, value)))
    blocks = [
        Block(title, [Table(title, ["fact", "value"], rows, "words facts")], is_folded=title == "Packages")
        for title, rows in tables.items()
        if rows
    ]
    return fold("environment", "Traffic and machine", device(run), *blocks)


def _traffic(run: Run) -> Iterator[Fact]:
    for label, cell in {cell.planned.scenario.label: cell for cell in run.planned_cells}.items():
        options = flat(cell.planned.scenario.options)
        yield label, ", ".join(f"{_name(key)} {_value(key, value)}" for key, value in options)
    by_label = {cell.load_label: cell.load for cell in run.planned_cells}
    for label, load in sorted(by_label.items(), key=lambda pair: (load_family(pair[1]), load_level(pair[1]))):
        given = {key: value for key in _TERMS if (value := getattr(load, key))}
        terms = [f"{_TERMS[key]} {_value(key, value)}" for key, value in given.items()]
        yield label, ", ".join([f"window {window_bound(load)}", *terms])
    for key, why in run.record.plan.filled.items():
        yield _name(key), why


def method_part() -> Html:
    """Return each metric's definition, unit and source, and the rules that hold for all."""
    columns = {
        "metric": lambda metric: metric.title,
        "name": lambda metric: tag("code", metric.name),
        "unit": lambda metric: metric.unit,
        "better": lambda metric: metric.better,
        "definition": lambda metric: metric.formula,
        "source": lambda metric: metric.source,
    }
    rules = tag("ul", *(tag("li", rule) for rule in _RULES))
    claim = f"{len(METRICS)} metrics with their formulas, and the rules that hold for all"
    return fold("method", "Method", claim, rules, tabled("Metrics", columns, METRICS, look="words method"))


def _name(key: str) -> str:
    """Return a key in words; its unit goes to the value."""
    for ending in _UNITS:
        key = key.removesuffix(ending)
    return key.replace("_", " ").replace(".", " ")


def _fact(key: str, value: Any) -> str:
    return MASK if is_secret(key) else masked(_value(key, value))


def _value(key: str, value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    if key.endswith("_bytes") and value >= 2**20:
        return f"{number(value / 2**30, 2)} GiB" if value >= 2**30 else f"{value / 2**20:,.0f} MiB"
    unit = next((unit for ending, unit in _UNITS.items() if key.endswith(ending)), "")
    return (f"{value:,.0f}" if value % 1 == 0 else number(value, 2)) + unit
