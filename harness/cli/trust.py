"""Ask before settings of somebody else's file are used, and say which files of a run have changed."""

import shlex
import sys
from math import prod
from pathlib import Path

from rich.markup import escape

from serving_bench.harness.cli.terminal import complaints
from serving_bench.harness.contracts import inert
from serving_bench.harness.errors import StoreError, UserError
from serving_bench.harness.settings.decoding import Choices
from serving_bench.harness.settings.strangers import words
from serving_bench.harness.store import checksums, store
from serving_bench.harness.store.named_files import SUMS_FILE

_MOST_COMBINATIONS, _MOST_CHARACTERS = 1000, 2000
# Reading this much takes a few seconds.
_MOST_BYTES = 8 << 30


def agreed(
    source: Path | str, choices: Choices, typed: Choices, *, is_own: bool, may_ask: bool = True
) -> Choices:
    """Return the settings of a file with what the user typed over them.

    If the file is not the user's own, its costs are told, and the user must agree to each value that says
    what runs, what is read or where requests go. Raises UserError, with the words to type (if they are long,
    with the keys alone), if the user does not agree, or cannot be asked: without a terminal, or if `may_ask`
    is false.
    """
    settings = {**choices, **typed}
    if is_own:
        return settings
    if (count := prod(map(len, settings.values()))) > _MOST_COMBINATIONS:
        raise UserError(f"{source}: asks for {count:,} combinations of values; give some keys with one value")
    left = {key: values for key, values in choices.items() if key not in typed}
    try:
        shown_words, asked_words = ([*words(left, kind)] for kind in ("shown", "asked"))
    except UserError as error:
        raise UserError(beginning_of(str(error))) from error
    if shown_words:
        complaints.print(escape(beginning_of(inert(f"{source} asks for {shlex.join(shown_words)}"))))
    if not asked_words:
        return settings
    words_asked = inert(shlex.join(asked_words))
    if len(words_asked) > _MOST_CHARACTERS:
        keys = " ".join(f"{key}=" for key, values in left.items() if [*words({key: values}, "asked")])
        raise UserError(
            f"{source}: asks for values of {len(words_asked):,} characters; type your own: {keys}"
        )
    if not (may_ask and sys.stdin.isatty() and sys.stderr.isatty()):
        raise UserError(f"{source}: asks for {words_asked}; no file decides that: type it if you mean it")
    single = ({key: (value,)} for key, values in left.items() for value in values)
    for word in (inert(word) for each in single for word in words(each, "asked")):
        complaints.print(escape(f"{source} asks for {word}. Do you agree? (y/N)"), end=" ")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise UserError(f"{source}: asks for {word}, to which you did not agree; type another value")
    return settings


def beginning_of(text: str) -> str:
    """Return a text, or its beginning and its length if it is a screen long."""
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:200]}... ({len(text):,} characters)"


def tell_changed(run_dir: Path, *, is_held: bool = False) -> None:
    """Print a line on stderr if files of a run have changed since they were written. Reads each file once.

    Skips the page, runs without checksums, and runs that another process is measuring. `is_held`: the run is
    locked by this process.
    """
    if not (run_dir / SUMS_FILE).exists() or (not is_held and store.is_going_on(run_dir, "running")):
        return
    try:
        size = sum((run_dir / name).lstat().st_size for name, _ in checksums.files(run_dir))
        if size > _MOST_BYTES:
            message: str | None = (
                f"{run_dir}: {size:,} bytes are not compared here; see `bench verify {run_dir}`"
            )
        else:
            # A killed bench leaves .part files, which the next one removes.
            changes = [each for each in checksums.changed(run_dir) if not each.file.endswith(".part")]
            message = checksums.told(run_dir, changes)
    except (StoreError, OSError) as error:
        message = f"{run_dir}: its files could not be compared with their checksums ({error})"
    if message:
        complaints.print(inert(message), markup=False)
