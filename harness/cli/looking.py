"""Commands that look at bench and its machine: `list`, `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.arguments import Json, out, print_json
from harness.cli.show import listing
from harness.install.install import cache_dir


def list_command(
    what: Annotated[
        str, typer.Argument(help="engines, tools, scenarios, quantizations, models, metrics or keys")
    ] = "engines",
    as_json: Json = False,
) -> None:
    """List what bench knows, with what is available here and why not."""
    if as_json:
        print_json(listing.facts_of(what))
    else:
        listing.print_list(out, what)


def doctor(as_json: Json = False) -> None:
    """Look whether this machine is fit to measure on, and say what to do where it is not."""
    # It brings servers and sampling, for which `bench list` would wait.
    from harness.cli.doctor import examine, print_findings

    findings = examine(cache_dir(), Path("results"))
    if as_json:
        print_json(findings)
    else:
        print_findings(out, findings)
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)
