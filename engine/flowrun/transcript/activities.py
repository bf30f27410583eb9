"""Builds the activities of a visit from its effects and their events."""

from typing import Any, assert_never

import msgspec

from flowrun.core.events import (
    Answered,
    AskModel,
    CallFunction,
    Effect,
    Event,
    Failed,
    Outcome,
    Replied,
    RequestInput,
    Returned,
    Sleep,
    StartChild,
)
from flowrun.core.messages import Message
from flowrun.errors import Bug
from flowrun.transcript.model import Activity, CallStatus, FunctionCall, Pause, Question, Round

_replace = msgspec.structs.replace


class ActivityRecord(msgspec.Struct):
    """An effect and, once it is recorded, its event (``answer``): the source of an activity.

    ``began`` and ``ended`` are in seconds since the epoch. ``length`` is that of the thread of a request.
    """

    effect: Effect
    began: float
    begins: int = 0
    ended: float | None = None
    answer: Event | None = None
    length: int = 0
    earlier: int = 0
    messages: tuple[Message, ...] = ()
    system: str | None = None
    left_out: int = 0


def build_activity(pending: ActivityRecord, exited: bool, live: bool) -> Activity:
    """Build the activity of an effect that starts no child.

    Args:
        exited: the run has left the state, so the effect can have no result any more.
        live: a process drives the run now.
    """
    effect, answer, times = pending.effect, pending.answer, times_of(pending)
    match effect:
        case AskModel():
            return _round(effect, pending)
        case CallFunction():
            return _call(effect, pending, _call_status(effect, pending, exited, live))
        case RequestInput():
            value = answer.value if isinstance(answer, Answered) else None
            answered = answer is not None
            return Question(
                prompt=effect.prompt,
                schema=effect.schema,
                call=effect.call,
                answered=answered,
                answer=value,
                failure=answer.failure if isinstance(answer, Failed) else None,
                **times,
            )
        case Sleep():
            return Pause(planned=effect.seconds, jitter=effect.jitter, until=effect.until, **times)
        case StartChild() | Outcome():
            raise Bug("a child, or the end of a run, is no activity of its own")
        case _:
            assert_never(effect)


def times_of(pending: ActivityRecord) -> dict[str, Any]:
    """Return the fields of an activity that all kinds have."""
    seconds = None if pending.ended is None else pending.ended - pending.began
    return {"index": getattr(pending.effect, "index", 0), "began": pending.began, "seconds": seconds}


def _round(effect: AskModel, pending: ActivityRecord) -> Round:
    answer = pending.answer
    return Round(
        thread=effect.thread,
        model=effect.model,
        earlier=pending.earlier,
        messages=tuple(_replace(message, tokens=None) for message in pending.messages),
        system=pending.system,
        left_out=pending.left_out,
        tools=tuple(tool.name for tool in effect.tools),
        tool_choice=effect.tool_choice,
        sampling=effect.sampling,
        reply=_replace(answer.reply, tokens=None) if isinstance(answer, Replied) else None,
        failure=answer.failure if isinstance(answer, Failed) else None,
        **times_of(pending),
    )


def _call(effect: CallFunction, pending: ActivityRecord, status: CallStatus) -> FunctionCall:
    return FunctionCall(
        tool=effect.tool,
        entrypoint=effect.entrypoint,
        arguments=effect.arguments,
        call_id=effect.call_id,
        idempotent=effect.idempotent,
        begins=pending.begins,
        status=status,
        value=pending.answer.value if isinstance(pending.answer, Returned) else None,
        failure=pending.answer.failure if isinstance(pending.answer, Failed) else None,
        **times_of(pending),
    )


def _call_status(effect: CallFunction, pending: ActivityRecord, exited: bool, live: bool) -> CallStatus:
    if pending.answer is not None:
        return "failed" if isinstance(pending.answer, Failed) else "returned"
    if exited:
        return "given_up"
    if live:
        return "running"
    return "in_doubt" if pending.begins and not effect.idempotent else "open"
