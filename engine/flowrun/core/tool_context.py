"""The context of a tool call, for tools that must do their work only once, however often they are called.

A tool that pays, sends an e-mail or orders passes ``current_call().key`` to its service: a service with idempotency
keys does the work once, and after a crash the tool can look up whether it was done.
"""

from contextvars import ContextVar
from typing import Final

import msgspec

from flowrun.core.events import CallFunction

CURRENT_CALL: Final[ContextVar[CallFunction]] = ContextVar("flowrun_call")
"""Set by the caller of a function, in the context that the function runs in."""


DEADLINE: Final[ContextVar[float | None]] = ContextVar("flowrun_deadline")
"""The time of the event loop at which the run or the state that is in progress has its timeout; None: it has none."""


class ToolContext(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a tool, or of a ``call`` state (``tool`` is None then).

    ``key`` is the idempotency key: the same for each attempt at the call, by the state's ``retry`` or after a crash,
    and different for all other calls of all runs. ``attempt`` counts the attempts of the state, from 1.
    """

    run: str
    state: str
    tool: str | None
    attempt: int
    key: str


def current_call() -> ToolContext:
    """Return the context of the current call, in the called function or in functions that it calls.

    Raises:
        LookupError: flowrun has not called a function in this context.
    """
    effect = CURRENT_CALL.get(None)
    if effect is None:
        raise LookupError("no tool of a flow is being called here")
    return ToolContext(run=effect.run, state=effect.state, tool=effect.tool, attempt=effect.attempt, key=effect.key)
