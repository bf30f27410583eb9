"""The result of driving a run, and the resolutions of a call that a crash left in doubt. Data only."""

from collections.abc import Callable
from typing import NamedTuple

from flowrun.core.events import CallFunction, RequestInput
from flowrun.core.machine import Run
from flowrun.spec.model import JSON


class Result(NamedTuple):
    """A run that has ended, waits, or needs attention.

    Attributes:
        waiting: the questions of the run and its children that have no answer yet.
        in_doubt: the calls of the run and its children that were started before a crash and have no result.
    """

    run: Run
    waiting: tuple[RequestInput, ...] = ()
    in_doubt: tuple[CallFunction, ...] = ()


class AssumeDone(NamedTuple):
    """The resolution that an in-doubt call was made, and returned ``value``."""

    value: JSON = None


class CallAgain(NamedTuple):
    """The resolution that an in-doubt call is made again, whether it was made or not."""


Resolve = Callable[[CallFunction], AssumeDone | CallAgain | None]
"""A callback that resolves an in-doubt call; None leaves it in doubt."""
