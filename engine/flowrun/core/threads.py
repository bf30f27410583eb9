"""Adds messages to the threads of a run, and checks the structure of the conversation."""

from collections.abc import Iterable, Mapping

from flowrun.core.conversations import faults_of_conversation
from flowrun.core.messages import Log, Message, last_calls
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
    check_conversation(new.messages, waiting=[call.id for call in waiting])
    run.threads = {**run.threads, thread: before.extended(new.messages)}
    run.call_count = new.call_count


def check_conversation(messages: Iterable[Message], *, waiting: Iterable[str] = (), ended: bool = False) -> None:
    """Check the structure of messages; the arguments are those of ``faults_of_conversation``.

    Raises:
        StateFailure: they have a fault.
    """
    for fault in faults_of_conversation(messages, waiting=waiting, ended=ended):
        raise StateFailure("model.invalid_conversation", f"{fault.message}: {fault.remedy}")
