"""Puts links into a run, as a stranger might before handing it over."""

import shutil
from pathlib import Path

# Where bench writes in a run: folders that are there, or would be made, and a log.
LINKS = ("cells/099", "starts/99-x", "reference", "starts", "cells/001/load.log")


def plant(run: Path, name: str, leads_to: Path) -> Path:
    """Put a link into a run in place of what is there, and return the link's path."""
    link = run / name
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(leads_to)
    return link
