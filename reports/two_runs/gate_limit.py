"""What can be gated, and by how much it may be worse: `gate.max_regression` on an estimate's scale. Pure."""

import math

from harness.contracts import GateTerms
from harness.errors import UserError
from reports.measures.metrics import METRICS, check_metric_name, metric_of


def check_metric(name: str) -> None:
    """Raise UserError for a metric that does not exist, or of which nothing worse can be told by a share."""
    check_metric_name(name, "gate.metric")
    metric = metric_of(name)
    if metric.better == "-":
        raise UserError(
            f"gate.metric={name}: more of it is neither better nor worse; choose from {_gateable()}"
        )
    if not _is_gateable(name):
        raise UserError(
            f"gate.metric={name}: is compared by its difference, which a share does not limit; "
            f"choose from {_gateable()}"
        )


def check_limit(terms: GateTerms) -> None:
    """Raise UserError where it lets everything pass: nothing loses more than all it has."""
    share = terms.max_regression_share
    if _is_of_less(terms) and share >= 1:
        raise UserError(
            f"gate.max_regression={100 * share:g}%: {terms.metric} cannot fall by more than 100 %; "
            "give less, such as 5%"
        )


def _is_of_less(terms: GateTerms) -> bool:
    """Whether worse is less of it, by a ratio."""
    metric = metric_of(terms.metric)
    return metric.better == "higher" and not metric.is_additive


def _is_gateable(name: str) -> bool:
    metric = metric_of(name)
    return metric.better != "-" and (not metric.is_additive or metric.unit == "share")


def _gateable() -> str:
    return ", ".join(
        f"{metric.name}.p95" if metric.is_distribution else metric.name
        for metric in METRICS
        if _is_gateable(metric.name)
    )


def limit_of(terms: GateTerms) -> float:
    """On the scale of the estimate: absolute of a share; else of logarithms. 5 % are 1.05 times the time, or
    0.95 times the rate."""
    share = terms.max_regression_share
    if metric_of(terms.metric).is_additive:
        return share
    return -math.log1p(-share) if _is_of_less(terms) else math.log1p(share)


def limit_text(metric: str, max_regression_share: float) -> str:
    """`1.05x`; `1.053x (5 % less)` where worse is less; of a share `+5 %`."""
    limit, percent = limit_of(GateTerms(metric, max_regression_share)), f"{100 * max_regression_share:g} %"
    if metric_of(metric).is_additive:
        return f"+{percent}"
    if metric_of(metric).better == "higher":
        return f"{math.exp(limit):.4g}x ({percent} less)"
    return f"{1 + max_regression_share:g}x"
