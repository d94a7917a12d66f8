"""How each server was started: version, launcher, command line and environment, per deployment and start."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from harness.contracts import Deployment, masked_argv, masked_values
from harness.store.store import StartRecord
from reports.data.run import Run
from reports.data.starts import start_title
from reports.measures.written import NOTHING, several
from reports.page.looks import Look, looks, named
from reports.page.markup import Html, Of, Row, details, join, paragraph, table, tag

_IMAGE = 3  # its column; without a container there is none


def servers(run: Run) -> list[Html]:
    """A table of what was started, and below it each command line, folded; nothing without a start."""
    found = {label: run.starts_of(label) for label in run.deployments}
    found = {label: records for label, records in found.items() if any(_is_told(r) for r in records)}
    if not found:
        return []
    columns = ["deployment", "version", "launcher", "image", "options"]
    cells = {label: _row(looks(run)[label], run.deployments[label], each) for label, each in found.items()}
    if all(row[_IMAGE] == NOTHING for row in cells.values()):
        del columns[_IMAGE]
        cells = {label: [*row[:_IMAGE], *row[_IMAGE + 1 :]] for label, row in cells.items()}
    rows = [Row(row, Of(label)) for label, row in cells.items()]
    note = paragraph(
        "Options are the engine's own. Command lines and environments are of the first start, and of the "
        "others what is not the same. Values of secrets are not shown."
    )
    blocks = [
        tag("div", details(f"Command of {label}", *_commands(run, records)), **Of(label).attributes)
        for label, records in found.items()
    ]
    return [
        tag("h3", "How each server was started"),
        note,
        table(columns, rows, "words started", "How each server was started"),
        *blocks,
    ]


def _is_told(record: StartRecord) -> bool:
    return bool(record.argv or record.version or record.environment)


def _row(look: Look, deployment: Deployment, records: Sequence[StartRecord]) -> Sequence[Html | str]:
    options = msgspec.to_builtins(deployment.options)
    versions = [record.version for record in records if record.version]
    given = {key: value for key, value in options.items() if value is not None and key != "image"}
    said = ", ".join(f"{key}={value}" for key, value in given.items())
    return [
        named(look),
        several(versions) or NOTHING,
        _launcher(deployment, records),
        _image(records, options),
        said or NOTHING,
    ]


def _launcher(deployment: Deployment, records: Sequence[StartRecord]) -> str:
    if deployment.terms.base_url:
        return "attached"
    begun = next((record.argv[0] for record in records if record.argv), "")
    return deployment.terms.launcher or ("docker" if begun.rpartition("/")[2] == "docker" else "native")


def _image(records: Sequence[StartRecord], options: Mapping[str, Any]) -> Html | str:
    """The container's image and what identifies it, of all starts; what was asked for where none says."""
    found = list(dict.fromkeys(_image_words(record.image) for record in records if record.image))
    if not found:
        return str(options.get("image") or NOTHING)
    return join(join([name, tag("span", facts, class_="range")]) for name, facts in found)


def _image_words(image: Mapping[str, str | None]) -> tuple[str, str]:
    """Its name; and its digest, or its id where it was built here, its age, and Docker's version."""
    digest, identity = image.get("image_digest"), image.get("image_id")
    created, docker = image.get("image_created"), image.get("docker_version")
    facts = [
        f"digest {_short(digest)}" if digest else f"id {_short(identity)}" if identity else "",
        f"made {created[:10]}" if created else "",
        f"Docker {docker}" if docker else "",
    ]
    return image.get("image") or NOTHING, ", ".join(filter(None, facts))


def _short(digest: str) -> str:
    """As Docker shows it: the first twelve digits."""
    return digest.rpartition(":")[2][:12]


def _commands(run: Run, records: Sequence[StartRecord]) -> list[Html]:
    """The first start's command line and environment, then what other starts have different."""
    parts: list[Html] = []
    first: StartRecord | None = None
    for record in records:
        if not _is_told(record):
            continue
        if first is None:
            first = record
            parts += _whole(start_title(run, record), record)
        else:
            parts.append(_changes(start_title(run, record), first, record))
    return parts


def _whole(title: str, record: StartRecord) -> list[Html]:
    environment = masked_values(record.environment)
    lines = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    parts = [
        paragraph(f"Start {title}: command line"),
        _code(shlex.join(masked_argv(record.argv))),
    ]
    if lines:
        parts += [
            paragraph("Environment: what was set for it, and what of bench's bears on it"),
            _code("\n".join(lines)),
        ]
    return parts


def _code(content: str) -> Html:
    return tag("pre", tag("code", content or NOTHING), class_="command", tabindex="0")


def _changes(title: str, first: StartRecord, record: StartRecord) -> Html:
    """What differs from the first start, in one line; the whole command line where its shape does."""
    name = f"Start {title}: "
    a, b = masked_argv(first.argv), masked_argv(record.argv)
    said = _changed(masked_values(first.environment), masked_values(record.environment))
    if len(a) != len(b):
        return join([paragraph(f"{name}command line"), _code(shlex.join(b)), *map(paragraph, said)])
    flags = [
        f"{b[at - 1]} {new}" if at and b[at - 1].startswith("-") else new
        for at, (old, new) in enumerate(zip(a, b, strict=True))
        if old != new
    ]
    if not flags and not said:
        return paragraph(f"{name}the same.")
    code = tag("code", "  ".join([*map(str, flags), *said]))
    return tag("p", f"{name}the same but for ", code, class_="note")


def _changed(first: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    names = dict.fromkeys([*first, *other])
    return [
        f"{name}={other[name]}" if name in other else f"without {name}"
        for name in names
        if first.get(name) != other.get(name)
    ]
