"""What driving a run leads to, and what is to be known of a call that a crash left in doubt. Data only."""

from collections.abc import Callable
from typing import NamedTuple

from flowrun.core.events import CallFunction, RequestInput
from flowrun.core.machine import Run
from flowrun.spec.model import JSON


class Result(NamedTuple):
    """A run as far as it came. ``waiting`` holds what it, or a child of it, waits for an answer to, and ``doubtful``
    the calls of which nobody knows whether they were made.
    """

    run: Run
    waiting: tuple[RequestInput, ...] = ()
    doubtful: tuple[CallFunction, ...] = ()


class AssumeDone(NamedTuple):
    """A call in doubt was made, and gave ``value``."""

    value: JSON = None


class CallAgain(NamedTuple):
    """A call in doubt is to be made again, whether it was made or not."""


Resolve = Callable[[CallFunction], AssumeDone | CallAgain | None]
"""Says what became of a call in doubt; None leaves it in doubt."""
