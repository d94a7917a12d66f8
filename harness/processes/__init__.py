"""Run child processes that leave nothing behind. Knows no server and no load."""
