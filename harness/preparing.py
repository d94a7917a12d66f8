"""Which weights `bench prepare` is to have ready for some settings. Pure; knows no engine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from engines import ENGINES
from harness.candidates import candidates
from harness.config import DEFAULTS, Settings
from harness.contracts import Deployment, EngineTerms, Reason, Skip, Weights
from harness.errors import UserError
from harness.plan import CanPrepare


def wanted(settings: Settings, can_prepare: CanPrepare) -> tuple[list[Weights], list[Skip]]:
    """The weights, each once, and what cannot be had, with its reason.

    Where the settings name engines, in the file formats that these take. Else in each quantization's own
    format; a plain precision has none and is had in that of the default engine, or of another one where the
    model cannot be had so. Raises UserError for a running server.
    """
    if settings.is_attached:
        raise UserError("engine.base_url: a running server has its weights; leave it out to prepare some")
    asked = _of_engines(settings) if "engine" in settings.given else _of_any(settings, can_prepare)
    found: dict[Weights, None] = {}
    skips: list[Skip] = []
    for what, needed in asked:
        reason = needed if isinstance(needed, Reason) else can_prepare(needed)
        if reason is not None:
            skips.append(Skip(what, reason.text))
        elif isinstance(needed, Weights):
            found[needed] = None
    return list(found), skips


def _of_engines(settings: Settings) -> Iterator[tuple[str, Weights | Reason]]:
    for deployment in candidates(settings):
        needed = ENGINES[deployment.engine].weights(deployment)
        if needed is not None:
            yield deployment.label, needed


def _of_any(settings: Settings, can_prepare: CanPrepare) -> Iterator[tuple[str, Weights | Reason]]:
    """One for each model and quantization: the first that can be had, else the first reason."""
    first = str(DEFAULTS["engine"][0])
    engines = [first, *(name for name in ENGINES if name != first)]
    for model, quantization in itertools.product(settings.models, settings.quantizations):
        answers = [_needed(engine, model, quantization) for engine in engines]
        possible = [each for each in answers if isinstance(each, Weights)]
        refusals = [each for each in answers if isinstance(each, Reason)]
        at_hand = [each for each in possible if can_prepare(each) is None]
        if choices := (at_hand or possible or refusals):
            yield f"{model} {quantization}", choices[0]


def _needed(engine: str, model: str, quantization: str) -> Weights | Reason | None:
    known = ENGINES[engine]
    return known.weights(Deployment(engine, model, quantization, EngineTerms(), known.options(), ""))
