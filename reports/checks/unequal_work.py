"""Reasons to doubt that deployments did the same work: kernels, prompts, lengths of answers, terms, cores."""

from collections.abc import Iterator

from reports.checks.finding import OF_LENGTHS, SPEED, Seen, cells_of, check
from reports.checks.ledger import Entry, ledger_of
from reports.data.cells import gathered
from reports.data.run import Run
from reports.measures import equal_work
from reports.measures.written import number


@check(
    "Stand-ins for an engine's kernels",
    "{}. These are no speeds of that engine.",
    "Read from it only that the engine works; measure its speed on a device that it has kernels for.",
    marks=True,
)
def kernels_stand_in(run: Run) -> Iterator[Seen]:
    """Look for stand-ins for kernels."""
    for label, what in equal_work.stand_ins(run).items():
        yield f"{label}: {what}", cells_of(run, {label})


@check(
    "Prompts are not the same, and such pairs not comparable",
    "{}.",
    "The same engine.chat_template for all; scenario.history=scripted sends the same text to all.",
    (*SPEED, "input_tokens"),
    marks=True,
)
def prompts_differ(run: Run) -> Iterator[Seen]:
    """Look for unequal prompts."""
    for why, labels in gathered((why, label) for label, why in equal_work.work_of(run).odd.items()).items():
        yield f"{', '.join(labels)}: {why}", cells_of(run, labels)


@check(
    "Output lengths differ",
    "{}.",
    "Compare figures per token only: E2E and requests/s of answers of another length are left out.",
    OF_LENGTHS,
    marks=True,
)
def output_lengths_differ(run: Run) -> Iterator[Seen]:
    """Look for unequal lengths of answers."""
    for groups in equal_work.by_case(run):
        means = equal_work.mean_lengths(run, groups, "output_tokens")
        if equal_work.differ(means.values()):
            least, most = (end(means, key=lambda name: means[name]) for end in (min, max))
            pair = f"{least} {number(means[least])} against {most} {number(means[most])}"
            withheld = equal_work.work_of(run).per_token_only
            strays = [group for group in groups if group.key in withheld] or groups
            cells = [cell for group in strays for cell in group.cells]
            yield f"at {groups[0].load} {pair} tokens per request", cells


@check(
    "Not all terms are as asked",
    "Could not be matched: {}.",
    "See Trust; ask for what all can be given. Where fewer are served at once, TTFT is mostly the queue.",
    (),
)
def terms_not_matched(run: Run) -> Iterator[Seen]:
    """Look for terms that were not matched."""
    entries = (
        (f"{row.title} {_asked_and_got(entry)}", label)
        for row in ledger_of(run)
        for label, entry in row.entries.items()
        if entry.said
    )
    for words, labels in gathered(entries).items():
        yield f"{', '.join(labels)}: {words}", cells_of(run, labels)


def _asked_and_got(entry: Entry) -> str:
    got = f"got {entry.got_text}" if entry.got else "could not be told"
    return f"asked {entry.asked_text}, {got}" + (f": {entry.clause}" if entry.clause else "")
