"""A master that knows the tiny scenario, for tests: `python tests/tiny_master.py JOB.json`."""

from __future__ import annotations

import sys

from tiny_load import register

from harness.load.master import main

if __name__ == "__main__":
    register()
    sys.exit(main(sys.argv))
