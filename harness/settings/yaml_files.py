"""Read YAML that others wrote, studies and claims: of bounded size, without aliases, with each key once."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from serving_bench.harness.errors import UserError
from serving_bench.harness.foreign_files import read_text

# Far beyond any study or claim; PyYAML takes seconds for it.
_MOST_BYTES = 1 << 18


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        # A few lines of aliases can expand to more values than any memory holds.
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem_mark=self.get_mark())
        return super().compose_node(parent, index)


def read_yaml(path: Path, where: str, remedy: str) -> Any:
    """Return the content of a YAML file.

    Raises UserError, which begins with `where`, if it cannot be read or gives a top-level key twice.
    `remedy` says what a readable file has.
    """
    text = read_text(path, where, _MOST_BYTES)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        content = loader.construct_document(node) if node else None
        json.dumps(content, default=str, ensure_ascii=False).encode()  # raises for a lone surrogate
    # PyYAML lets through whatever its constructors raise, for impossible dates and numbers.
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f"line {min(mark.line + 1, len(text.splitlines()))}" if mark else "it"
        raise UserError(f"{where}: {at} is not YAML that bench can read; {remedy}") from error
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    for key, count in Counter(str(name.value) for name, _ in pairs).items():
        if count > 1:  # YAML itself would let the last one win
            raise UserError(f"{where}: {key} is given twice; give it once")
    return content
