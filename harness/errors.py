"""Every error that bench raises on purpose, as one tree.

BenchError                  one line to the user; anything else is a bug and shows a traceback
  UserError        exit 2   a mistake in what was asked: names the key, the value and what would work
  CellError        exit 1   one cell or start failed; it is recorded and the run goes on
    ServerError             the server did not start, did not become ready, or died
    LoadError               the load process failed
    UnfitError              guard=strict refused to measure on this machine as it was
  MissingError     exit 2   something that must be installed or prepared first; names the command
  StoreError       exit 2   a results directory that cannot be read or continued
  ReportError      exit 1   the report of a run could not be written
"""

import difflib
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from serving_bench.harness.contracts.sentences import Reason, inert

# A name at least this similar (difflib's ratio) was probably meant.
_NEAR = 0.65


def near_names(name: str, candidates: Iterable[str]) -> list[str]:
    """Return up to three known names that were probably meant, nearest first. If any differ only in case,
    return only those."""
    names, all_names = list(candidates), name.lower()
    if same := [each for each in names if each.lower() == all_names]:
        return same[:3]
    alike = difflib.get_close_matches(all_names, names, 20, _NEAR)
    near = [each for each in alike if _is_near(all_names, each, {one.partition(".")[0] for one in names})]
    near += [
        each for each in names if all_names and (each.startswith(all_names) or each.endswith(f"-{all_names}"))
    ]
    words = all_names.split("-")
    near += [each for each in names if words[1:] and set(words) <= set(each.split("-"))]
    return list(dict.fromkeys(near))[:3]


def _is_near(wanted: str, name: str, sections: Collection[str]) -> bool:
    """Return whether the part behind a key's section (`load.`) is similar too; in another section, equal."""
    (section, _, wanted_key), (other, _, theirs) = wanted.partition("."), name.partition(".")
    if not wanted_key or section not in sections:
        return True
    if not theirs:
        return _likeness(wanted_key, name) >= _NEAR
    return wanted_key == theirs or (section == other and _likeness(wanted_key, theirs) >= _NEAR)


def _likeness(wanted: str, theirs: str) -> float:
    return difflib.SequenceMatcher(None, theirs, wanted).ratio()


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return `did you mean NAME? ` with the nearest known name; an empty text if none is near."""
    near = near_names(name, names)
    return f"did you mean {near[0]}? " if near else ""


def choose_from(name: str, names_known: Iterable[str]) -> str:
    """Return the advice for an unknown name: the nearest known one, if any, and a list of all."""
    names = list(names_known)
    return f"{did_you_mean(name, names)}choose from {', '.join(names)}"


def see_list(name: str, names: Iterable[str], what: str) -> str:
    """Return the advice for an unknown name of a long list: the near ones, and the command that lists all."""
    near = " or ".join(near_names(name, names))
    return f"{f'did you mean {near}? ' * bool(near)}see `bench list {what}`"


def expanded(key: str, path: str) -> Path:
    """Return the path given for a key with ~ expanded. Raise UserError if there is no such home directory."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{key}={path}: no such home directory; give the path without ~") from error


# Whether something is wrong, and the text for the user.
Problem = tuple[object, str]


def refuse_first(*problems: Problem) -> None:
    """Raise UserError with the text of the first problem whose condition is true."""
    for is_wrong, text in problems:
        if is_wrong:
            raise UserError(text)


class BenchError(Exception):
    """Base of all expected errors; `str(error)` is the one line that the user reads."""

    exit_code = 1

    def __str__(self) -> str:
        # The text may quote a file, a name or a server. A line break in it would forge another line.
        return inert(super().__str__())


class UserError(BenchError):
    """The user asked for something that does not exist or cannot be done."""

    exit_code = 2

    @property
    def reason(self) -> Reason:
        return self.args[0] if isinstance(self.args[0], Reason) else Reason(str(self))


class CellError(BenchError):
    """One cell or start failed; the run records the reason and goes on."""


class ServerError(CellError):
    """A server exited, timed out or answered wrongly.

    `log_tail` holds the end of its log, `sent` what it sent, which is the end of the message.
    """

    def __init__(self, what: str, log_tail: str = "", sent: str = "") -> None:
        super().__init__(what + sent)
        self.what, self.log_tail, self.sent = what, log_tail, sent


class LoadError(CellError):
    """The load process ended without a usable result."""


class UnfitError(CellError):
    """guard=strict refused to measure, since the machine was not fit. `findings` are the guard's."""

    def __init__(self, message: str, findings: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.findings = findings


class MissingError(BenchError):
    """Something must be installed or prepared before this can work.

    Its line is followed by `output`, the end of what an installer printed (indented), and by `advice`.
    """

    exit_code = 2

    def __init__(self, message: str, output: Iterable[str] = (), advice: Iterable[str] = ()) -> None:
        super().__init__(message)
        self._below = (*(f"  {inert(line)}".rstrip() for line in output), *advice)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *self._below])


class StoreError(BenchError):
    """A results directory is absent, damaged, of another schema, or of a run that cannot be continued."""

    exit_code = 2


class ReportError(BenchError):
    """The report of a run could not be written. What was measured is stored."""


class Interrupted(BaseException):
    """SIGINT (exit code 130), SIGTERM (143) or SIGHUP (129) arrived.

    Not an Exception, so that no handler swallows it. `remark`: what was measured, and what goes on with it.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"signal {signal_number}")
        self.exit_code = 128 + signal_number
        self.remark = ""


# What installers print -> why they failed, and what would work. The first match counts.
_OTHER_INDEX = "name another one with PIP_INDEX_URL or in pip's own settings"
_WHY_NOT_FETCHED = (
    (
        r"ensurepip is not available",
        "this Python has no ensurepip; install it (on Debian: apt-get install python3-venv)",
    ),
    (
        r"hash mismatch|do not match the hashes",
        "the hash of a fetched file is not the pinned one: the index, or something on the way, changed the "
        f"file; {_OTHER_INDEX}",
    ),
    (
        r"no space left|os error 28",
        "the disk is full; free some of it, or name another place: {place}",
    ),
    (
        r"dns error|connect error|connection ?(refused|error|reset)|establish a new connection|time[d -]*out"
        r"|failed to (fetch|connect|resolve|download)|error sending request",
        f"the package index does not answer; check the network and HTTPS_PROXY, or {_OTHER_INDEX}",
    ),
    (
        r"text/html|from versions: none|not found in the package registry|no version of|not a (valid )?zip",
        f"the package index answers, but not with this package (a proxy's own page, perhaps); {_OTHER_INDEX}",
    ),
)


def why_not_fetched(output: str, place: str = "BENCH_CACHE_DIR=DIR") -> str | None:
    """Return why an installer failed, judged by its output, and what would work; None if not known.

    `place`: how the user names another place for what it writes.
    """
    causes = (words for pattern, words in _WHY_NOT_FETCHED if re.search(pattern, output, re.IGNORECASE))
    return next((words.replace("{place}", place) for words in causes), None)
