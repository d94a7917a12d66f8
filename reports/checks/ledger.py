"""The fairness ledger: what was asked of each deployment by common terms, and what its server says it uses.

Compares and names; draws nothing. A term of which a server says nothing is not said to differ.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TypeGuard

from harness.contracts import Deployment, Scalar
from reports.data import Run, StartRecord, gathered

# A server rounds its KV cache to blocks; beyond this share above what was asked it is another budget.
MORE_SHARE = 0.1
NOT_SAID = "not said"
_KV_CACHE = "kv_cache_tokens"
_DTYPES = {"half": "float16", "fp16": "float16", "f16": "float16", "bf16": "bfloat16", "float": "float32",
           "fp32": "float32", "f32": "float32"}  # fmt: skip


# Common terms, and what else servers tell of themselves, by the names of EngineTerms and of StartRecord.
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
    "model_gpu_bytes": "of it on the GPU, bytes",
    "quantization_kernel": "quantization kernel",
    "attention_backend": "attention backend",
    "kernel_stand_in": "stand-in for kernels",
    "engine_version": "engine version",
}


@dataclass(frozen=True)
class Entry:
    """One deployment's side of a row.

    `asked`: None if it was not, or cannot be. `got`: the starts (from 1) that say each value. `said`: how one
    of them is unlike what was asked, empty where none is; `is_off`: by more than a larger KV cache, which is
    only another budget. `clause`: why it could not be told, or not exactly.
    """

    name: str
    asked: Scalar | None
    got: Mapping[Scalar, Sequence[int]]
    said: str
    is_off: bool
    clause: str | None

    @property
    def asked_text(self) -> str:
        """What was asked; empty of what is no common term."""
        unasked = "not asked" if self.name in COMMON else ""
        return unasked if self.asked is None else value_text(self.name, self.asked)

    @property
    def got_text(self) -> str:
        """What its starts say; of those that disagree each value with its starts."""
        texts = {value_text(self.name, value): starts for value, starts in self.got.items()}
        if len(texts) < 2:
            return next(iter(texts), NOT_SAID)
        return ", ".join(f"{text} (start {', '.join(map(str, starts))})" for text, starts in texts.items())


@dataclass(frozen=True)
class Term:
    """A term; `entries` by the deployment's label, in the plan's order."""

    name: str
    title: str
    entries: Mapping[str, Entry]

    @property
    def is_telling(self) -> bool:
        """Whether anything is asked or said, other than that there is one device."""
        asked = {entry.asked for entry in self.entries.values()} - {None}
        is_one_device = self.name == "tensor_parallel" and asked == {1}
        return any(entry.got for entry in self.entries.values()) or bool(asked and not is_one_device)

    @property
    def is_uneven(self) -> bool:
        """Whether servers say different things of what equal work has equal, asked or not."""
        values = [value for entry in self.entries.values() for value in entry.got]
        sizes = [value for value in values if _is_number(value)]
        if self.name == _KV_CACHE and sizes:  # rounded to blocks
            return max(sizes) > (1 + MORE_SHARE) * min(sizes)
        is_work = self.name in COMMON or self.name == "threads"
        return is_work and len({value_text(self.name, value) for value in values}) > 1


def ledger_of(run: Run) -> tuple[Term, ...]:
    """Return the terms of which anything is asked or said, of all planned deployments."""
    rows = (Term(name, title, dict(_entries(run, name))) for name, title in (COMMON | TOLD).items())
    return tuple(row for row in rows if row.is_telling)


def _entries(run: Run, name: str) -> Iterator[tuple[str, Entry]]:
    for label, deployment in run.deployments.items():
        terms, records = deployment.terms, run.starts_of(label)
        asked = getattr(terms, name) if name in COMMON and terms.base_url is None else None
        clause = next((r.unmatched[name] for r in records if name in r.unmatched), None)
        said = ((_said(deployment, record, name), record.repeat + 1) for record in records)
        got = gathered(pair for pair in said if pair[0] is not None)
        # A term that means nothing without a model is not unlike another's.
        is_untold = asked is not None and not got and bool(clause) and deployment.model != "-"
        untold = (is_untold, "could not be told" if is_untold else "")
        is_off, words = max((_unlike(name, asked, value) for value in got), default=untold)
        yield label, Entry(name, asked, got, words, is_off, clause)


def _said(deployment: Deployment, record: StartRecord, name: str) -> Scalar | None:
    said = record.resolved.get(name)
    if name == "chat_template" and said is not None:
        return _template(deployment.terms.chat_template, str(said))
    return (record.version or said) if name == "engine_version" else said


def _template(asked: str | None, said: str) -> str:
    """Return what a server's chat template is called, by its file: servers that were given one say its path,
    its name, or `given`; without engine.chat_template it is one that comes with the model's weights."""
    if said != "given" and "/" not in said and not said.endswith(".jinja"):
        return said
    file = PurePath(asked if asked and said == "given" else said).name
    return "the file given with the model" if asked is None else file


def _unlike(name: str, asked: Scalar | None, got: Scalar) -> tuple[bool, str]:
    """Return whether a value is not what was asked, and how; a larger KV cache is only told."""
    if asked is None or value_text(name, got) == value_text(name, asked):
        return False, ""
    if not _is_number(asked) or not _is_number(got):
        return True, "not what was asked"
    if name == _KV_CACHE and got >= asked:
        above = got / asked - 1
        return False, f"{100 * above:.0f} % more" if above > MORE_SHARE else ""
    return True, f"{'less' if got < asked else 'more'} than asked"


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
