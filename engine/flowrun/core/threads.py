"""Adds messages to the threads of a run, and checks the structure of the conversation."""

from collections.abc import Iterable, Mapping

from flowrun.core.chat_messages import MessagesError
from flowrun.core.conversations import faults_of_conversation
from flowrun.core.events import SaidMessages
from flowrun.core.failures import StateFailure
from flowrun.core.messages import Log, Message, last_calls
from flowrun.core.rendering import CompiledEntry, CompiledSay, Prologue, RenderedMessages, render
from flowrun.core.run import Draft, without
from flowrun.templates import Scope


def start_threads(run: Draft, prologues: Mapping[str, Prologue], scope: Scope) -> None:
    """Start the threads of a run with their first messages.

    Raises:
        StateFailure: ``input.invalid``: a value is no list of messages, or they are no conversation.
        TemplateError: a message cannot be rendered.
    """
    threads = {}
    for thread, prologue in prologues.items():
        first = _render_first(prologue, scope) if prologue.others else prologue.ready
        threads[thread] = Log(first.messages)
        run.call_count = max(run.call_count, first.call_count)
    run.threads = threads


def _render_first(prologue: Prologue, scope: Scope) -> RenderedMessages:
    try:
        first = render(prologue.others, scope, prologue.ready)
    except MessagesError as exc:
        raise StateFailure("input.invalid", f"the first messages: {exc}") from exc
    if prologue.checked:
        _check(first.messages, "input.invalid")
    return first


def add_messages(
    run: Draft, thread: str, entries: Iterable[CompiledEntry], scope: Scope, *, replace: bool = False
) -> tuple[Message, ...]:
    """Render messages, and add them to a thread, or begin the thread anew with them; return them.

    Raises:
        StateFailure: the messages leave calls unanswered, answer a call that is not open, or are none.
        TemplateError: a message cannot be rendered.
    """
    before: Log[Message] = Log() if replace else run.threads[thread]
    waiting = last_calls(before).open
    try:
        new = render(entries, scope, RenderedMessages(call_count=run.call_count, waiting=waiting))
    except MessagesError as exc:
        raise StateFailure("model.invalid_conversation", str(exc)) from exc
    check_conversation(new.messages, waiting=[call.id for call in waiting])
    if replace:
        _forget(run, thread)
    run.threads = {**run.threads, thread: before.extended(new.messages)}
    run.call_count = new.call_count
    return new.messages


def say_messages(run: Draft, entries: Iterable[CompiledSay], scope: Scope) -> tuple[SaidMessages, ...]:
    """Put messages onto their threads, one entry after another, and return them. Raises as ``add_messages`` does."""
    said = []
    for one in entries:
        messages = add_messages(run, one.thread, one.messages, scope, replace=one.replace)
        said.append(SaidMessages(thread=one.thread, messages=messages, replace=one.replace))
    return tuple(said)


def _forget(run: Draft, thread: str) -> None:
    """Forget what a run knows of the messages of a thread, but those that the model has read."""
    if thread in run.asked:
        run.replaced = {thread: run.threads[thread], **run.replaced}
    run.asked = without(run.asked, thread)
    run.made = without(run.made, thread)
    run.unread -= {thread}


def check_conversation(messages: Iterable[Message], *, waiting: Iterable[str] = (), ended: bool = False) -> None:
    """Check the structure of messages; the arguments are those of ``faults_of_conversation``.

    Raises:
        StateFailure: they have a fault.
    """
    _check(messages, "model.invalid_conversation", waiting=waiting, ended=ended)


def _check(messages: Iterable[Message], failure: str, *, waiting: Iterable[str] = (), ended: bool = False) -> None:
    for fault in faults_of_conversation(messages, waiting=waiting, ended=ended):
        raise StateFailure(failure, f"{fault.message}: {fault.remedy}")
