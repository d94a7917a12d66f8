"""Finds the commands that a document shows, and parses them as bench's command line does. Runs nothing."""

import re
import shlex
from typing import Any

import typer

from serving_bench.harness.cli.app import app
from serving_bench.harness.settings import config, overrides
from serving_bench.harness.settings.config import Settings


def shown(document: str) -> list[str]:
    """Return the lines of the document's blocks that call bench, with or without variables before it."""
    return re.findall(r"^    ((?:[A-Z_]+=\S+ )*bench .*)$", document, re.MULTILINE)


def named(document: str) -> set[str]:
    """Return the names of the commands that the document's text mentions."""
    return set(re.findall(r"`bench ([a-z]+)", document))


def commands() -> list[str]:
    """Return the names of all of bench's commands."""
    group = typer.main.get_command(app)
    with group.make_context("bench", ["doctor"]) as context:
        return group.list_commands(context)


def taken(command: str) -> tuple[str, dict[str, Any]]:
    """Return a command's name and its options by name. Raises UsageError (click's) for what bench refuses."""
    words = shlex.split(command, comments=True)
    name, *words = words[words.index("bench") + 1 :]
    group = typer.main.get_command(app)
    with group.make_context("bench", [name, *words]) as context:
        _, found, rest = group.resolve_command(context, [name, *words])
        return name, found.make_context(name, rest, parent=context).params


def settings_of(options: dict[str, Any]) -> Settings:
    """Return the settings that a command's overrides make. Raises UserError."""
    return config.settings(overrides.parse(options["changes"]))
