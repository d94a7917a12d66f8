"""Which weights `bench prepare` is to have ready for some settings, and how that goes on past a failure.

Pure but for the `provide` that it is handed; knows no engine.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence

from engines import ENGINES
from harness.contracts import Deployment, EngineTerms, Reason, Skip, Weights
from harness.errors import UserError
from harness.plan.candidates import candidates
from harness.plan.plan import CanPrepare
from harness.settings.config import Settings
from harness.settings.keys import DEFAULTS


def wanted(settings: Settings, can_prepare: CanPrepare) -> tuple[list[Weights], list[Skip]]:
    """The weights, each once, and what cannot be had, with its reason.

    In the file formats that the engines take which the settings name; without them in each that any engine
    takes and the model can be had in: for a plain precision often GGUF and safetensors both. Raises UserError
    for a running server.
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


def failures(
    failed: Sequence[Weights], made: Collection[Weights], can_prepare: CanPrepare
) -> Sequence[Weights]:
    """Those of the failed that leave a quantization without weights. One that turned out not to exist, as
    `can_prepare` says by now, is no failure where the model is had at that quantization in another format."""
    had = {(each.model, each.quantization) for each in made}
    return [
        each for each in failed if can_prepare(each) is None or (each.model, each.quantization) not in had
    ]


def _of_engines(settings: Settings) -> Iterator[tuple[str, Weights | Reason]]:
    for deployment in candidates(settings):
        needed = ENGINES[deployment.engine].weights(deployment)
        if needed is not None:
            yield deployment.label, needed


def _of_any(settings: Settings, can_prepare: CanPrepare) -> Iterator[tuple[str, Weights | Reason]]:
    """For each model and quantization all that can be had, the default engine's first; else a reason."""
    first = str(DEFAULTS["engine"][0])
    engines = [first, *(name for name in ENGINES if name != first)]
    for model, quantization in itertools.product(settings.models, settings.quantizations):
        answers = [_needed(engine, model, quantization) for engine in engines]
        possible = [each for each in answers if isinstance(each, Weights)]
        refusals = [each for each in answers if isinstance(each, Reason)]
        at_hand = [each for each in possible if can_prepare(each) is None]
        for each in dict.fromkeys(at_hand) or possible[:1] or refusals[:1]:
            yield f"{model} {quantization}", each


def _needed(engine: str, model: str, quantization: str) -> Weights | Reason | None:
    known = ENGINES[engine]
    return known.weights(Deployment(engine, model, quantization, EngineTerms(), known.options(), ""))
