"""A worker of another machine, for tests: `python tests/tiny_remote.py HOST:PORT [options of remote.py]`.

It differs from the machine of the test in what the environment says: TINY_BOOT_ID is its boot, TINY_VERSION
its version of bench. It knows the tiny scenario.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys

from tiny_load import register

from harness import watchdog
from harness.load.remote import main

if __name__ == "__main__":
    register()
    if boot_id := os.environ.get("TINY_BOOT_ID"):
        watchdog.boot_id = lambda: boot_id
    if version := os.environ.get("TINY_VERSION"):
        importlib.metadata.version = lambda name: version
    sys.exit(main(sys.argv))
