"""Functions of a run that are asked several times and reckoned once: what they gave is kept with the run, and
is not to be changed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from reports.data.run import Run

Given = TypeVar("Given")
Found = TypeVar("Found")


def once(function: Callable[[Run], Found]) -> Callable[[Run], Found]:
    """For a function of a run alone."""

    @functools.wraps(function)
    def known(run: Run) -> Found:
        return _kept(run, function, lambda: function(run))

    return known


def once_for(
    key: Callable[[Given], Hashable],
) -> Callable[[Callable[[Run, Given], Found]], Callable[[Run, Given], Found]]:
    """For one of a run and of one thing more, which `key` tells from others of its kind."""

    def decorated(function: Callable[[Run, Given], Found]) -> Callable[[Run, Given], Found]:
        @functools.wraps(function)
        def known(run: Run, given: Given) -> Found:
            return _kept(run, (function, key(given)), lambda: function(run, given))

        return known

    return decorated


def itself(name: str) -> str:
    """The key of a text."""
    return name


def _kept(run: Run, place: Hashable, reckon: Callable[[], Found]) -> Found:
    if place not in run.found_once:
        run.found_once[place] = reckon()
    return cast(Found, run.found_once[place])
