"""The traffic, the machine and the servers as they were."""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.contracts import MASK, Load, is_secret, masked
from reports.data.cells import load_family, load_level
from reports.data.run import Run
from reports.measures.written import NOTHING, flat, number
from reports.page.charts import Section
from reports.page.markup import LONG_WORD, Head, Html, Of, details, join, table, tag
from reports.page.sections.resets import resets
from reports.page.sections.servers import servers
from reports.words.described import window_bound

_OPEN_TOPICS = ("traffic", "machine", "devices")
_TITLES = {"packages": "bench's packages"}
# They serve to compare instants and boots, and say nothing to a reader; the self-test is in Client.
_NOT_SHOWN = ("clock", "boot_id", "selftest")


def section(run: Run) -> Section | None:
    """The traffic; facts as recorded, the long ones folded; then what each server said of itself."""
    by_topic: dict[str, list[list[Html | str]]] = _traffic(run)
    for key, value in flat(run.record.environment):
        topic, _, name = key.partition(".")
        if topic not in _NOT_SHOWN and name not in _NOT_SHOWN:
            title = (name or topic) if topic.endswith("packages") else _name(name or topic)
            by_topic.setdefault(topic, []).append([title, masked(_value(key, value))])
    parts = [_topic(topic, rows) for topic, rows in by_topic.items()]
    parts += servers(run)
    parts += resets(run)
    for title, field in (("What each server says that it uses", "resolved"), ("Weights", "weights")):
        by_label = {r.deployment.label: getattr(r, field) for r in run.start_records if getattr(r, field)}
        if by_label:
            parts += [tag("h3", title), _side_by_side(title, by_label)]
    return Section("Environment", join(parts or [tag("p", "Nothing was recorded.")]))


def _traffic(run: Run) -> dict[str, list[list[Html | str]]]:
    """Options of each scenario and terms of each load, as planned."""
    rows: list[list[Html | str]] = []
    for label, cell in {cell.planned.scenario.label: cell for cell in run.planned_cells}.items():
        options = flat(cell.planned.scenario.options)
        said = ", ".join(f"{_name(key)} {_value(key, value)}" for key, value in options)
        rows.append([label, said or NOTHING])
    by_label = {cell.load_label: cell for cell in run.planned_cells}
    for label, cell in sorted(
        by_label.items(), key=lambda each: (load_family(each[1].load), load_level(each[1].load))
    ):
        rows.append([label, _terms(cell.load)])
    if sequences := _sequences(run):
        rows.append(["requests served at once", sequences])
    if cache := run.record.plan.filled.get("kv_cache_tokens"):
        rows.append(["KV cache", cache])
    return {"traffic": rows} if rows else {}


def _sequences(run: Run) -> str:
    """What the servers that bench starts are told, and who chose it; they may say otherwise of themselves."""
    terms = [start.deployment.terms for start in run.record.plan.starts]
    counts = {each.concurrent_sequences for each in terms if each.concurrent_sequences and not each.base_url}
    if not counts:
        return ""
    if "engine.concurrent_sequences" in run.record.settings:
        origin = "as engine.concurrent_sequences says"
    else:
        origin = run.record.plan.filled.get("concurrent_sequences", "as `bench search` chose")
    return f"{', '.join(map(str, sorted(counts)))} ({origin})"


def _terms(load: Load) -> str:
    """A load's phases and bounds; what is left at its default and does nothing is not said."""
    shape = "linear" if load.ramp == "linear" else f"{load.ramp_steps} steps"
    parts = [f"ramp-up {load.ramp_up_s:g} s ({shape})"] if load.ramp_up_s else []
    parts += [f"warm-up {load.warmup_s:g} s", f"window {window_bound(load)}"]
    parts += [f"ramp-down {load.ramp_down_s:g} s ({shape})"] if load.ramp_down_s else []
    parts.append(f"a request at most {load.timeout_s:g} s")
    if load.max_failed_share is not None:
        parts.append(f"ended above {100 * load.max_failed_share:g} % failed")
    if load.workers > 1:
        parts.append(f"{load.workers} load processes")
    if load.tokenizer:
        parts.append(f"tokens counted by {load.tokenizer}")
    return ", ".join(parts)


def _topic(topic: str, rows: list[list[Html | str]]) -> Html:
    title = _TITLES.get(topic, topic.replace("_", " "))
    facts = table(["fact", "value"], rows, "words facts", title)
    return join([tag("h3", title), facts]) if topic in _OPEN_TOPICS else details(title, facts)


def _side_by_side(title: str, by_label: Mapping[str, Mapping[str, Any]]) -> Html:
    keys = list(dict.fromkeys(key for facts in by_label.values() for key in facts))
    rows: list[Sequence[Html | str]] = [
        [_name(key), *(_fact(key, facts.get(key)) for facts in by_label.values())] for key in keys
    ]
    return table(["fact", *(Head(label, Of(label)) for label in by_label)], rows, "ledger", title)


def _fact(key: str, value: Any) -> Html | str:
    said = MASK if is_secret(key) else masked(_value(key, value))
    is_long = max(map(len, said.split()), default=0) > LONG_WORD
    return tag("span", said, class_="long") if is_long else said


# ending of a key, and the unit that a person reads
_UNITS = {"_s": "s", "_pct": "%", "_w": "W", "_mhz": "MHz", "_mib": "MiB"}


def _name(key: str) -> str:
    """A key in words; its unit goes to the value."""
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
