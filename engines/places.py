"""Where the programs that run in engines' environments are, and the locks of these environments."""

from pathlib import Path

INSIDE = Path(__file__).parent / "inside"
LOCKS = Path(__file__).parent / "locks"
