"""`bench fit`, `install` and `prepare`: whether memory suffices, engines' environments, and weights."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated

import typer

from serving_bench.engines import ENGINES
from serving_bench.engines.model import weights
from serving_bench.engines.model.facts import known_facts
from serving_bench.harness.cli import terminal
from serving_bench.harness.cli.commands.listing import has_device
from serving_bench.harness.cli.commands.planning import skip_lines, why_none
from serving_bench.harness.cli.progress import Show
from serving_bench.harness.contracts import KnownFacts, Reason, Weights, all_adapters, plural
from serving_bench.harness.errors import BenchError, UserError
from serving_bench.harness.fit import fit
from serving_bench.harness.install import builds, install, provision
from serving_bench.harness.plan.candidates import candidates
from serving_bench.harness.plan.terms import FITS_SHARE
from serving_bench.harness.settings import config, overrides
from serving_bench.harness.settings.units import grouped, parameters_text, size_text


def install_command(
    name: Annotated[
        str,
        typer.Argument(help="An engine, as in `bench list engines`, or a tool, as in `bench list tools`."),
    ],
    program: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which of its programs; default: the first that needs installing."),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove its environment instead.")] = False,
    quiet: terminal.Quiet = False,
) -> None:
    """Install an engine in an environment of its own in your cache directory, with your pip settings.

    uv installs it. An install that was interrupted starts over, but uv keeps what it has downloaded.
    """
    spec = builds.spec_of(name, program, has_device=has_device())
    what = name if program is None else f"{name} ({program})"
    if isinstance(spec, Reason):
        raise UserError(f"{what}: {spec}")
    cache = install.cache_dir()
    if spec is None:
        message = f"{what} needs no environment of its own"
    elif not remove:
        with terminal.signals_interrupt():
            environment = install.install(cache, spec, Show(quiet=quiet))
        message = f"{what} is installed in {environment.folder} ({size_text(environment.size_bytes)})"
    elif freed := install.remove(cache, spec):
        cached = "; what was downloaded stays cached" if spec.lock else ""
        message = f"removed {what}: {size_text(freed)} freed{cached}"
    else:
        message = f"{what} is not installed"
    terminal.print_lines([message])


def prepare(
    changes: terminal.Overrides = None, study: terminal.Study = None, quiet: terminal.Quiet = False
) -> None:
    """Find or make the weights that a run with the same keys would need, and print where they are.

    With engine=... it makes the files that these engines read. Without it, it makes every format that some
    engine reads: awq as safetensors, gguf-q8_0 as GGUF, fp16 and bf16 as both if the model comes in both.

    It downloads model=hf:organisation/name. From model=/path/x-f16.gguf it makes other GGUF quantizations;
    from the directory of a 16-bit or F32 checkpoint it makes awq, w4a16 and all GGUF quantizations.

    It prints a line for what cannot be made and goes on with the rest; the exit code is then 1, or 2 if
    nothing could be made.
    """
    settings = config.settings(overrides.parse(changes or [], study))
    needed, skips = provision.wanted(settings, weights)
    if not needed:
        why = why_none(skips) or "none of these settings needs weights that bench can get"
        raise UserError(f"nothing to prepare: {why}")
    cache, show = install.cache_dir(), Show(quiet=quiet)
    prepared: list[Weights] = []
    lacking: list[Weights] = []
    whys: dict[str, list[str]] = {}
    with terminal.signals_interrupt():
        for line in skip_lines(skips):
            show.line(line)
        provision.check_disk([], needed, weights, cache)
        for each in needed:
            try:
                ready = provision.provide_weights(each, weights, cache, show, limit_bytes=None)
            except BenchError as error:
                lacking.append(each)
                name = f"{each.model} {each.quantization} as {each.file_format}"
                whys.setdefault(str(error), []).append(name)
                continue
            prepared.append(each)
            line = f"{each.model} {each.quantization}: {ready.path}  {size_text(ready.size_bytes)}"
            terminal.print_lines([line, *(f"  {note}" for note in ready.notes)])
        adapter_pairs = (
            pair for each in candidates(settings) for pair in all_adapters(ENGINES[each.engine], each)
        )
        for of, adapter in dict.fromkeys(adapter_pairs):
            if of in prepared:
                file = weights.adapted(adapter, of, cache)
                terminal.print_lines([f"{of.model} {of.quantization}, adapter {file.name}: {file.path}"])
    for why, names in whys.items():
        terminal.complaints.print(f"{', '.join(names)}: {why}", markup=False)
    if _failures(lacking, prepared, [each for each in lacking if not weights.can_prepare(each, cache)]):
        raise typer.Exit(1 if prepared else 2)


def _failures(
    failed: Sequence[Weights], prepared: Collection[Weights], possible: Collection[Weights]
) -> Sequence[Weights]:
    """Return the failures that count: bench could have made them, or none was made at that quantization."""
    had = {(each.model, each.quantization) for each in prepared}
    return [each for each in failed if each in possible or (each.model, each.quantization) not in had]


def fit_command(
    changes: terminal.Overrides = None, study: terminal.Study = None, as_json: terminal.Json = False
) -> None:
    """Say which engines at which quantizations fit the device's memory, computed from the model's shape.

    model= names one of `bench list models`, a config.json or its directory, a .gguf file, or hf:org/name.

    For hf:org/name it downloads config.json from the hub, and installs the tool for that if needed. Nothing
    else is downloaded or started.

    fit.device_memory=24GiB stands for a GPU that need not be here. Without it this machine's memory counts.

    Each load, context and model has a table of its own. The exit code is 0 even if nothing fits.
    """
    settings, terms = config.fit_settings(
        overrides.parse(changes or [], study), typed=overrides.parse(changes or [])
    )
    memory = fit.memory_of(settings.device, terms.device_memory_bytes)
    workshop = provision.Tools(install.cache_dir(), Show(quiet=as_json))
    drafts = (point.value.draft[0] for point in settings.terms if point.value.draft)
    facts = {model: known_facts(model, workshop) for model in (*settings.models, *drafts)}
    tables = fit.fit(settings, facts, memory, weights, install.cache_dir())
    if as_json:
        terminal.print_json({"memory": memory, "fits_share": FITS_SHARE, "models": facts, "tables": tables})
        return
    terminal.print_lines(_about(facts, memory), fold=True)
    for table in tables:
        terminal.out.print()
        terminal.print_lines([_question(table, several=len(facts) > 1)], fold=True)
        if table.rows:
            rows = [_cells(row) for row in table.rows]
            terminal.print_rows(rows, right=rows[0].keys() - {"deployment", "verdict"})
    terminal.out.print()
    terminal.print_lines(_notes(tables, facts), fold=True)


def _about(facts: Mapping[str, KnownFacts], memory: fit.Memory) -> Iterator[str]:
    what = "the machine" if memory.device == "cpu" else "each device"
    yield f"Memory of {what}: {_gib(memory.device_bytes)} GiB ({memory.source})."
    for model, about in facts.items():
        most = f"up to {about.facts.context_length:,} tokens of context"
        yield f"{model}: {parameters_text(about.facts.parameters)} parameters, {most} ({about.source})."


def _question(table: fit.FitTable, *, several: bool) -> str:
    words = [f"{plural(table.users, 'user')} at once x {table.context_length:,} tokens"]
    if table.kv_cache_tokens != table.users * table.context_length:
        words.append(f"KV cache of {table.kv_cache_tokens:,} tokens")
    if table.tensor_parallel > 1:
        words.append(f"{table.tensor_parallel} devices")
    words += [f"{key}={value}" for key, value in table.differs.items() if key != "engine.tensor_parallel"]
    return (f"{table.model}, " if several else "") + ", ".join(words) + ", in GiB:"


def _cells(row: fit.FitRow) -> terminal.Row:
    most = "any" if row.most_users is None else f"{row.most_users:,}"
    return {
        "deployment": row.label + (" !" if row.why_not_had else ""),
        "weights": _gib(row.need.weights_bytes),
        "KV": _gib(row.need.kv_cache_bytes),
        "other": _gib(row.need.overhead_bytes) + ("*" if row.need.is_assumed else " "),
        "total": _gib(row.total_bytes),
        "share": f"{row.share:.0%}",
        "verdict": row.verdict,
        "users": most + ("+" if row.most_users == fit.MOST_USERS else ""),
        "context": "-" if row.longest_context is None else f"{row.longest_context:,}",
    }


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:,.{2 if size_bytes < 10 << 30 else 1}f}"


def _notes(tables: Sequence[fit.FitTable], facts: Mapping[str, KnownFacts]) -> Iterator[str]:
    rows = [row for table in tables for row in table.rows]
    if rows:
        yield (
            f"fits: up to {FITS_SHARE:.0%} of the memory; tight: up to all of it, where this estimate's own "
            "error decides. users: the most that fit with this context; context: the longest "
            "that fits for this many users."
        )
        if any(row.most_users is None for row in rows):
            yield "any: more users need no more memory, since they wait for each other."
        yield from _kv_lines(tables, facts)
    for engine, program in dict.fromkeys((row.engine, row.program) for row in rows if row.program):
        yield f"{engine}: as {engine}.program={program}, since its first program does not serve on a GPU."
    for part in dict.fromkeys(part for table in tables for part in table.uncounted):
        yield f"{part}: ignored here; the numbers are for the whole memory of a device."
    named = {
        "other*": [(row.need.overhead_source, row.engine) for row in rows if row.need.is_assumed],
        "other": [(row.need.overhead_source, row.engine) for row in rows if not row.need.is_assumed],
        "! not available": [(row.why_not_had, row.label) for row in rows if row.why_not_had],
        "not served": [(each.reason, each.label) for table in tables for each in table.unserved],
    }
    for heading, pairs in named.items():
        for text, names in grouped(pairs).items():
            yield f"{heading}, {', '.join(names)}: {text}"


def _kv_lines(tables: Sequence[fit.FitTable], of_models: Mapping[str, KnownFacts]) -> Iterator[str]:
    several = len(of_models) > 1
    for model, about in of_models.items():
        rows = [row for table in tables if table.model == model for row in table.rows]
        of = f", {model}" if several else ""
        each = grouped((f"{row.need.kv_bytes_per_token / 1024:,.5g} KiB", row.engine) for row in rows)
        sizes = [size if len(each) == 1 else f"{size} ({', '.join(names)})" for size, names in each.items()]
        if sizes:
            yield f"KV cache per token{of}: {'; '.join(sizes)}."
        facts = about.facts
        if sizes and facts.sliding_window and facts.sliding_layers:
            yield (
                f"KV{of}: {facts.sliding_layers} of {facts.layers} layers need only the last "
                f"{facts.sliding_window:,} tokens. Some engines keep all tokens anyway. The others also need "
                "room for the tokens that one step reads, in whole blocks, so that the numbers differ "
                "between GPU and CPU."
            )
