"""`bench describe`: what a scenario would send, before anything is measured."""

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Annotated, Any

import typer

from serving_bench.engines.model import weights
from serving_bench.harness.cli.terminal import (
    Json,
    Overrides,
    Study,
    out,
    print_json,
    print_lines,
    print_rows,
)
from serving_bench.harness.contracts import PlannedCell, Reason, Weights
from serving_bench.harness.describe import words
from serving_bench.harness.describe.described import (
    Counting,
    Described,
    Histogram,
    Hits,
    Traffic,
    first,
    traffic,
)
from serving_bench.harness.errors import UserError
from serving_bench.harness.install import install
from serving_bench.harness.install.tokenizer import resolved, tokenizer_of
from serving_bench.harness.plan.plan import cells_asked
from serving_bench.harness.plan.terms import needed
from serving_bench.harness.settings import config, overrides
from serving_bench.harness.store.named_files import check_place, write_named
from serving_bench.harness.store.tokenizer import read_tokenizer
from serving_bench.scenarios import SCENARIOS, TOKENS_PER_WORD

_BAR = 40


def describe(
    changes: Overrides = None,
    study: Study = None,
    as_json: Json = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write a page that opens offline.")
    ] = None,
) -> None:
    """Show what a scenario would send, and how much of it a prefix cache could serve. Starts nothing.

    It shows lengths, turns, forms and three samples of the first 200 conversations of each scenario and load.
    A run with the same keys has the same seed and sends the same conversations in its first repeat.

    Tokens are counted with load.tokenizer, else with the tokenizer of the model's checkpoint if it is on this
    machine and the package tokenizers is installed. Otherwise they are words times scenario.tokens_per_word.

    The ideal hit rate is the share of prompt tokens that a prefix cache of unlimited size could serve: the
    same server has seen or generated that beginning of the prompt before. Users take turns, as if all answers
    took equally long.
    """
    if html is not None:
        check_place(html)
    asked_for, cache = config.settings(overrides.parse(changes or [], study)), install.cache_dir()
    _check_adapters(asked_for)
    settings, _ = resolved(asked_for, weights, cache)
    tokenizer = tokenizer_of(settings, weights, cache)
    described = [_described(cell, tokenizer) for cell in cells_asked(settings, 0)]
    if html is not None:
        write_named(html, words.page(described).encode())
    if as_json:
        print_json(described)
        return
    for each in described:
        _print(each)
    if html is not None:
        print_lines([str(html)])


def _check_adapters(settings: config.Settings) -> None:
    """Raise UserError if an adapter that bench would have to give to a server does not exist or fit."""
    if settings.is_attached or not settings.engines.keys() & set(config.engines_with_weights()):
        return
    weights_needed = Weights(settings.models[0], "-", "safetensors")
    for choice in settings.scenarios:
        for adapter in choice.options.lora:
            if why := weights.misfit(adapter, weights_needed, None):
                raise UserError(why)


def _described(cell: PlannedCell, tokenizer: str | Reason) -> Described:
    scenario, options = SCENARIOS[cell.scenario.name], cell.scenario.options
    looked_at, is_all = first(scenario.conversations(options, Random(cell.seed)), cell.load.conversations)
    traffics = traffic(
        looked_at,
        _counting(options, tokenizer),
        max(1, needed(cell.load, cell.scenario).count // cell.scenario.width),
        is_scripted=options.history == "scripted",
        is_all=is_all,
    )
    return Described(cell.scenario.label, cell.load.label, cell.seed, traffics)


def _counting(options: Any, tokenizer: str | Reason) -> Counting:
    if not isinstance(tokenizer, Reason):
        return Counting(1.0, f"by {tokenizer}", read_tokenizer(tokenizer))
    rate = getattr(options, "tokens_per_word", None) or TOKENS_PER_WORD
    method = f"words x {rate:g}; code and JSON have more tokens a word ({tokenizer})"
    return Counting(rate, method)


def _print(each: Described) -> None:
    traffic_of_case = each.traffic
    out.print(words.heading(each), style="bold", markup=False)
    print_lines([words.looked_at(each), f"tokens: {traffic_of_case.counted}"])
    for title, histogram in words.lengths(traffic_of_case).items():
        out.print()
        _print_histogram(title, histogram)
    for kind, hits in (("turn", traffic_of_case.by_turn), ("group", traffic_of_case.by_group)):
        if len(hits) > 1:
            out.print()
            _print_hits(kind, hits)
    out.print()
    print_lines(words.lines(traffic_of_case))
    _print_samples(traffic_of_case)
    out.print()


def _print_histogram(title: str, histogram: Histogram) -> None:
    summary = (
        f"min {histogram.least}, median {histogram.median:g}, mean {histogram.mean:.1f}, max {histogram.most}"
    )
    if len(histogram.bins) == 1 and histogram.least == histogram.most:
        print_lines([f"{title}: {histogram.least}"])
        return
    most = max(each.count for each in histogram.bins)
    rows = [
        {
            title: words.bin_name(each),
            "n": str(each.count),
            summary: "█" * round(_BAR * each.count / most),
        }
        for each in histogram.bins
    ]
    print_rows(rows, right=("n",))


def _print_hits(kind: str, hits: Mapping[int, Hits]) -> None:
    rows = [
        {
            kind: name,
            "requests": str(each.requests),
            "prompt tokens": str(each.input_tokens),
            "of other conversations": f"{100 * each.shared_share:.1f} %",
            "ideal hit rate": f"{100 * each.hit_share:.1f} %",
        }
        for name, each in words.hit_rows(hits)
    ]
    print_rows(rows, right=list(rows[0])[1:])
    print_lines(words.more_hits(hits))


def _print_samples(traffic: Traffic) -> None:
    for number, sample in enumerate(traffic.samples, 1):
        group = "" if sample.group is None else f", group {sample.group}"
        out.print(f"\nconversation {number}{group}", style="bold")
        for messages, turn_options in sample.turns:
            for message in messages:
                more = f" ... {message.more_characters} more characters" if message.more_characters else ""
                print_lines([f"  {message.role}: {' '.join(message.text.split())}{more}"], fold=True)
            print_lines([f"  -> {turn_options}"], fold=True)
        if sample.more_turns:
            print_lines([f"  ... {sample.more_turns} more turns"])
