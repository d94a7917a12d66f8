"""Take a scenario from a Python file or module that the user names. This runs its code."""

import hashlib
import re
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from serving_bench.harness.contracts import Scenario, check_section
from serving_bench.harness.errors import UserError, expanded
from serving_bench.harness.plugins import reason

_IN_MODULE = re.compile(r"([\w.]+):(\w+)", re.ASCII)


def given_scenario(name: str) -> tuple[Scenario, str] | None:
    """Return the SCENARIO of a `FILE.py`, or what `package:NAME` names, and its file's SHA-256.

    None for a name of another form. Raises UserError if there is no such file, or its code does not work.
    """
    named = _IN_MODULE.fullmatch(name)
    if not (named or name.endswith(".py")):
        return None
    path, attribute = expanded("scenario", name).absolute(), named[2] if named else "SCENARIO"
    try:
        module, source = _imported(named[1]) if named else _run(path)
        scenario = getattr(module, attribute, None)
        if not isinstance(scenario, Scenario):
            raise UserError(f"has no {attribute} = Scenario(...)")
        check_section(scenario.options)
    except (Exception, SystemExit) as error:
        raise UserError(f"scenario={name}: {reason(error)}") from error
    return scenario, f"SHA-256 {hashlib.sha256(source).hexdigest()}"


def _imported(name: str) -> tuple[ModuleType, bytes]:
    module = import_module(name)
    return module, Path(str(module.__file__)).read_bytes()


@cache
def _run(path: Path) -> tuple[ModuleType, bytes]:
    if not path.is_file():
        raise UserError("no such file; give one with SCENARIO = Scenario(...)")
    source = path.read_bytes()
    module = ModuleType(f"scenario_{hashlib.sha256(source).hexdigest()}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses look up the types of their fields
    exec(compile(source, path, "exec"), vars(module))
    return module, source
