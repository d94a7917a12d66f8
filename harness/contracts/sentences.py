"""Facts, and the one place where a fact becomes an English sentence.

A fact says why something is so by its kind and what it is about. Code that decides compares facts, and never
looks into a sentence. A fact that is formatted (`f"{fact}"`) is its sentence, without a full stop.
"""

import copy
import string
from collections.abc import Mapping
from typing import Any, Self, Union

FactValue = Union[str, float, None, "Fact", tuple["FactValue", ...]]


def inert(words: str, keep: str = "") -> str:
    """Return the words with a space for each control character or mark of direction, which could move the
    cursor, except those in `keep`."""
    return "".join(each if each.isprintable() or each in keep else " " for each in words)


class Fact:
    """Why something is so, or what was seen. `values`: what it is about, by the names in its sentence.

    Not a dataclass: where JSON is written, a hook (`stored` or `sentence`) says what becomes of a fact.
    """

    __slots__ = ("kind", "values")

    def __init__(self, kind: str, values: Mapping[str, FactValue]) -> None:
        if kind not in SENTENCES:
            raise ValueError(f"no sentence for {kind}")
        self.kind, self.values = kind, values

    def __str__(self) -> str:
        return _FORMATTER.vformat(SENTENCES[self.kind], (), self.values)

    def __repr__(self) -> str:
        return f"because({', '.join([repr(self.kind), *(f'{k}={v!r}' for k, v in self.values.items())])})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fact) and (self.kind, self.values) == (other.kind, other.values)

    def __hash__(self) -> int:
        return hash((self.kind, frozenset(self.values.items())))

    def of(self, **values: FactValue) -> Self:
        """Return the same fact with other values, here and in the facts that it is made of."""
        other = copy.copy(self)
        other.values = {
            name: value.of(**values) if isinstance(value, Fact) else values.get(name, value)
            for name, value in self.values.items()
        }
        return other


class Reason(Fact):
    """Why something does not exist or cannot be done: a sentence with {name} for each value that it is about.

    Without values the sentence is taken as it is. A record holds what it says as a text. The value `setting`
    is what was asked for and cannot be (`engine.dtype=float16`).
    """

    __slots__ = ()

    def __init__(self, sentence: str, /, **values: FactValue) -> None:
        self.kind, self.values = sentence, values

    def __str__(self) -> str:
        return _FORMATTER.vformat(self.kind, (), self.values) if self.values else self.kind

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reason) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def setting(self) -> FactValue:
        return self.values.get("setting")


def because(kind: str, /, **values: Any) -> Fact:
    return Fact(kind, values)


def quoted(text: str) -> Fact:
    """Return the fact that a server, a program, a file or an earlier bench says this text."""
    return because("quoted", text=inert(text))


def sentence(value: object) -> str:
    """Return the sentence of a fact, for JSON that is shown. Raises TypeError for anything else."""
    return str(_fact(value))


def stored(value: object) -> object:
    """Return a fact as a JSON object, for records. Raises TypeError for anything else."""
    fact = _fact(value)
    fact = quoted(str(fact)) if isinstance(fact, Reason) else fact
    return {"kind": fact.kind, **fact.values}


def _fact(value: object) -> Fact:
    if not isinstance(value, Fact):
        raise TypeError(f"no JSON for {type(value).__name__}")
    return value


def read(kind: type, value: Any) -> Fact:
    """Return the fact that a record holds; a text is of an earlier bench. Raises ValueError if it is none."""
    if kind is not Fact or not isinstance(value, str | Mapping):
        raise ValueError(f"{value!r:.99} is no {kind.__name__}")
    if isinstance(value, str):
        return quoted(value)
    try:
        fact = Fact(value["kind"], {name: _known(each) for name, each in value.items() if name != "kind"})
        str(fact)
    except (KeyError, TypeError) as error:
        raise ValueError(f"a fact without {error}") from error
    return fact


def _known(value: Any) -> FactValue:
    if isinstance(value, Mapping):
        return read(Fact, value)
    if isinstance(value, list):
        return tuple(map(_known, value))
    return inert(value) if isinstance(value, str) else value


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: `1 start`, `3 starts`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class _Formatter(string.Formatter):
    """Formats `{n:#start}` as a count with its noun and `{n:?has|have}` as a word for one or several.

    A tuple is joined by `and`, or with `{facts:;}` by `; `.
    """

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec.startswith("#"):
            return plural(value, format_spec[1:])
        if format_spec.startswith("?"):
            one, several = format_spec[1:].split("|")
            return one if value == 1 else several
        if isinstance(value, tuple):
            joined, spec = ("; ", "") if format_spec == ";" else (" and ", format_spec)
            return joined.join(self.format_field(each, spec) for each in value)
        return format(value, format_spec)


_FORMATTER = _Formatter()

# The sentence of each kind of fact, without a full stop.
SENTENCES: Mapping[str, str] = {
    # Texts of servers, programs, files and earlier benches; several facts at once.
    "quoted": "{text}",
    "all": "{facts:;}",
    # Why an engine serves one request at a time whatever was asked for.
    "one_at_a_time": "{why}",
    # What the origin of weights means for a comparison.
    "made_from": "made from the {format} file, so it holds no more information",
    "mixed_kinds": "its rows of {width} weights are not whole blocks of {block}: llama-quantize stores most "
    "of the layers in kinds with blocks of 32 and more bits",
    "calibrated_here": "quantized here, calibrated on {text}",
    "cast_on_load": "stored as {stored}, cast to {wanted} on load",
    # What an engine makes of a quantization.
    "served": "yes",
    "served_but": "served, but {why}",
    # Why a run gets no test, and why a cell has no value.
    "foreign": "measured by {tool}, not by bench",
    "not_restarted": "the server was running already, so its repeats are blocks on one start",
    "still_going_on": "the run is still going on",
    "cut_off": "the run ended while it was being measured",
    "not_yet": "not yet",
    "folder_missing": "its folder cells/{number:03d} is missing, though it was begun",
    "before_it": "interrupted: the run ended before it",
    "not_started": "its server was not started",
    "no_cell": "no cell was measured",
    "no_cell_counts": "no cell of it counts",
    "failed": "it failed: {why}",
    # Why a cell failed or is suspect.
    "unfit_before": "{fact} (before the cell)",
    "unfit_during": "{fact} (during the window)",
    "interrupted": "interrupted",
    "not_fit": "the machine was not fit: {facts:;}; guard=mark measures anyway",
    "load_signalled": "the load process was ended by a signal",
    "too_many_failed": "stopped: more of the last requests{whose} failed than load.max_failed={percent:g}% "
    "allows",
    "with_commonest": "{why}; commonest: {commonest}",
    "none_succeeded": "no request in the window succeeded; {commonest}",
    "requests_failed": "{failed} of {sent} requests in the window failed",
    "conversations_never_began": "{conversations:#conversation} due before the window's end never began: "
    "the load was lower than asked for",
    "no_more_conversations": "load.conversations={asked}: {begun} began, since the scenario has no more",
    "conversations_cut": "{conversations:#conversation} not finished within load.grace: {turns:#turn} cut",
    "bench_stood_still": "bench itself stood still for {stalled_s:.2g} s of the window of {window_s:g} s",
    "bench_stood_still_once": "bench itself stood still for {stalled_s:.2g} s at a stretch",
    "bench_read_late": "bench itself read what had arrived up to {late_s:.2g} s late",
    "no_request_ended": "no request ended in the window of {window_s:g} s: its tokens/s are of requests "
    "that outlast it; give a longer load.duration, such as {advised_s}s",
    "nothing_sent": "no request was sent in the window of {window_s:g} s: {why}; give a longer "
    "load.duration, such as {advised_s}s",
    "none_was_due": "none was due",
    "outlasted": "requests sent before it outlasted it, and its tokens/s are of them",
    "failed_before": "{how} before it",
    # What makes a machine unfit.
    "memory_not_back": "{above_gib:.2f} GiB more {memory} memory was in use than before the first start",
    "memory_short": "only {free_gib:.2f} of {of_gib:.1f} GiB of the machine's memory were free",
    "memory_pressure": "programs waited for memory in {percent:.0f} % of the last 10 s",
    "clocks_low": "device {device} ran at {mhz:.0f} MHz, in earlier windows of this deployment and load "
    "{usual_mhz:.0f} MHz",
    "no_sample": "device {device} gave no sample",
    "memory_untold": "device {device} no longer reports its memory",
    "disk_low": "{free_mib:.0f} MiB are free for {directory}",
    "few_files": "a process may open only {files} files, and each connection of an open loop is one",
    "foreign_load": "other programs used {percent:.0f} % of the processor",
    "foreign_load_by": "other programs used {percent:.0f} % of the processor, most by {programs}",
    "foreign_load_by_many": "other programs used {percent:.0f} % of the processor, but no visible program "
    "used {least:.0f} % or more",
    "foreign_load_unseen": "other programs used {percent:.0f} % of the processor, none of it by a program "
    "that is visible from here",
    "stolen": "{percent:.0f} % of the processor went to other guests of its host",
    "swapped": "{mib:.0f} MiB went in or out of swap",
    "foreign_process": "{were} on device {device}{holding}",
    "foreign_at_work": "{were} on device {device}{holding}, computing {percent:.0f} % of the time",
    "idle_process": "{were} on device {device}{holding}, as at the first look, and may have computed",
    "throttled": "device {device} was throttled ({causes}) in {percent:.0f} % of the samples",
    # Why a run ended.
    "budget_holds": "{whole} of {repeats} repeats fit in {budget}",
    "race_too_early": "a race decides after {least} repeats at the earliest, here {repeats}",
    "race_decided": "the race was decided after {repeats:#repeat}",
    "race_had_all": "the race had all of its {repeats:#repeat}",
    "race_budget": "{repeats} of at most {most} repeats fit in {budget}",
    # Why a deployment is started no more.
    "beaten": "behind {behind} after {repeats:#repeat}",
    "failed_twice": "it failed in {failed} of {starts:#start}",
    "left_out_twice": "it could not win after {repeats:#repeat}: {why}",
    "repeats_lacking": "no folder has repeat {repeats}",
    "until_nothing_to_narrow": "no deployment has an interval of {metric} that more repeats could narrow",
    "until_reached": "{widest}, within the {percent:g} % asked for; {repeats:#repeat} took {took}",
    "until_budget_holds_no_more": "{repeats:#repeat} took {took}, and one more, of about {next}, would not "
    "end within until.budget ({budget}); {widest}, not within the {percent:g} % asked for",
    "until_left_out": "{why}; left out, since no further repeat would help: {cases:;}",
    "only_one_start": "{metric} has only one start that counts, and so no interval ({case})",
    "widest_interval": "the widest 95 % interval of {metric} reaches {percent:.3g} % from its mean ({case})",
    "widest_interval_times": "the widest 95 % interval of {metric} reaches {times:.3g} times the mean from "
    "its mean ({case})",
    # Why a value is missing, or has no interval.
    "no_observation": "no observation",
    "value_unknown": "not known; n = {n}",
    "percentile_needs": "p{level} needs n of {least} or more, here n = {n}",
    "percentile_needs_requests": "p{level} needs n of {least} or more of {requests} requests, here n = {n}",
    "nothing_in_window": "no {what} in the window of {window_s:g} s",
    "few_have_requests": "only {k} of {starts} starts {k:?has|have} enough requests",
    "few_have_value": "only {k} of {starts} starts {k:?has|have} a value",
    "mean_is_0": "its mean is 0",
    "no_value": "it has no value",
    "few_starts_have_value": "only {k} of its starts have a value",
    "value_is_0": "a value is 0, which has no ratio",
    "no_value_of_both": "no value of both",
    "of_side": "{side}: {why}",
    "no_power_sampled": "no power was sampled",
    "ran_already": "the server was already running, perhaps on another machine",
    "prices_of_owner": "{why}: give price.input_tokens and price.output_tokens, its owner's prices per "
    "million tokens",
    "devices_unrecorded": "the server's devices were not recorded",
    "price_missing": "give price.gpu_hour, the cost of an hour of the device (and price.currency)",
    "time_includes_waiting": "with several users the time includes waiting",
    "few_lengths": "new prompts of {least} lengths are needed, and there are {lengths}",
    "times_show_nothing": "the times of {n} new prompts do not show how long a token takes",
    "schema_of_wrong_type": "a keyword of its JSON Schema has a value of the wrong type",
    # Unequal work.
    "length_not_forced": "the engine cannot force answers to the length asked for",
    "length_ignored": "its server ignores the length asked for",
    "length_differs": "its answers have {own:,.1f} tokens where {asked:,.1f} were asked for",
    "prompts_differ_by_turn": "at {load}, turn {turn}, {a} {a_tokens:,.1f} against {b} {b_tokens:,.1f} "
    "tokens: different tokenizers or chat templates",
    "prompts_or_history_differ": "at {load}, turn {turn}, {a} {a_tokens:,.1f} against {b} {b_tokens:,.1f} "
    "tokens: different tokenizers or chat templates, or different answers in the history",
    "prompts_differ_by_probe": "{causes} (tokens of the fixed prompts, {a} / {b}: {counts})",
    "system_prompt_dropped": "{label} drops the system prompt",
    "one_token_more": "{more} has exactly one token more in each prompt: a doubled BOS, or one that {less} "
    "lacks",
    "other_templates": "{a} and {b} use different chat templates or tokenizers",
    "prompts_not_same": "their prompts are not the same: {why}",
    "other_prompts_sent": "their prompts are not the same",
    "token_counts_differ": "their {what} have different numbers of tokens: {a_tokens:,.0f} ({a}) and "
    "{b_tokens:,.0f} ({b})",
    "lengths_differ": "their {what} have different lengths: {tokens:,.1f} tokens",
    "kernels_replaced": "its kernels are replaced",
    "stand_ins": "its kernels are stand-ins, so its speed is not the engine's: {what}",
    # Quality.
    "few_answers": "only {items:#answer}, {tokens:#token}",
    "few_texts": "only {items:#text}, {tokens:#token}",
    "asked_too_late": "no answer in time; a longer quality.budget than {budget}, or a less busy machine, "
    "gives it more",
    "no_probabilities_of_text": "its API gives no probabilities for a given text",
    "no_probabilities_of_tokens": "its API gives no probabilities of its tokens",
    "answered_wrongly": "{what}{sent}",
    "damaged": "{file}: damaged",
    "not_asked": "it was not asked",
    "not_asked_for_tokens": "it was not asked for its tokens",
    "quality_off": "quality was not asked; give quality=fidelity",
    "not_comparable": "not comparable: {why}",
    "reference_not_comparable": "{reference} is not comparable: {why}",
    "other_model": "{reference} serves {model}",
    "other_prompts": "{reference} was asked other prompts and texts",
    "few_likeliest": "only the {k} likeliest tokens were compared, not {needed}",
    "other_token_names": "too few of its tokens have the same names as those of {reference}",
    "reference_missing": "no reference: the answers of {label} are missing",
    "bits_unknown": "no reference: the bits of {labels} are not known; give quality.against=LABEL",
    "no_reference": "there is no reference",
    "token_differs": "token {place} of its {way} {item} is {own}, but {other} at {reference}",
    "prompt_tokens_differ": "its prompt {item} has {own} tokens, but {other} at {reference}",
    "kl_beyond": "KL {kl} nats{by_chat} against {reference}: beyond {key}={limit:g}",
    "kl_not_within": "KL {kl} nats{by_chat} against {reference}, at most {high}: not known to be within "
    "{key}={limit:g}",
    "score_not_reached": "{score:.1f} % of {task} right, at least {low:.1f} %: not known to reach "
    "{key}={least:g}",
    "is_reference": "it is the reference itself",
    # Objectives and searches.
    "search_unfinished": "the search was not finished on {cut} of {starts:#start}",
    "nothing_kept": "no load that was tried kept the objectives on {none} of {starts:#start}",
    "interval_needs_starts": "an interval needs {needed} starts or more",
    "interval_needs_more_starts": "an interval needs {needed} starts or more, here {k}",
    "interval_below_share": "at each load the interval over its starts reaches below the share asked for",
    "keeps_less": "it keeps the SLO up to {load}",
    "misses_slo": "it misses the SLO",
    "slo_unclear": "whether it keeps the SLO is not clear",
    "slo_unknown": "whether it keeps the SLO is not known",
    "no_load_kept": "no load is known to be kept",
    "ended_by_failures": "ended early, since too many requests failed",
    "queue_grew": "the queue only grew",
    "objective_without_value": "no request has a value of {metric}",
    "objective_without_tpot": "no request has a value of tpot_s (no token counts, or one-token answers); "
    "give load.tokenizer, or no slo.tpot_s",
    "objective_without_request": "no request was sent in the window; give a longer load.duration, such as "
    "60s",
    # Why there is no verdict.
    "busy": "the machine was busy or not fit in {hit} of {repeats:#repeat}, and a verdict needs {needed} "
    "that were not",
    "verdict_needs_repeats": "a verdict needs {needed} repeats in which all have a value, here {repeats}",
    "verdict_needs_starts": "a verdict needs {needed} starts of each or more, here {counts}",
    "verdict_needs_starts_of_all": "a verdict needs {needed} starts of each deployment or more, here "
    "{repeats}",
    "other_loads_tried": "a search tries different loads on each start; the highest that each keeps decides",
    "device_and_host": "one is measured on a device, the other on the host",
    "objectives_differ": "their objectives (slo.*) differ",
    "currencies_differ": "their prices are in different currencies",
    # Two runs.
    "only_in": "only {side} has it",
    "not_in": "{side} has no {what}",
    "models_differ": "other models: {models}",
    "options_differ": "other scenario options: {options}",
    "hardware_unknown": "the hardware of one of them is not recorded",
    "hardware_differs": "{differences:;}",
    "side_was": "{side} was {why}",
    "starts_without_value": "{lost} of {starts:#start} of {side} {lost:?has|have} no value ({why})",
    "not_measured": "not measured",
    "needs_repeats": "needs about {repeats:#more repeat}, if the measured difference is real",
    "too_close": "needs more than {most} more repeats: the measured difference is close to the limit",
    "few_scores": "{items:#item} with a score {items:?is|are} too few",
    "task_not_asked": "{task} was not asked in {side}: run it with quality=fidelity,tasks",
    "no_task_asked": "no task was asked in {side}: run it with quality=fidelity,tasks",
    "quality_not_asked": "quality was not measured in {side}: run it with quality=fidelity",
    "limit_within": "the limit is within its interval, which more texts or items would narrow",
}
