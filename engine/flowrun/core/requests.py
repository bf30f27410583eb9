"""What a model reads of a thread. A pure function of the thread, so that replay and a resumed run agree.

``history: {last: N}`` keeps the head of a thread, which is all before its first assistant message, and the messages
behind a cut. The cut moves in blocks of N + 1 messages, so between two cuts a prompt extends the one before.
"""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from flowrun.core.messages import Log, Message, Reply
from flowrun.spec.model import History
from flowrun.templates import Scope, compile_text

SETUP_ROLES: Final = ("system", "developer")
"""The roles of the messages that set a model up."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """How a state reads its thread, if it does not read it as it is."""

    system: Callable[[Scope], str] | None = None
    history: History = "all"

    def messages(
        self, thread: Log[Message], scope: Scope, *, own: int = 0, extra: Iterable[Message] = ()
    ) -> Log[Message]:
        """Return the messages of the state's request. See ``messages_of_request``.

        Raises:
            TemplateError: the system message cannot be rendered.
        """
        system = None if self.system is None else self.system(scope)
        return messages_of_request(thread, own=own, system=system, history=self.history, extra=extra)


AS_IT_IS: Final = Reading()
"""How a state reads its thread that has neither ``system`` nor ``history``."""


def compile_reading(system: str | None, history: History) -> Reading | None:
    """Compile the keys ``system`` and ``history`` of a state; None if it has neither."""
    if system is None and history == "all":
        return None
    return Reading(system=None if system is None else compile_text(system), history=history)


def messages_of_request(
    thread: Log[Message],
    *,
    own: int = 0,
    system: str | None = None,
    history: History = "all",
    extra: Iterable[Message] = (),
) -> Log[Message]:
    """Return the messages that a model reads: the thread itself, the same object, if nothing else is asked for.

    Args:
        own: the number of messages at the end of the thread that the state itself has put there.
        system: stands in place of the leading system and developer messages.
        history: the part of the thread that the model reads.
        extra: messages that follow, and are not kept.
    """
    extra = tuple(extra)
    read: Iterable[Message] = thread
    if history == "none":
        read = thread[len(thread) - own :]
    elif history != "all":
        head, start = window(thread, history.last)
        if start > head:
            read = (*thread[:head], *thread[start:])
    if read is thread and system is None and not extra:
        return thread
    if system is not None:
        read = (Message(role="system", content=system), *_without_setup(read))
    return Log((*read, *extra))


def messages_of_feedback(reply: Reply, text: str, *, keeps_reasoning: bool) -> tuple[Message, ...]:
    """Return a reply that failed as a message of the model, and what a user says about it.

    Calls of such a reply are open for ever, so they are shown as text: nothing answers them. A reply without calls
    keeps its tokens, so the prompt extends what the model wrote. An empty reply is left out.

    Args:
        keeps_reasoning: whether the model that is asked reads the reasoning of the reply.
    """
    user = Message(role="user", content=text)
    if not keeps_reasoning:
        reply = reply.without_reasoning()
    if reply.tool_calls or reply.invalid_call is not None:
        calls = "\n".join(f"{call.name}({call.arguments})" for call in reply.tool_calls)
        shown = reply.text or "\n".join(filter(None, (reply.content, calls)))
        return (Message(role="assistant", content=shown), user) if shown else (user,)
    if not reply.content:
        return (user,)
    faulty = Message(
        role="assistant",
        content=reply.content,
        reasoning=reply.reasoning,
        reasoning_key=reply.reasoning_key,
        tokens=reply.tokens,
    )
    return faulty, user


def window(thread: Log[Message], last: int) -> tuple[int, int]:
    """Return the length of a thread's head, and the index of the first message behind the cut.

    At least ``last`` messages stand behind the cut, and it never moves back as the thread grows. Once there would be
    more than twice as many, it moves, so that ``last`` are left; then back to a message that can follow the head: an
    assistant's, or a user's if the head does not end in one.
    """
    head = next((at for at, message in enumerate(thread) if message.role == "assistant"), len(thread))
    behind = len(thread) - head
    start = head + (behind - last) // (last + 1) * (last + 1) if behind > 2 * last else head
    follows = ("assistant",) if head and thread[head - 1].role == "user" else ("assistant", "user")
    while start > head and thread[start].role not in follows:
        start -= 1
    return head, start


def _without_setup(messages: Iterable[Message]) -> Iterable[Message]:
    leading = True
    for message in messages:
        leading = leading and message.role in SETUP_ROLES
        if not leading:
            yield message
