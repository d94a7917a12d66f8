"""The traffic, the machine and the servers as they were, and how metrics are defined."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from harness.contracts import MASK, Load, is_secret, masked, masked_argv, masked_values, timing
from harness.store.store import StartRecord
from reports.data.cells import load_family, load_level
from reports.data.run import Run
from reports.data.starts import start_title
from reports.measures.equal_work import LENGTHS_DIFFER
from reports.measures.metrics import METRICS, PERCENTILES, REQUESTS_NEEDED
from reports.measures.written import NOTHING, flat, number, several
from reports.page.drawing.charts import Part
from reports.page.listed import Columns, below, fold, tabled
from reports.page.looks import looks, named
from reports.page.markup import LONG_WORD, Head, Html, Of, details, join, paragraph, table, tag
from reports.words.described import device, window_bound

_OPEN_TOPICS = ("traffic", "machine", "devices")
# They serve to compare instants and boots, and say nothing to a reader; the self-test is bench's own error.
_NOT_SHOWN = ("clock", "boot_id", "selftest")
# ending of a key, and the unit that a person reads
_UNITS = {"_s": "s", "_pct": "%", "_w": "W", "_mhz": "MHz", "_mib": "MiB"}
_COMMAND = {"class_": "command", "tabindex": "0"}
_RULES = (
    "The window runs from the end of the warm-up to the first ramp-down. A request belongs to it if it "
    "was sent in it; one that never got onto the wire belongs where it was due. Tokens that arrived in it "
    "and requests that ended in it count, whenever they were sent.",
    "Latency counts from a request's origin. Closed loop: the moment it was sent. Open loop and traces: "
    "the moment it was due, so that a late sending cannot hide a wait (coordinated omission). Failed "
    "requests are left out of latencies and counted by kind.",
    "A value is computed per start and then averaged over starts: by logarithms (a geometric mean), or as "
    "it is where it may be 0 or below. Beside it stands its 95 % t interval, of two starts their range. A "
    "percentile has a mean only if every start that counts has it. Invalid cells are shown and left out; "
    "suspect ones are marked and count.",
    "E2E and requests/s depend on how long answers are. Beside other deployments they are not shown where "
    f"answers to the same turns are more than {100 * LENGTHS_DIFFER:.0f} % shorter or longer than asked and "
    "than the others'.",
    "A percentile is shown from so many observations up that in 99 % of samples two lie beyond it, as in "
    "MLPerf's early-stopping estimate: "
    + ", ".join(f"p{level} from {timing.needed(level)}" for level in PERCENTILES)
    + f". Gaps of one request are not independent: their percentiles also need {REQUESTS_NEEDED} requests.",
    "“–” is a number that is not known. It is never a zero. Stored in seconds and bytes, shown in ms and "
    "GiB.",
)


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


# --- traffic and machine ---------------------------------------------------------------------------


def machine_part(run: Run) -> Html:
    """Return the traffic as planned, and the machine's facts as recorded; the long ones are folded."""
    by_topic: dict[str, list[list[Html | str]]] = {"traffic": _traffic(run)}
    for key, value in flat(run.record.environment):
        topic, _, name = key.partition(".")
        if topic not in _NOT_SHOWN and name not in _NOT_SHOWN:
            title = (name or topic) if topic.endswith("packages") else _name(name or topic)
            by_topic.setdefault(topic, []).append([title, masked(_value(key, value))])
    parts = [_topic(topic, rows) for topic, rows in by_topic.items() if rows]
    return fold("environment", "Traffic and machine", device(run), *parts)


def _topic(topic: str, rows: Sequence[Sequence[Html | str]]) -> Html:
    title = "bench's packages" if topic == "packages" else topic.replace("_", " ")
    facts = table(["fact", "value"], rows, "words facts", title)
    return join([tag("h3", title), facts]) if topic in _OPEN_TOPICS else details(title, facts)


def _traffic(run: Run) -> list[list[Html | str]]:
    """Return options of each scenario and terms of each load, as planned."""
    rows: list[list[Html | str]] = []
    for label, cell in {cell.planned.scenario.label: cell for cell in run.planned_cells}.items():
        options = flat(cell.planned.scenario.options)
        rows.append([label, ", ".join(f"{_name(key)} {_value(key, value)}" for key, value in options)])
    by_label = {cell.load_label: cell.load for cell in run.planned_cells}
    for label, load in sorted(by_label.items(), key=lambda pair: (load_family(pair[1]), load_level(pair[1]))):
        rows.append([label, _terms(load)])
    if sequences := _sequences(run):
        rows.append(["requests served at once", sequences])
    if cache := run.record.plan.filled.get("kv_cache_tokens"):
        rows.append(["KV cache", cache])
    return rows


def _sequences(run: Run) -> str:
    """Return what the servers that bench starts are told, and who chose it."""
    terms = [start.deployment.terms for start in run.record.plan.starts]
    counts = {each.concurrent_sequences for each in terms if each.concurrent_sequences and not each.base_url}
    if not counts:
        return ""
    origin = run.record.plan.filled.get("concurrent_sequences", "as `bench search` chose")
    if "engine.concurrent_sequences" in run.record.settings:
        origin = "as engine.concurrent_sequences says"
    return f"{', '.join(map(str, sorted(counts)))} ({origin})"


def _terms(load: Load) -> str:
    """Return a load's phases and bounds, without those that do nothing."""
    shape = "linear" if load.ramp == "linear" else f"{load.ramp_steps} steps"
    said = {
        f"ramp-up {load.ramp_up_s:g} s ({shape})": load.ramp_up_s,
        f"warm-up {load.warmup_s:g} s": True,
        f"window {window_bound(load)}": True,
        f"ramp-down {load.ramp_down_s:g} s ({shape})": load.ramp_down_s,
        f"a request at most {load.timeout_s:g} s": True,
        f"ended above {100 * (load.max_failed_share or 0):g} % failed": load.max_failed_share is not None,
        f"{load.workers} load processes": load.workers > 1,
        f"tokens counted by {load.tokenizer}": load.tokenizer,
    }
    return ", ".join(words for words, is_there in said.items() if is_there)


def _name(key: str) -> str:
    """Return a key in words; its unit goes to the value."""
    for ending in ("_bytes", *_UNITS):
        key = key.removesuffix(ending)
    return key.replace("_", " ").replace(".", " ")


def _value(key: str, value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    if key.endswith("_bytes"):
        return _size(value)
    unit = next((f" {unit}" for ending, unit in _UNITS.items() if key.endswith(ending)), "")
    return f"{value:,}{unit}" if isinstance(value, int) else f"{number(value, 2)}{unit}"


def _size(size_bytes: float) -> str:
    if size_bytes >= 2**30:
        return f"{number(size_bytes / 2**30, 2)} GiB"
    return f"{size_bytes / 2**20:,.0f} MiB" if size_bytes >= 2**20 else f"{size_bytes:,.0f} bytes"


# --- servers ---------------------------------------------------------------------------------------


def servers_part(run: Run) -> Html | None:
    """Return how each server was started and what it says that it uses. None without a start."""
    found = {label: run.starts_of(label) for label in run.deployments}
    told = [
        (label, each) for label, records in found.items() if (each := [r for r in records if _is_told(r)])
    ]
    parts: list[Part] = []
    if told:
        columns: Columns[tuple[str, list[StartRecord]]] = {
            "deployment": lambda pair: named(looks(run)[pair[0]]),
            "version": lambda pair: several([r.version for r in pair[1] if r.version]) or NOTHING,
            "launcher": lambda pair: _launcher(pair[1]),
            "image": lambda pair: _image(pair[1]),
            "options": lambda pair: _options(pair[1]),
        }
        note = (
            "Options are the engine's own. Commands stand with the environment that bears on them; values of "
            "secrets are not shown."
        )
        title = "How each server was started"
        parts += [tag("h3", title), paragraph(note)]
        parts.append(tabled(title, columns, told, lambda pair: Of(pair[0]), "words started"))
        parts += [
            tag("div", details(f"Command of {label}", *_commands(run, each)), **Of(label).attributes)
            for label, each in told
        ]
    for title, name in (("What each server says that it uses", "resolved"), ("Weights", "weights")):
        by_label = {r.deployment.label: getattr(r, name) for r in run.start_records if getattr(r, name)}
        if by_label:
            parts += [tag("h3", title), _side_by_side(title, by_label)]
    versions = [" ".join(filter(None, (r.deployment.engine, r.version))) for r in run.start_records]
    return fold("servers", "Servers", several(versions), *parts) if parts else None


def _is_told(record: StartRecord) -> bool:
    return bool(record.argv or record.version or record.environment)


def _options(records: Sequence[StartRecord]) -> str:
    options = msgspec.to_builtins(records[0].deployment.options)
    given = {key: value for key, value in options.items() if value is not None and key != "image"}
    return ", ".join(f"{key}={value}" for key, value in given.items()) or NOTHING


def _launcher(records: Sequence[StartRecord]) -> str:
    terms = records[0].deployment.terms
    if terms.base_url:
        return "attached"
    begun = next((record.argv[0] for record in records if record.argv), "")
    return terms.launcher or ("docker" if begun.rpartition("/")[2] == "docker" else "native")


def _image(records: Sequence[StartRecord]) -> Html | str:
    """Return the container's image and what identifies it, of all starts, or what was asked for."""
    found = dict.fromkeys(tuple(record.image.items()) for record in records if record.image)
    asked = msgspec.to_builtins(records[0].deployment.options).get("image")
    return join(_identified(dict(image)) for image in found) if found else str(asked or NOTHING)


def _identified(image: Mapping[str, str | None]) -> Html:
    """Return its name; and its digest, or its id where it was built here, its age, and Docker's version."""
    known = image.get("image_digest") or image.get("image_id") or ""
    said = {
        # As Docker shows it: the first twelve digits.
        "digest" if image.get("image_digest") else "id": known.rpartition(":")[2][:12],
        "made": (image.get("image_created") or "")[:10],
        "Docker": image.get("docker_version"),
    }
    facts = ", ".join(f"{name} {value}" for name, value in said.items() if value)
    return below(image.get("image") or NOTHING, facts)


def _commands(run: Run, records: Sequence[StartRecord]) -> list[Html]:
    """Return each different command line with its environment and the starts that it was of."""
    found: dict[str, list[str]] = {}
    for record in records:
        lines = [f"{name}={shlex.quote(value)}" for name, value in masked_values(record.environment).items()]
        whole = "\n".join([*lines, shlex.join(masked_argv(record.argv))])
        found.setdefault(whole, []).append(start_title(run, record))
    return [
        join([paragraph(f"Start {', '.join(starts)}"), tag("pre", tag("code", whole), **_COMMAND)])
        for whole, starts in found.items()
    ]


def _side_by_side(title: str, by_label: Mapping[str, Mapping[str, Any]]) -> Html:
    keys = list(dict.fromkeys(key for facts in by_label.values() for key in facts))
    rows = [[_name(key), *(_fact(key, facts.get(key)) for facts in by_label.values())] for key in keys]
    return table(["fact", *(Head(label, Of(label)) for label in by_label)], rows, "ledger", title)


def _fact(key: str, value: Any) -> Html | str:
    said = MASK if is_secret(key) else masked(_value(key, value))
    is_long = max(map(len, said.split()), default=0) > LONG_WORD
    return tag("span", said, class_="long") if is_long else said
