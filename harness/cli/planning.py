"""What the commands that measure plan alike: the plan on this machine, and whether its goals can be met."""

from __future__ import annotations

from functools import partial

from harness.contracts import Plan
from harness.errors import UserError
from harness.install import install
from harness.install.provision import device_of, why_not_here
from harness.plan import plan
from harness.settings.config import Settings


def planned(settings: Settings, *, is_new: bool = True, repeats: int | None = None) -> Plan:
    """Return the plan of these settings on this machine. A new one must have goals that can be met.

    See plan.make and check_goals.
    """
    from engines.model import weights
    from engines.model.weights.facts import most_context

    whole = plan.make(
        settings,
        partial(weights.can_prepare, cache=install.cache_dir()),
        why_not_here(device_of(settings)),
        most_context,
        is_new=is_new,
        repeats=repeats,
    )
    if is_new:
        check_goals(settings, whole)
    return whole


def check_goals(settings: Settings, whole: Plan) -> None:
    """Raise UserError for metrics that do not exist, and for a baseline that is not in the plan."""
    asked = [("until.metric", settings.until.metric)] if settings.until else []
    asked += [("compare.metric", name) for name in settings.compare.metrics]
    for key, name in asked:
        if key in settings.given:
            from reports.metrics import check_metric_name

            check_metric_name(name, key)
    baseline = settings.compare.baseline
    if baseline is not None and whole.starts and baseline not in whole.deployments:
        skipped = next((f", {skip.reason}" for skip in whole.skips if skip.what == baseline), None)
        why = f"is skipped{skipped}" if skipped else "is no deployment of this plan"
        raise UserError(f"compare.baseline={baseline}: {why}; choose from {', '.join(whole.deployments)}")
