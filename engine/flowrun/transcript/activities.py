"""What a visit asked of the world, from the effect and the event that answered it to what is shown of both."""

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


class PendingActivity:
    """An effect under way, and what came of it."""

    __slots__ = ("answer", "began", "begins", "earlier", "effect", "ended", "messages")

    def __init__(self, effect: Effect, at: float) -> None:
        self.effect = effect
        self.began = at
        self.begins = 0
        self.ended: float | None = None
        self.answer: Event | None = None
        self.earlier = 0
        self.messages: tuple[Message, ...] = ()


def begin_activity(asked: PendingActivity, left: bool, live: bool) -> Activity:
    """Give an effect that starts no child as it is shown. ``left``: its state was left, so nothing is awaited."""
    effect, answer, times = asked.effect, asked.answer, times_of(asked)
    match effect:
        case AskModel():
            return _round(effect, asked)
        case CallFunction():
            return _call(effect, asked, _call_status(effect, asked, left, live))
        case RequestInput():
            given = answer.value if isinstance(answer, Answered) else None
            answered = answer is not None
            return Question(prompt=effect.prompt, schema=effect.schema, answered=answered, answer=given, **times)
        case Sleep():
            return Pause(planned=effect.seconds, jitter=effect.jitter, **times)
        case StartChild() | Outcome():
            raise Bug("a child, or the end of a run, is no act of this kind")
        case _:
            assert_never(effect)


def times_of(asked: PendingActivity) -> dict[str, Any]:
    """Give an effect's place in its visit and its times."""
    seconds = None if asked.ended is None else asked.ended - asked.began
    return {"index": getattr(asked.effect, "index", 0), "began": asked.began, "seconds": seconds}


def _round(effect: AskModel, asked: PendingActivity) -> Round:
    answer = asked.answer
    return Round(
        thread=effect.thread,
        model=effect.model,
        earlier=asked.earlier,
        messages=tuple(_replace(message, tokens=None) for message in asked.messages),
        tools=tuple(tool.name for tool in effect.tools),
        tool_choice=effect.tool_choice,
        sampling=effect.sampling,
        reply=_replace(answer.reply, tokens=None) if isinstance(answer, Replied) else None,
        failure=answer.failure if isinstance(answer, Failed) else None,
        **times_of(asked),
    )


def _call(effect: CallFunction, asked: PendingActivity, status: CallStatus) -> FunctionCall:
    return FunctionCall(
        tool=effect.tool,
        entrypoint=effect.entrypoint,
        arguments=effect.arguments,
        call_id=effect.call_id,
        idempotent=effect.idempotent,
        begins=asked.begins,
        status=status,
        value=asked.answer.value if isinstance(asked.answer, Returned) else None,
        failure=asked.answer.failure if isinstance(asked.answer, Failed) else None,
        **times_of(asked),
    )


def _call_status(effect: CallFunction, asked: PendingActivity, left: bool, live: bool) -> CallStatus:
    if asked.answer is not None:
        return "failed" if isinstance(asked.answer, Failed) else "returned"
    if left:
        return "given_up"
    if live:
        return "running"
    return "in_doubt" if asked.begins and not effect.idempotent else "open"
