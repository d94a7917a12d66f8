"""The fairness ledger: which common terms each deployment was asked for, and what its server says it uses.

Draws nothing. A term that a server does not report never counts as different.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TypeGuard

from serving_bench.harness.contracts import Deployment, Scalar
from serving_bench.reports.data import Run, StartRecord, gathered

# A server rounds its KV cache to blocks. More than this share above what was asked is a different budget.
MORE_SHARE = 0.1
NOT_SAID = "not said"
_KV_CACHE = "kv_cache_tokens"
_DTYPES = {"half": "float16", "fp16": "float16", "f16": "float16", "bf16": "bfloat16", "float": "float32",
           "fp32": "float32", "f32": "float32"}  # fmt: skip


# Titles of the common terms, and of what else servers report, by the names of EngineTerms and StartRecord.
COMMON = {
    "context_length": "context length",
    "concurrent_sequences": "concurrent sequences",
    _KV_CACHE: "KV cache, tokens",
    "kv_cache_type": "KV cache type",
    "prefix_cache": "prefix cache",
    "chunked_prefill": "chunked prefill",
    "dtype": "dtype",
    "tensor_parallel": "tensor parallel",
    "seed": "seed",
    "graphs": "graphs",
    "speculation": "speculation",
    "speculative_tokens": "speculative tokens",
    "chat_template": "chat template",
}
TOLD = {
    "threads": "threads",
    "kv_cache_bytes": "KV cache, bytes",
    "loaded_model": "model loaded",
    "model_bytes": "model in memory, bytes",
    "model_gpu_bytes": "model on the GPU, bytes",
    "quantization_kernel": "quantization kernel",
    "attention_backend": "attention backend",
    "kernel_stand_in": "stand-in for kernels",
    "engine_version": "engine version",
}


ARGS = "args"  # an engine's option: what it changes is not known, so nothing is said of equal terms


@dataclass(frozen=True)
class Entry:
    """A term of one deployment."""

    name: str
    asked: Scalar | None  # None if it was not asked for
    got: Mapping[Scalar, Sequence[int]]  # by reported value, the starts (from 1) that report it
    said: str  # how a value differs from what was asked; empty if none does
    is_off: bool  # it differs otherwise than by a larger KV cache, which is only a different budget
    clause: str | None  # why the engine could not be told, or not exactly

    @property
    def asked_text(self) -> str:
        """What was asked for; empty for a term that cannot be asked for."""
        unasked = "not asked" if self.name in COMMON else ""
        return unasked if self.asked is None else value_text(self.name, self.asked)

    @property
    def got_text(self) -> str:
        """What its starts report: the value, or each value with its starts if they disagree."""
        texts = {value_text(self.name, value): starts for value, starts in self.got.items()}
        if len(texts) < 2:
            return next(iter(texts), NOT_SAID)
        return ", ".join(f"{text} (start {', '.join(map(str, starts))})" for text, starts in texts.items())


@dataclass(frozen=True)
class Term:
    """A row of the ledger. `entries`: by the deployment's label, in the plan's order."""

    name: str
    title: str
    entries: Mapping[str, Entry]

    @property
    def is_telling(self) -> bool:
        """Whether anything was asked or reported, other than that there is one device."""
        requested = {entry.asked for entry in self.entries.values()} - {None}
        is_one_device = self.name == "tensor_parallel" and requested == {1}
        return any(entry.got for entry in self.entries.values()) or bool(requested and not is_one_device)

    @property
    def is_uneven(self) -> bool:
        """Whether servers report different values of a term that equal work needs equal, asked for or not."""
        values = [value for entry in self.entries.values() for value in entry.got]
        sizes = [value for value in values if _is_number(value)]
        if self.name == _KV_CACHE and sizes:  # rounded to blocks
            return max(sizes) > (1 + MORE_SHARE) * min(sizes)
        is_work = self.name in COMMON or self.name == "threads"
        return is_work and len({value_text(self.name, value) for value in values}) > 1


def ledger_of(run: Run) -> tuple[Term, ...]:
    """Return the terms that were asked for or reported, over all planned deployments."""
    rows = (
        Term(name, title, dict(_entries(run, name)))
        for name, title in (COMMON | TOLD | {ARGS: "further arguments"}).items()
    )
    return tuple(row for row in rows if row.is_telling)


def _entries(run: Run, name: str) -> Iterator[tuple[str, Entry]]:
    for label, deployment in run.deployments.items():
        terms, records = deployment.terms, run.starts_of(label)
        requested = getattr(terms, name) if name in COMMON and terms.base_url is None else None
        if name == ARGS:
            options = deployment.options
            given = options.get(ARGS) if isinstance(options, Mapping) else getattr(options, ARGS, None)
            words = given if isinstance(given, str) else None
            unknown = "bench does not know what they change" if words else ""
            yield label, Entry(name, words, {}, unknown, False, None)
            continue
        clause = next((str(r.unmatched[name]) for r in records if name in r.unmatched), None)
        answers = ((_said(deployment, record, name), record.repeat + 1) for record in records)
        got = gathered(pair for pair in answers if pair[0] is not None)
        # Without a model such a term means nothing, so it does not differ.
        is_untold = requested is not None and not got and bool(clause) and deployment.model != "-"
        untold = (is_untold, "could not be told" if is_untold else "")
        is_off, words = max((_unlike(name, requested, value) for value in got), default=untold)
        yield label, Entry(name, requested, got, words, is_off, clause)


def _said(deployment: Deployment, record: StartRecord, name: str) -> Scalar | None:
    answer = record.resolved.get(name)
    if name == "chat_template" and answer is not None:
        return _template(deployment.terms.chat_template, str(answer))
    return (record.version or answer) if name == "engine_version" else answer


def _template(requested: str | None, answered: str) -> str:
    """Return the name of a server's chat template.

    A server that was given a file reports its path, its name, or `given`. Without engine.chat_template the
    file comes with the model's weights.
    """
    if answered != "given" and "/" not in answered and not answered.endswith(".jinja"):
        return answered
    file = PurePath(requested if requested and answered == "given" else answered).name
    return "the file given with the model" if requested is None else file


def _unlike(name: str, requested: Scalar | None, got: Scalar) -> tuple[bool, str]:
    """Return whether a value is off what was asked, and how it differs. A larger KV cache is not off."""
    if requested is None or value_text(name, got) == value_text(name, requested):
        return False, ""
    if not _is_number(requested) or not _is_number(got):
        return True, "not what was asked"
    if name == _KV_CACHE and got >= requested:
        above = got / requested - 1
        return False, f"{100 * above:.0f} % more" if above > MORE_SHARE else ""
    return True, f"{'less' if got < requested else 'more'} than asked"


def value_text(name: str, value: Scalar) -> str:
    """Return a term's value as a person reads it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if name.endswith("_bytes") and isinstance(value, int | float):
        return f"{value / 2**30:,.2f} GiB" if value >= 2**30 else f"{value / 2**20:,.0f} MiB"
    if name == "dtype":
        plain = str(value).lower().removeprefix("torch.")
        return _DTYPES.get(plain, plain)
    if name == "chat_template":
        return PurePath(str(value)).name
    return f"{value:,}" if isinstance(value, int) and name != "seed" else str(value)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
