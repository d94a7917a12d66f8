"""Reasons to doubt that what was started is what another would start by the same words."""

from collections.abc import Iterator

from reports.checks.finding import Seen, cells_of, check
from reports.data import Run, gathered
from reports.measures import several


@check(
    "Images are named by tags",
    "A tag may name another image by tomorrow: {}.",
    "NAME@sha256:DIGEST, as the page gives it, names the same one wherever it is pulled.",
    (),
    can_look=lambda run: any(each.image for each in run.start_records),
)
def images_by_tag(run: Run) -> Iterator[Seen]:
    found = ((record.image.get("image") or "", record.deployment.label) for record in run.start_records)
    for image, labels in gathered(found).items():
        if image and "@" not in image:
            names = list(dict.fromkeys(labels))
            yield f"{several(names)}: {image}", cells_of(run, names)


@check(
    "Starts of a deployment had other variables",
    "{}.",
    "Resume a run in the shell that began it: such variables change how fast a server is.",
    (),
)
def variables_differ(run: Run) -> Iterator[Seen]:
    for label in run.deployments:
        known = [record.environment for record in run.starts_of(label) if record.argv]
        for name in sorted({name for each in known for name in each}):
            values = list(dict.fromkeys(each.get(name, "unset") for each in known))
            if len(values) > 1:
                yield f"{label}: {name} ({several(values, ', then ')})", cells_of(run, {label})
