"""Name the folders of the programs that run in engines' environments, and of these environments' locks."""

from pathlib import Path

INSIDE = Path(__file__).parent / "inside"
LOCKS = Path(__file__).parent / "locks"
TASKS_PROGRAM = INSIDE / "ask_tasks.py"
