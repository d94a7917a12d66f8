"""Whether deployments did the same work: common terms, prompts, answers' lengths, and real kernels."""

import re
from collections.abc import Iterator

from reports.checks.finding import RATES, SPEED, TOKENS, Finding, cells_of, numbers
from reports.checks.ledger import Entry, ledger_of, template_name
from reports.data.machine import group_cores
from reports.data.run import Run, deployments
from reports.measures.equal_work import (
    by_case,
    counted_prompts,
    differ,
    drops_system,
    mean,
    same_turns,
    stand_ins,
    too_few_at_once,
    work_of,
)
from reports.measures.written import number, plural, several

# Cores by which servers' use of the processor may lie apart: half of one is another machine.
CORES_DIFFER = 0.5
_FEATURE = re.compile(r"(\w+) = 1\b")  # as llama.cpp says it: `AVX2 = 1 | AVX512 = 0`


def terms_not_matched(run: Run) -> Iterator[Finding]:
    """Common terms of which a server got something else than was asked, or could not be told."""
    by_words: dict[str, list[str]] = {}
    alone = too_few_at_once(run)
    for row in ledger_of(run).rows:
        for label, entry in row.entries.items():
            is_told_apart = row.term.name == "concurrent_sequences" and label in alone
            if (entry.is_off or entry.is_more) and not is_told_apart:
                by_words.setdefault(f"{row.title} {_asked_and_got(entry)}", []).append(label)
    if by_words:
        said = [f"{', '.join(labels)}: {words}" for words, labels in by_words.items()]
        count = sum(map(len, by_words.values()))
        yield Finding(
            "terms_not_matched",
            "Not all terms are as asked",
            f"{plural(count, 'value')} could not be matched ({several(said, '; ')}).",
            "See Fairness; ask for what all of them can be given, or compare those that got it.",
            cells=cells_of(run, {label for labels in by_words.values() for label in labels}),
            marks=False,
            compares=True,
        )


def _asked_and_got(entry: Entry) -> str:
    got = f"got {entry.got_text}" if entry.got else "could not be told"
    return f"asked {entry.asked_text}, {got}" + (f": {entry.clause}" if entry.clause else "")


def prompts_differ(run: Run) -> Iterator[Finding]:
    """Deployments of one model whose prompts are not the same; the tables mark them by letters."""
    work = work_of(run)
    if not work.differences:
        return
    classes: dict[tuple[str, str], list[str]] = {}
    for label, deployment in run.deployments.items():
        if label in work.unlike:
            classes.setdefault((deployment.model, work.prompt_class(label)), []).append(label)
    said = []
    for (_, letter), labels in sorted(classes.items()):
        why = "" if letter == "A" else f": {work.why_unlike(labels[0])}"
        said.append(f"prompts {letter}, {', '.join(labels)}{why}")
    yield Finding(
        "prompts_differ",
        "Prompts are not the same, and such pairs not comparable",
        f"{'; '.join(said)}. Tables and legends bear the letters: only figures with equal letters compare.",
        "The same engine.chat_template for all; scenario.history=scripted sends the same text to all.",
        cells=cells_of(run, work.unlike),
        marks=False,
        compares=True,
    )


def system_prompt_dropped(run: Run) -> Iterator[Finding]:
    """Servers for which a system message adds nothing to the prompt."""
    said: dict[str, str] = {}
    for label, _, _ in deployments(run):
        counts = counted_prompts(run.starts_of(label))
        if drops_system(counts):
            said[label] = f"{label}: {counts['system']:,} tokens with it, {counts['user']:,} without"
    if said:
        yield Finding(
            "system_prompt_dropped",
            "A system prompt is dropped",
            f"{several([*said.values()], '; ')}. The chat template leaves it out.",
            "A chat template with a system prompt: engine.chat_template=FILE.",
            cells=cells_of(run, said),
            metrics=(*SPEED, "input_tokens"),
        )


def chat_templates_differ(run: Run) -> Iterator[Finding]:
    """Servers of one model that name different chat templates, unless all count the fixed prompts alike."""
    by_model: dict[str, dict[str, list[str]]] = {}
    for label, deployment in run.deployments.items():
        for record in run.starts_of(label):
            if said := record.resolved.get("chat_template"):
                name = template_name(deployment, said)
                labels = by_model.setdefault(deployment.model, {}).setdefault(name, [])
                labels += [] if label in labels else [label]
    for names in by_model.values():
        counts = [counted_prompts(run.starts_of(label)) for found in names.values() for label in found]
        is_same = all(counts) and all(each == counts[0] for each in counts)
        if len(names) > 1 and not is_same:
            each = [f"{several(found)}: {name}" for name, found in names.items()]
            yield Finding(
                "chat_templates_differ",
                "Chat templates differ",
                f"{several(each, '; ')}. The same conversation is another prompt.",
                "engine.chat_template=FILE gives all of them one.",
                cells=cells_of(run, {label for found in names.values() for label in found}),
                metrics=SPEED,
                marks=False,
                compares=True,
            )


def output_lengths_differ(run: Run) -> Iterator[Finding]:
    """Deployments whose answers to the same turns differ in length at the same load."""
    said, unlike = [], []
    for groups in by_case(run):
        found = same_turns(run, groups, "output_tokens")
        means = {name: value for name, turns in found.items() if (value := turns.mean) is not None}
        if differ(list(means.values())):
            (low, first), (high, second) = (
                (end(means.values()), end(means, key=lambda name: means[name])) for end in (min, max)
            )
            pair = f"{first} {number(low)} against {second} {number(high)}"
            said.append(f"at {groups[0].load} {pair} tokens per request")
            strays = [group for group in groups if group.key in work_of(run).per_token_only]
            unlike += [cell for group in strays or groups for cell in group.cells]
    if said:
        yield Finding(
            "output_lengths_differ",
            "Output lengths differ",
            f"{several(said)}.",
            "Compare figures per token only: E2E and requests/s of answers that are not as long as asked are "
            "left out.",
            cells=numbers(unlike),
            # Of shorter answers a greater part of the time is the reading of their prompts.
            metrics=("e2e_s", "slo_share", *RATES),
        )


def lengths_not_forced(run: Run) -> Iterator[Finding]:
    """Engines that stop where the model stops, beside others."""
    labels = [label for label, _, _ in deployments(run)]
    free = [
        label
        for label in labels
        if (records := run.starts_of(label)) and not all(record.forces_length for record in records)
    ]
    if free and len(labels) > 1:
        yield Finding(
            "lengths_not_forced",
            "Answers have the length that they come to",
            f"{several(free)} cannot be made to give the length asked for.",
            "Compare figures per token only (ITL, TPOT, output tokens/s): E2E and requests/s are left out.",
            cells=cells_of(run, free),
            metrics=TOKENS,
            marks=False,
            compares=True,
        )


def processor_use_differs(run: Run) -> Iterator[Finding]:
    """Servers on the processor that keep different numbers of cores busy, or say so of their threads."""
    if any(record.memory_kind != "host" for record in run.start_records):
        return
    threads = list(_threads_differ(run))
    said = [*_cores_differ(run), *threads]
    by_options = "Give each engine the same threads by its own options, and see the cores under Memory."
    if said:
        yield Finding(
            "processor_use_differs",
            "Servers do not use the processor alike",
            f"{'; '.join(said)}. One that is faster may only use more of it.",
            by_options if threads else "See the cores under Memory, and whether other programs took them.",
            metrics=SPEED,
            marks=False,
            compares=True,
        )


def _cores_differ(run: Run) -> Iterator[str]:
    for groups in by_case(run):
        means = {group.deployment: mean(group_cores(run, group)) for group in groups}
        known = {label: cores for label, cores in means.items() if cores is not None}
        if len(known) < 2:
            continue
        least, most = (end(known, key=lambda label: known[label]) for end in (min, max))
        if known[most] - known[least] > CORES_DIFFER:
            pair = f"{known[least]:.1f} ({least}) to {known[most]:.1f} ({most})"
            yield f"at {groups[0].load} they kept from {pair} cores busy"


def _threads_differ(run: Run) -> Iterator[str]:
    row = next((row for row in ledger_of(run).kernels if row.term.name == "threads"), None)
    by_count: dict[str, list[str]] = {}
    for label, entry in row.entries.items() if row else ():
        if entry.got:
            by_count.setdefault(entry.got_text, []).append(label)
    if len(by_count) > 1:
        each = [f"{count}: {several(labels)}" for count, labels in by_count.items()]
        yield f"threads as they say ({'; '.join(each)})"


def builds_differ(run: Run) -> Iterator[Finding]:
    """Programs of one engine that say that they were built for other instructions of the processor."""
    by_engine: dict[str, dict[str, frozenset[str]]] = {}
    for label, engine, _ in deployments(run):
        for record in run.starts_of(label):
            if said := record.resolved.get("cpu_features"):
                by_engine.setdefault(engine, {})[label] = frozenset(_FEATURE.findall(str(said)))
    lacking: dict[str, list[str]] = {}
    for found in by_engine.values():
        every = frozenset[str]().union(*found.values())
        for label, features in found.items():
            if features < every:
                lacking.setdefault(", ".join(sorted(every - features)), []).append(label)
    if lacking:
        said = "; ".join(f"{several(labels)}: without {names}" for names, labels in lacking.items())
        yield Finding(
            "builds_differ",
            "Programs of an engine are built differently",
            f"{said}, which its other programs use: a difference between them may be the build's.",
            "Compare programs that are built for the same instructions.",
            cells=cells_of(run, {label for labels in lacking.values() for label in labels}),
            metrics=SPEED,
            marks=False,
            compares=True,
        )


def served_one_at_a_time(run: Run) -> Iterator[Finding]:
    """Servers that answer fewer requests at once than were asked for."""
    found = too_few_at_once(run)
    said = [
        f"{label}: asked {each.asked:,}" + (f", {each.clause}" if each.clause else "")
        for label, each in found.items()
    ]
    if said:
        are_one = all(each.is_one for each in found.values())
        yield Finding(
            "served_one_at_a_time",
            "One request at a time" if are_one else "Requests served at once are not as asked",
            f"{several(said, '; ')}. Others wait: with several users TTFT is mostly the queue.",
            "Compare at load.concurrency=1.",
            cells=numbers(c for c in run.planned_cells if c.label in found and c.load.concurrency != 1),
            metrics=SPEED,
        )


def kernels_stand_in(run: Run) -> Iterator[Finding]:
    """Servers that ran with replacements for their own kernels."""
    found = stand_ins(run)
    said = [f"{label}: {what}" for label, what in found.items()]
    if said:
        yield Finding(
            "kernels_stand_in",
            "Stand-ins for an engine's kernels",
            f"{several(said, '; ')}. These are no speeds of that engine.",
            "Read from it only that the engine works; measure its speed on a device that it has kernels for.",
            cells=cells_of(run, found),
            metrics=SPEED,
        )
