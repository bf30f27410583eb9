"""Adds messages to the threads of a run, and checks that tool calls are answered."""

from collections.abc import Iterable, Mapping

from flowrun.core.messages import Log, Message, ToolCall, last_calls
from flowrun.core.rendering import CompiledMessage, Prologue, RenderedMessages, render
from flowrun.core.run import Draft
from flowrun.core.state_node import StateFailure
from flowrun.templates import Scope


def start_threads(run: Draft, prologues: Mapping[str, Prologue], scope: Scope) -> None:
    """Start the threads of a run with their first messages."""
    threads = {}
    for thread, prologue in prologues.items():
        first = render(prologue.others, scope, prologue.ready) if prologue.others else prologue.ready
        threads[thread] = Log(first.messages)
        run.call_count = first.call_count
    run.threads = threads


def add_messages(run: Draft, thread: str, templates: Iterable[CompiledMessage], scope: Scope) -> None:
    """Render messages, and add them to a thread.

    Raises:
        StateFailure: the messages leave calls unanswered, or answer a call that is not open.
        TemplateError: a message cannot be rendered.
    """
    before = run.threads[thread]
    waiting = last_calls(before).open
    new = render(templates, scope, RenderedMessages(call_count=run.call_count, waiting=waiting))
    check_messages(new.messages, waiting)
    run.threads = {**run.threads, thread: before.extended(new.messages)}
    run.call_count = new.call_count


def check_messages(messages: Iterable[Message], waiting: Iterable[ToolCall]) -> None:
    """Check that messages answer the open calls, and no others, before messages of other roles.

    Args:
        waiting: the calls without an answer.

    Raises:
        StateFailure: they do not.
    """
    open_ids = [call.id for call in waiting]
    for message in messages:
        if message.role == "tool":
            if message.tool_call_id not in open_ids:
                raise StateFailure("model.invalid_conversation", _stray(message, open_ids))
            open_ids.remove(message.tool_call_id)
        elif open_ids:
            raise unanswered(open_ids, f"before a message of role {message.role}")
        open_ids += (call.id for call in message.tool_calls)


def unanswered(ids: Iterable[str], when: str) -> StateFailure:
    """Return the failure of a thread whose calls must be answered before something else happens."""
    return StateFailure(
        "model.invalid_conversation",
        f"the calls {', '.join(ids)} must be answered {when}: lead to a tools state of the "
        "thread, or answer each by a message of role tool",
    )


def _stray(message: Message, waiting: list[str]) -> str:
    if not waiting:
        return "a message of role tool answers no call: the thread does not end in a call that waits for an answer"
    return (
        f"a message of role tool answers {message.tool_call_id!r}, but what waits for an answer is {', '.join(waiting)}"
    )
