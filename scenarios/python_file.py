"""Take a scenario from a Python file or module that the user names. This runs its code."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

from serving_bench.harness.contracts import Conversation, Scenario, check_section
from serving_bench.harness.errors import UserError, expanded
from serving_bench.harness.plugins import reason

_IN_MODULE = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*):(\w+)", re.ASCII)


def given_scenario(name: str) -> tuple[Scenario, str] | None:
    """Return the SCENARIO of a `FILE.py`, or what `package:NAME` names, and its file's SHA-256.

    None for a name of another form. Raises UserError if there is no such file, or its code does not work.
    """
    named = _IN_MODULE.fullmatch(name)
    if not (named or name.endswith(".py")):
        return None
    path, attribute = expanded("scenario", name).absolute(), named[2] if named else "SCENARIO"
    try:
        module, source = _imported(named[1]) if named else (_run(path, source := _read(path)), source)
        scenario = getattr(module, attribute, None)
        if not isinstance(scenario, Scenario):
            raise UserError(f"has no {attribute} = Scenario(...)")
        check_section(scenario.options)
    except (Exception, SystemExit) as error:
        raise UserError(f"scenario={name}: {reason(error)}") from error
    guarded = replace(scenario, conversations=partial(_guarded, f"scenario={name}", scenario))
    return guarded, f"SHA-256 {hashlib.sha256(source).hexdigest()}"


def _guarded(what: str, scenario: Scenario, options: Any, rng: Random) -> Iterator[Conversation]:
    """Yield a scenario's conversations. Raises UserError for what its code raises."""
    try:
        yield from scenario.conversations(options, rng)
    except Exception as error:
        raise UserError(f"{what}: {reason(error)}") from error


def _imported(name: str) -> tuple[ModuleType, bytes]:
    # As a load process looks for it: without the folder that a script or a notebook runs in.
    look = "import sys, importlib.util; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
    if subprocess.run([sys.executable, "-P", "-c", look, name], capture_output=True).returncode:
        raise UserError(f"no module {name} is installed; install it, or give its ./FILE.py")
    module = import_module(name)
    if not getattr(module, "__file__", None):
        raise UserError(f"{name} is no file of Python; give a module with a scenario")
    return module, Path(str(module.__file__)).read_bytes()


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise UserError("no such file; give one with SCENARIO = Scenario(...)")
    return path.read_bytes()


@cache
def _run(path: Path, source: bytes) -> ModuleType:
    module = ModuleType(f"scenario_{hashlib.sha256(source).hexdigest()}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses look up the types of their fields
    exec(compile(source, path, "exec"), vars(module))
    return module
