"""Commands that look at bench and its machine: `list`, `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.arguments import Json, out, print_json
from harness.install import install


def list_command(
    what: Annotated[
        str, typer.Argument(help="engines, tools, scenarios, quantizations, models, metrics or keys")
    ] = "engines",
    as_json: Json = False,
) -> None:
    """List what bench knows, with what is available here and why not."""
    from harness.cli.show import listing

    if as_json:
        print_json(listing.facts_of(what))
    else:
        listing.print_list(out, what)


def doctor(as_json: Json = False) -> None:
    """Look whether this machine is fit to measure on, and say what to do where it is not."""
    from harness.cli.doctor import examine
    from harness.cli.show import listing

    findings = examine(install.cache_dir(), Path("results"))
    if as_json:
        print_json(findings)
    else:
        listing.print_findings(out, findings)
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)
