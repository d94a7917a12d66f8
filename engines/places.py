"""Name the folders of locks and of programs that run in engines' environments, and two files in them."""

from pathlib import Path

INSIDE = Path(__file__).parent / "inside"
LOCKS = Path(__file__).parent / "locks"
BUILDERS = LOCKS / "builds.txt"
TASKS_PROGRAM = INSIDE / "ask_tasks.py"
