"""Where the programs that run in engines' environments are, and the locks of these environments."""

from __future__ import annotations

from pathlib import Path

INSIDE = Path(__file__).parent / "inside"
LOCKS = Path(__file__).parent / "locks"
