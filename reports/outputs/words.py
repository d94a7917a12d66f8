"""What a run says in words, for outputs other than its page: the answer and what it was measured on."""

from __future__ import annotations

from dataclasses import dataclass

from reports import decision_text
from reports.answer import answer_of
from reports.checks.finding import Finding
from reports.described import device
from reports.frames import Run
from reports.marks import marks_between
from reports.said import Said


@dataclass(frozen=True)
class Answer:
    """`said`: one for each scenario and model. `basis`: by which rule, empty where there is no verdict;
    `marks`: the reasons to distrust it."""

    said: tuple[Said, ...]
    basis: str
    marks: tuple[Finding, ...]


def answer_in_words(run: Run) -> Answer:
    """The same as at the top of the page."""
    if decided := decision_text.answers(run):
        return Answer(tuple(decided), decision_text.basis(run), tuple(decision_text.answer_marks(run)))
    found = answer_of(run)
    doubts = [each for a, b, metric in found.numbers for each in marks_between(run, a, b, metric)]
    return Answer(found.said, found.basis, tuple(dict.fromkeys(doubts)))


def environment_words(run: Run) -> str:
    """The device and what served on it: `NVIDIA H100; llama_cpp b6000, vllm 0.11.0; bench 0.1.0`."""
    served = dict.fromkeys(
        " ".join(filter(None, (record.deployment.engine, record.version))) for record in run.start_records
    )
    packages = run.record.environment.get("packages")
    version = packages.get("serving-bench") if isinstance(packages, dict) else None
    return "; ".join(filter(None, (device(run), ", ".join(served), f"bench {version}" if version else "")))
