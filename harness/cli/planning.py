"""`bench plan`, and the plan of the commands that measure: on this machine, with goals that can be met."""

from functools import partial

import msgspec

from engines.model import weights
from engines.model.facts import known_facts, most_context
from harness.cli.arguments import Json, Overrides, Study, out, print_json
from harness.cli.show.plan_text import print_plan, unmatched
from harness.contracts import ModelFacts, Plan
from harness.errors import BenchError, UserError
from harness.install import install
from harness.install.builds import check_builds, device_of, select_devices, uses_devices, why_not_on
from harness.load import limits
from harness.plan import plan
from harness.sampling import gpu
from harness.settings import config, overrides
from harness.settings.config import Settings


def plan_command(changes: Overrides = None, study: Study = None, as_json: Json = False) -> None:
    """Show what a run would do, in order, with what is skipped and why. Starts nothing."""
    settings = config.settings(overrides.parse(changes or [], study))
    whole = planned(settings)
    check_builds(device_of(settings), [start.deployment for start in whole.starts])
    limits.check_files(whole.starts)
    if as_json:
        print_json({**msgspec.to_builtins(whole), "unmatched": unmatched(whole)})
    else:
        print_plan(out, whole, settings.until)
    check_any(whole, "run")


def check_any(whole: Plan, verb: str) -> None:
    """Raise UserError if every combination of a plan is skipped."""
    if not whole.starts:
        raise UserError(f"nothing to {verb}: every combination was skipped")


def planned(settings: Settings, *, is_new: bool = True, repeats: int | None = None) -> Plan:
    """Return the plan of these settings on this machine. A new one must have goals that can be met.

    See plan.make and check_goals.
    """
    devices = select_devices(device_of(settings))
    each_bytes = gpu.smallest_bytes(devices)
    whole = plan.make(
        settings,
        partial(weights.can_prepare, cache=install.cache_dir()),
        why_not_on(devices),
        most_context,
        is_new=is_new,
        repeats=repeats,
        device_bytes=lambda deployment: each_bytes if uses_devices(deployment) else None,
        shape=_shape,
    )
    if is_new:
        check_goals(settings, whole)
    return whole


def _shape(model: str) -> ModelFacts | None:
    """Return a model's shape as far as it is known without the hub, so that --resume finds the same."""
    try:
        return None if model.startswith("hf:") else known_facts(model).facts
    except BenchError:
        return None


def check_goals(settings: Settings, whole: Plan) -> None:
    """Raise UserError for metrics that do not exist, and for a baseline that is not in the plan."""
    asked = [("until.metric", settings.until.metric)] if settings.until else []
    asked += [("compare.metric", name) for name in settings.compare.metrics]
    for key, name in asked:
        if key in settings.given:
            from reports.measures.metrics import check_metric_name

            check_metric_name(name, key)
    baseline = settings.compare.baseline
    if baseline is not None and whole.starts and baseline not in whole.deployments:
        skipped = [f"is skipped, {skip.reason}" for skip in whole.skips if skip.what == baseline]
        why = skipped[0] if skipped else "is no deployment of this plan"
        raise UserError(f"compare.baseline={baseline}: {why}; choose from {', '.join(whole.deployments)}")
