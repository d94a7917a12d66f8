"""Name the folders of the programs that run in engines' environments, of these environments' locks,
and of the lock of what builds packages."""

from pathlib import Path

INSIDE = Path(__file__).parent / "inside"
LOCKS = Path(__file__).parent / "locks"
BUILDERS = LOCKS / "builds.txt"
TASKS_PROGRAM = INSIDE / "ask_tasks.py"
