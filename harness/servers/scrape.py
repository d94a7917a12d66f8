"""Read what a running server reports about itself, in common terms.

Its Prometheus page is read once a second, its JSON pages and its log once. A page that is late or damaged is
a missing sample with a reason. A value of the wrong type is left out.
"""

import logging
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, get_type_hints

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from serving_bench.harness.contracts import Engine, EngineTerms, Said, ServerMetric, ServerTerm, scalar
from serving_bench.harness.servers.log import head_and_end
from serving_bench.harness.servers.probe import request, root_of
from serving_bench.harness.settings.units import size_text

_log = logging.getLogger(__name__)
# Long enough for llama.cpp, which answers between two batches. A mark may block for two of these limits.
TIMEOUT_S = 2.0

# A sample's labels and its value.
_Labelled = tuple[Mapping[str, str], float]


@dataclass(frozen=True)
class ServerSample:
    """What the page said at one instant; see ServerTerm. None: the page has no number for the term.

    `t_ns` (CLOCK_MONOTONIC) is halfway between the request and the end of its answer, which are `scrape_s`
    apart.
    """

    t_ns: int
    running: float | None = None
    waiting: float | None = None
    kv_cache_usage_share: float | None = None
    prefix_query_tokens: float | None = None
    prefix_hit_tokens: float | None = None
    preemptions: float | None = None
    prompt_tokens: float | None = None
    generated_tokens: float | None = None
    queue_s: float | None = None
    queued_requests: float | None = None
    draft_steps: float | None = None
    drafted_tokens: float | None = None
    accepted_tokens: float | None = None
    scrape_s: float = 0.0


@dataclass
class PageReader:
    """A reader of the page at `path` from a server's root. `notes` collects why terms are missing.

    `key` is sent but never logged.
    """

    base_url: str
    path: str
    metrics: Mapping[ServerTerm, ServerMetric]
    key: str | None = field(default=None, repr=False)
    timeout_s: float = TIMEOUT_S
    notes: dict[str, str] = field(default_factory=dict)

    def read(self, *, is_mark: bool = False) -> list[ServerSample]:
        begun_ns = time.monotonic_ns()
        answer = request("GET", root_of(self.base_url) + self.path, timeout_s=self.timeout_s, key=self.key)
        ended_ns = time.monotonic_ns()
        if answer.status != 200:
            why = answer.text if answer.status is None else f"{self.path} answers HTTP {answer.status}"
            self.notes["samples"] = f"some could not be read (the last of these: {why})"
            return []
        terms, problems = terms_on(answer.text, self.metrics)
        for term in terms:
            self.notes.pop(term, None)
        self.notes.update(problems)
        return [ServerSample((begun_ns + ended_ns) // 2, **terms, scrape_s=(ended_ns - begun_ns) / 1e9)]


def terms_on(
    text: str, metrics: Mapping[ServerTerm, ServerMetric]
) -> tuple[dict[ServerTerm, float], dict[str, str]]:
    """Return the values of a page by term, and the reason for each missing one by term.

    Only the lines of the wanted samples are parsed: of vLLM's 600 lines, a dozen.
    """
    names = sorted({re.escape(name) for metric in metrics.values() for name in (metric.sample, *metric.also)})
    lines = re.findall(rf"^(?:{'|'.join(names)})[{{ \t].*$", text, re.MULTILINE)
    if not lines:
        return {}, dict.fromkeys(metrics, "not on the server's page")
    samples: dict[str, list[_Labelled]] = {}
    for line in lines:
        with suppress(ValueError, OverflowError):  # a damaged line costs its own term only
            for family in text_string_to_metric_families(line + "\n"):
                for sample in family.samples:
                    samples.setdefault(sample.name, []).append((sample.labels, float(sample.value)))
    values = {term: _value(metric, samples) for term, metric in metrics.items()}
    finite = {term: value for term, value in values.items() if value is not None and math.isfinite(value)}
    missing: dict[str, str] = {
        term: "not on the server's page" if value is None else "no finite number"
        for term, value in values.items()
        if term not in finite
    }
    return finite, missing


def _value(metric: ServerMetric, samples: Mapping[str, Sequence[_Labelled]]) -> float | None:
    parts = [
        [value for labels, value in samples.get(name, ()) if metric.labels.items() <= labels.items()]
        for name in (metric.sample, *metric.also)
    ]
    if not parts[0]:
        return metric.absent
    if not all(parts):
        return None
    return metric.scale * sum(map(fmean if metric.combine == "mean" else sum, parts))


# --- its JSON pages and its log ---

_WHOLE = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # what records and tables can hold
_NUMBER = _WHOLE | None
_BYTES = Annotated[int, msgspec.Meta(ge=0, le=2**60)] | None
_SCALAR = str | _WHOLE | float | bool | None
# The types of the terms for which not every scalar will do.
_HINTS = {"kv_cache_bytes": int, "threads": int, **get_type_hints(EngineTerms)}
_KINDS: dict[str, Any] = {term: _NUMBER for term, hint in _HINTS.items() if hint in (int, int | None)}
_KINDS |= {term: bool | None for term, hint in _HINTS.items() if hint in (bool, bool | None)}


def fetch_facts(
    base_url: str, paths: Iterable[str], *, timeout_s: float = 5.0, key: str | None = None
) -> dict[str, Any]:
    """Return the JSON pages at `paths` (from the server's root) by path, without those that failed."""
    facts: dict[str, Any] = {}
    for path in paths:
        answer = request("GET", root_of(base_url) + path, timeout_s=timeout_s, key=key)
        if answer.status == 200:
            with suppress(ValueError, RecursionError):
                facts[path] = msgspec.json.decode(answer.body)
    return facts


def read_said(engine: Engine, base_url: str, log_path: Path, key: str | None) -> tuple[Said, list[str]]:
    """Ask a server what it uses, and return what said_by returns. Blocks for up to 5 s for each page."""
    log, left_out = head_and_end(log_path)
    if left_out:
        _log.warning("%s: %s in its middle are not read", log_path, size_text(left_out))
    return said_by(engine, log, fetch_facts(base_url, engine.pages, key=key))


def said_by(engine: Engine, log: str, pages: Mapping[str, Any]) -> tuple[Said, list[str]]:
    """Return what a server reports that it uses, and a sentence on each value that was left out.

    Raises nothing, whatever the server says.
    """
    try:
        record = engine.said(log, pages)
    except Exception as error:  # whatever an engine's reader raises for a page of another shape
        return Said(), [f"{engine.name}: what the server says of itself cannot be read: {error!r}"]
    terms: dict[Any, Any] = {}
    memory: dict[Any, Any] = {}
    problems = []
    for values, other, kept in ((record.terms, _SCALAR, terms), (record.memory, _BYTES, memory)):
        for name, value in values.items():
            kind: Any = _KINDS.get(name, other)
            try:
                kept[name] = scalar(msgspec.convert(value, kind))
            except msgspec.ValidationError as error:
                problems.append(f"{engine.name}: the server says {name}={value!r:.60}: left out ({error})")
    return Said(terms, memory, record.unmatched), problems
