"""The structure of a conversation, the same for all models: each tool call is answered exactly once, before anything
else is said. Pure.

The form of a conversation (user turns in a row, text beside a call, ids of some length) is no fault: it depends on the
model, and its backend adapts it.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from flowrun.core.messages import Message
from flowrun.excerpts import cut

_MAX_SHOWN: Final = 400
"""Characters of the ids of calls that a message shows."""

_MAX_ID: Final = 80


class ConversationFault(NamedTuple):
    """A fault, the index of the message that has it, and what to do."""

    at: int
    message: str
    remedy: str


def faults_of_conversation(
    messages: Iterable[Message], *, waiting: Iterable[str] = (), ended: bool = False
) -> Iterator[ConversationFault]:
    """Yield the faults in the structure of messages that follow each other on a thread.

    A message of role tool without an id answers the oldest open call.

    Args:
        waiting: the ids of the calls that wait for an answer before the first message.
        ended: whether the model is asked after the last message, so that no call may wait then.
    """
    open_ids = list(waiting)
    called = 0
    for at, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id is None and open_ids:
                del open_ids[0]
            elif message.tool_call_id in open_ids:
                open_ids.remove(message.tool_call_id)
            else:
                yield _stray(at, message, open_ids)
        elif open_ids:
            yield _unanswered(at, open_ids, f"before a message of role {message.role}")
            open_ids = []
        if message.tool_calls:
            ids = [call.id for call in message.tool_calls]
            if len(set(ids)) < len(ids):
                twice = next(one for one in ids if ids.count(one) > 1)
                yield ConversationFault(
                    at, f"two calls of one message have the id {cut(twice, _MAX_ID)!r}", "leave the ids out"
                )
                ids = list(dict.fromkeys(ids))
            open_ids += ids
            called = at
    if ended and open_ids:
        yield _unanswered(called, open_ids, "before the model is asked")


def _unanswered(at: int, ids: list[str], when: str) -> ConversationFault:
    return ConversationFault(
        at,
        f"the calls {cut(', '.join(ids), _MAX_SHOWN)} must be answered {when}",
        "lead to a tools state of the thread, or answer each by a message of role tool",
    )


def _stray(at: int, message: Message, open_ids: list[str]) -> ConversationFault:
    if open_ids:
        answered, waiting = cut(message.tool_call_id or "", _MAX_ID), cut(", ".join(open_ids), _MAX_SHOWN)
        what = f"a message of role tool answers {answered!r}, but what waits for an answer is {waiting}"
        return ConversationFault(at, what, "leave tool_call_id out to answer the oldest call")
    what = "a message of role tool answers no call: the thread does not end in a call that waits for an answer"
    return ConversationFault(at, what, "put it behind the message that makes the call")
