"""What a running server tells of itself: its Prometheus page, read once a second, in common terms.

The only home of prometheus_client. Knows no engine: where a page has a term is handed in. A page that is
late, missing or damaged is a sample that is not there, with the reason, and sampling goes on.
"""

from __future__ import annotations

import http.client
import math
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import get_args
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from harness.contracts import ServerMetric, ServerTerm
from harness.sampling.sampling import Sampling
from harness.servers.probe import connect, root_of

HZ = 1.0
# Long enough for llama.cpp, which answers between two batches; two of them fit into what a mark may take.
TIMEOUT_S = 2.0
# vLLM's has 50 KiB with the histograms of one model.
_PAGE_LIMIT_BYTES = 16 * 2**20
_TERMS: tuple[ServerTerm, ...] = get_args(ServerTerm)


@dataclass(frozen=True)
class ServerSample:
    """What the page said; see ServerTerm. None: the page has no such term, or no number for it.

    `t_ns` (CLOCK_MONOTONIC) is halfway between the question and the end of its answer, which took
    `scrape_s`: the server wrote the numbers at most half of that before or after.
    """

    t_ns: int
    running: float | None
    waiting: float | None
    kv_cache_usage_share: float | None
    prefix_query_tokens: float | None
    prefix_hit_tokens: float | None
    preemptions: float | None
    prompt_tokens: float | None
    generated_tokens: float | None
    queue_s: float | None
    queued_requests: float | None
    scrape_s: float


class NoPageError(Exception):
    """A page that could not be had; its text says why."""


@contextmanager
def sample_server(
    base_url: str,
    path: str,
    metrics: Mapping[ServerTerm, ServerMetric],
    *,
    key: str | None = None,
    hz: float = HZ,
    timeout_s: float = TIMEOUT_S,
) -> Iterator[Sampling[ServerSample]]:
    """Samples of the page at `path` from the server's root, while the block runs. `key` is sent along and
    never said."""
    notes: dict[str, str] = {}
    with closing(Page(root_of(base_url) + path, key, timeout_s)) as page:
        asked = _Asked(page, Terms(metrics), notes)
        with Sampling(asked.read, hz, notes=notes) as sampling:
            yield sampling


class _Asked:
    """Reads for a Sampling, from its thread and from those of marks, one at a time."""

    def __init__(self, page: Page, terms: Terms, notes: dict[str, str]) -> None:
        self._page, self._terms, self._notes = page, terms, notes
        self._lock = threading.Lock()
        self._asked = self._missing = 0

    def read(self) -> Sequence[ServerSample]:
        """One sample; none where no page came."""
        with self._lock:
            self._asked += 1
            begun_ns = time.monotonic_ns()
            try:
                text = self._page.read()
            except NoPageError as error:
                self._missing += 1
                said = f"{self._missing} of {self._asked} were not read (the last: {error})"
                self._notes["samples"] = said
                return []
            ended_ns = time.monotonic_ns()
        found, problems = self._terms.of(text)
        for term in found:
            self._notes.pop(term, None)
        self._notes.update(problems)
        values = {term: found.get(term) for term in _TERMS}
        return [ServerSample((begun_ns + ended_ns) // 2, **values, scrape_s=(ended_ns - begun_ns) / 1e9)]


class Page:
    """One page of one server, over a connection that is kept; not for two threads at once."""

    def __init__(self, url: str, key: str | None, timeout_s: float) -> None:
        self._parts = urlsplit(url)
        self._key = key
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None

    def read(self) -> str:
        """Blocks for timeout_s, a few times that where bytes trickle in. Raises NoPageError."""
        is_kept = self._connection is not None
        try:
            try:
                return self._ask()
            except (ConnectionError, http.client.BadStatusLine):
                self.close()
                if not is_kept:
                    raise
                return self._ask()  # the server had closed the connection while it waited
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise NoPageError(self._why(error)) from error

    def _ask(self) -> str:
        if self._connection is None:
            self._connection = connect(self._parts, self._timeout_s)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._connection.request("GET", self._parts.path or "/", headers=headers)
        response = self._connection.getresponse()
        body = self._body(response)
        if response.will_close:
            self.close()
        if response.status != 200:
            raise NoPageError(f"{self._parts.path} answers HTTP {response.status}")
        return body.decode(errors="replace")

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        deadline, body = time.monotonic() + self._timeout_s, bytearray()
        while piece := response.read1(1 << 18):
            body += piece
            if time.monotonic() > deadline:
                raise TimeoutError
            if len(body) > _PAGE_LIMIT_BYTES:
                self.close()
                raise NoPageError(f"{self._parts.path} has more than {_PAGE_LIMIT_BYTES >> 20} MiB")
        response.close()  # read1 does not find its end, and the connection would wait for it
        return bytes(body)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _why(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {self._timeout_s:g} s"
        if isinstance(error, ConnectionRefusedError):
            return "connection refused"
        said = f"{type(error).__name__}: {error}"
        return said.replace(self._key, "***") if self._key else said


class Terms:
    """Where a page has the common terms.

    A page is cut to the lines of the wanted samples before it is parsed: of vLLM's 600 lines, a dozen.
    """

    def __init__(self, metrics: Mapping[ServerTerm, ServerMetric]) -> None:
        self._metrics = metrics
        names = sorted({name for metric in metrics.values() for name in (metric.sample, *metric.also)})
        self._wanted = re.compile(rf"^(?:{'|'.join(map(re.escape, names))})[{{ \t].*$", re.MULTILINE)

    def of(self, text: str) -> tuple[dict[ServerTerm, float], dict[str, str]]:
        """The values of a page by term, and why those are missing that are not there."""
        lines = self._wanted.findall(text)
        if not lines:
            return {}, dict.fromkeys(self._metrics, "not on the server's page")
        samples: dict[str, list[Sample]] = {}
        problem = "not on the server's page"
        for line in lines:
            try:
                for family in text_string_to_metric_families(line + "\n"):
                    for sample in family.samples:
                        samples.setdefault(sample.name, []).append(sample)
            except ValueError:
                problem = "not on the server's page, or not as Prometheus writes it"
        found = {term: _value(metric, samples) for term, metric in self._metrics.items()}
        known = {term: value for term, value in found.items() if value is not None and math.isfinite(value)}
        problems: dict[str, str] = {
            term: problem if value is None else "no finite number"
            for term, value in found.items()
            if term not in known
        }
        return known, problems


def _value(metric: ServerMetric, samples: Mapping[str, Sequence[Sample]]) -> float | None:
    """None where one of its parts is missing."""
    parts = [
        [each.value for each in samples.get(name, ()) if metric.labels.items() <= each.labels.items()]
        for name in (metric.sample, *metric.also)
    ]
    if not parts[0]:
        return metric.absent
    if not all(parts):
        return None
    combined = map(fmean if metric.combine == "mean" else sum, parts)
    return sum(combined) * metric.scale
