"""What a function may know of the call that it is: for tools that must do their work once, however often they run.

A payment, an e-mail or an order is asked for with ``current_call().key``: a service that knows idempotency keys does it
once, and after a crash a tool can look up whether it was done.
"""

from contextvars import ContextVar
from typing import Final

import msgspec

from flowrun.core.events import CallFunction

CURRENT_CALL: Final[ContextVar[CallFunction]] = ContextVar("flowrun_call")
"""Set by who calls a function, in the context that the function runs in."""


class ToolContext(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a tool, or of a ``call`` state (``tool`` is None then).

    ``key`` is the same on each attempt at the call, by the state's ``retry`` or after a crash, and no other call's in
    any run. ``attempt`` counts the state's from 1.
    """

    run: str
    state: str
    tool: str | None
    attempt: int
    key: str


def current_call() -> ToolContext:
    """Give the call that is under way, in the function that was called or in what it calls.

    Raises:
        LookupError: flowrun has not called anything here.
    """
    effect = CURRENT_CALL.get(None)
    if effect is None:
        raise LookupError("no tool of a flow is being called here")
    return ToolContext(run=effect.run, state=effect.state, tool=effect.tool, attempt=effect.attempt, key=effect.key)
