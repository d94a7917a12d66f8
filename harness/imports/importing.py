"""Read result files of one tool, which their content identifies, and write them as a results directory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import msgspec

from serving_bench.harness import contracts
from serving_bench.harness.contracts import Load, LoadSummary
from serving_bench.harness.errors import UserError, choose_from
from serving_bench.harness.imports import aiperf, guidellm, result, vllm_bench
from serving_bench.harness.store import checksums, store
from serving_bench.harness.store.named_files import RUN_FILE
from serving_bench.harness.store.request_table import write_columns


class Tool(NamedTuple):
    """A tool: how its files are read, and top-level keys that only they have."""

    read: Callable[[Path, bytes], result.Result]
    signs: frozenset[str]


TOOLS: Mapping[str, Tool] = {
    "aiperf": Tool(aiperf.read, aiperf.SIGNS),
    "guidellm": Tool(guidellm.read, guidellm.SIGNS),
    "vllm": Tool(vllm_bench.read, vllm_bench.SIGNS),
}
_NO_REQUESTS = {  # files that are only summaries, by one of their keys
    "aiperf_version": "AIPerf's summary has no requests; give profile_export.jsonl, which is beside it",
    "median_ttft_ms": "has no requests; vllm bench serve writes them with --save-detailed",
}
_READ = "AIPerf's profile_export.jsonl, GuideLLM's JSON and vllm bench serve's with --save-detailed are read"
_MISSING = ("what the server ran on, its settings and memory", "how late the tool itself was")
_MOST_LABEL = 60
# The longest time between two instants of one measurement.
_MOST_SPAN_NS = 366 * 86_400 * 10**9
_INSTANTS = ("scheduled_ns", "sent_ns", "first_content_ns", "first_answer_ns", "last_content_ns", "end_ns")
_TRAFFIC = contracts.ScenarioChoice("foreign", {}, "traffic of its own", ends_itself=True)


class File(NamedTuple):
    """A file that was read, with a summary for each of its loads, in order."""

    path: Path
    label: str
    result: result.Result
    sha256: str
    summaries: Sequence[LoadSummary]


def read_files(words: Sequence[str], labels: Sequence[str]) -> list[File]:
    """Read files of one tool, each given as `FILE` or `TOOL=FILE`.

    A file's label is its model's name unless labels are given. Raises UserError, and OSError.
    """
    if labels and len(labels) != len(words):
        raise UserError(f"--label: {len(labels)} given for {len(words)} files; give one for each, in order")
    files = [_read(word, label) for word, label in zip_longest(words, labels)]
    first = files[0].result
    if others := sorted({each.result.measured_by for each in files} - {first.measured_by}):
        both = f"files of {first.measured_by} and of {', '.join(others)}"
        raise UserError(f"{both}: import each tool's by themselves; bench compare shows both")
    return files


def write_files(files: Sequence[File], directory: Path, argv: Sequence[str]) -> None:
    """Write files into a directory: a start for each file, a cell for each of its loads.

    Files with the same label and the same load are repeats. Raises CellError if something cannot be written;
    then nothing of the run is left.
    """
    with store.written_or_empty(directory, "nothing is kept there"):
        _write_files(files, directory, argv)


def _write_files(files: Sequence[File], directory: Path, argv: Sequence[str]) -> None:
    first = files[0].result
    starts = tuple(_planned(files))
    for file, start in zip(files, starts, strict=True):
        for cell, (_, requests), summary in zip(start.cells, file.result.loads, file.summaries, strict=True):
            _write_cell(directory, start, cell, requests, summary)
        record = store.StartRecord(
            start.name, start.index, start.deployment, start.repeat, "completed", attached=True
        )
        store.write_record(directory / "starts" / start.name / "start.json", record)
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    digests = {
        name: sha256
        for each in files
        for name, sha256 in {result.told(each.path.name): each.sha256, **each.result.beside}.items()
    }
    run = store.RunRecord(
        store.SCHEMA_VERSION, directory.name, now, tuple(argv), {}, contracts.Plan(starts, (), 0.0), {},
        status="completed", ended_at=now,
        foreign=contracts.ForeignSource(
            first.tool, first.version or None, digests, first.definitions, (*first.missing, *_MISSING)
        ),
    )  # fmt: skip
    store.write_record(directory / RUN_FILE, run, is_own=True)
    checksums.begin(directory)
    checksums.end(directory)


def _read(word: str, label: str | None) -> File:
    name, is_named, rest = word.partition("=")
    if not is_named or Path(word).exists():
        name, rest = "", word
    elif name not in TOOLS:
        raise UserError(f"{word}: no such tool or file; {choose_from(name, TOOLS)}")
    path = Path(rest)
    if not path.exists():
        raise UserError(f"{path}: no such file; {_READ}")
    content = result.content_of(path)
    tool = TOOLS[name or _tool_of(path, content)]
    try:
        results = tool.read(path, content)
    except UserError as error:
        if name and not tool.signs <= _keys(content):
            raise UserError(f"{error}; {_READ}") from error
        raise
    if not results.loads:
        raise UserError(f"{path}: has no benchmarks")
    results = replace(results, loads=[(load, _from_zero(requests, path)) for load, requests in results.loads])
    summaries = [_summary(requests, path) for _, requests in results.loads]
    return File(path, _label(label or results.model), results, result.digest(content), summaries)


def _tool_of(path: Path, content: bytes) -> str:
    """Return which tool wrote a file, by the keys of its document or of its first line."""
    keys = _keys(content) or _keys(content.split(b"\n", 1)[0])
    name = next((name for name, tool in TOOLS.items() if tool.signs <= keys), None)
    if not keys and content.lstrip()[:1] in (b"{", b"[", b""):
        result.decoded(content, dict[str, msgspec.Raw], str(path))  # raises, with the place that is damaged
    if name is None:
        why = next(
            (_NO_REQUESTS[key] for key in _NO_REQUESTS if key in keys),
            f"not a result file that bench reads; {_READ}",
        )
        raise UserError(f"{path}: {why}")
    return name


def _keys(content: bytes) -> set[str]:
    try:
        return set(msgspec.json.decode(content, type=dict[str, msgspec.Raw]))
    except (ValueError, RecursionError):
        return set()


def _from_zero(requests: Sequence[result.Request], path: Path) -> list[result.Request]:
    """Return the requests on a clock that starts with the first: a float cannot hold ns since 1970."""
    instants = [ns for each in requests for ns in _instants(each)]
    first_ns = min(instants, default=0)
    if max(instants, default=0) - first_ns > _MOST_SPAN_NS:
        raise UserError(f"{path}: damaged: instants of one load are more than a year apart")
    moved = []
    for each in requests:
        shifted = {name: ns - first_ns for name in _INSTANTS if (ns := getattr(each, name)) is not None}
        chunk_ns = each.chunk_ns and [ns - first_ns for ns in each.chunk_ns]
        moved.append(replace(each, chunk_ns=chunk_ns, **shifted))
    return moved


def _instants(request: result.Request) -> Iterator[int]:
    yield from request.chunk_ns or ()
    yield from (ns for name in _INSTANTS if (ns := getattr(request, name)) is not None)


def _summary(requests: Sequence[result.Request], path: Path) -> LoadSummary:
    """Return a summary with the tools' window: from the first request that counts to the end of the last."""
    counting = [each for each in requests if each.counts]
    sent = [each.sent_ns for each in counting if each.sent_ns is not None]
    ended = [each.end_ns for each in counting if each.end_ns is not None]
    if not sent or not ended or max(ended) <= min(sent):
        raise UserError(f"{path}: none of its requests was sent and ended, so it has no window")
    return LoadSummary(
        started_ns=0,
        window_start_ns=min(sent),
        window_end_ns=max(ended) + 1,  # so that the last instant is in the window
        ended_ns=max(ns for each in requests for ns in _instants(each)),
        ended_by="conversations",
        users=None,
        conversations_begun=len(requests),
        requests=len(requests),
    )


def _label(text: str) -> str:
    return result.told(text)[:_MOST_LABEL] or result.NOT_KNOWN


def _planned(files: Sequence[File]) -> Iterator[contracts.PlannedStart]:
    """Yield a start for each file. Its repeat counts earlier files with its label and one of its loads."""
    numbers, seen = iter(range(1, 1 + sum(len(each.summaries) for each in files))), list[tuple[str, Load]]()
    for index, file in enumerate(files):
        loads = [load for load, _ in file.result.loads]
        repeat = max(seen.count((file.label, load)) for load in loads)
        seen += [(file.label, load) for load in loads]
        terms, model = contracts.EngineTerms(fairness="stock"), _label(file.result.model)
        deployment = contracts.Deployment(result.NOT_KNOWN, model, "-", terms, {}, file.label)
        # Different seeds: as far as bench knows, no two files have the same conversations.
        seed = int(file.sha256[:8], 16)
        cells = (contracts.PlannedCell(next(numbers), _TRAFFIC, load, repeat, seed) for load in loads)
        yield contracts.PlannedStart(index, deployment, repeat, tuple(cells))


def _write_cell(
    directory: Path,
    start: contracts.PlannedStart,
    cell: contracts.PlannedCell,
    requests: Sequence[result.Request],
    summary: LoadSummary,
) -> None:
    folder = store.cell_dir(directory, cell.number)
    folder.mkdir(parents=True)
    ordered = sorted(requests, key=lambda each: each.sent_ns or each.scheduled_ns or 0)
    rows = [{**vars(each), "in_window": each.counts} for each in ordered]
    write_columns(rows, folder / "requests.parquet")
    record = store.CellRecord(
        cell.number, start.name, start.deployment.label, cell.repeat, cell.scenario, cell.load, cell.seed,
        "completed", summary=summary,
    )  # fmt: skip
    store.write_record(folder / "cell.json", record)
