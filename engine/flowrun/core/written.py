"""The messages that a spec writes, with their places: first messages, those of chat states, and what states say. Pure.

What is known of them before a run: a list may be empty or long, and a value may hold any messages.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from flowrun.errors import Path
from flowrun.spec.model import (
    ChatState,
    MessageEntry,
    MessageTemplate,
    RepeatedMessages,
    Said,
    Spec,
    State,
    WorkingState,
)

KnownMessage = tuple[Path, MessageTemplate | None]
"""A message with its path. None stands for any number of unknown messages."""


class Written(NamedTuple):
    """Messages that follow each other on a thread.

    Attributes:
        state: the state that adds them; empty for first messages.
        said: whether the state adds them when it is left, rather than when it is entered.
        begins: whether the thread begins with them.
        failed: whether the state adds them when it fails.
    """

    thread: str
    messages: tuple[KnownMessage, ...]
    state: str = ""
    said: bool = False
    begins: bool = False
    failed: bool = False

    @property
    def has_calls(self) -> bool:
        """Return whether there may be tool calls in them."""
        return any(message is None or message.tool_calls for _, message in self.messages)


def messages_written(spec: Spec) -> Iterator[Written]:
    """Yield the messages of a spec, in the order of the spec."""
    for thread, entries in spec.threads.items():
        yield Written(thread, _known(("threads", thread), entries), begins=True)
    for name, state in spec.states.items():
        yield from written_by(name, state)
        if not isinstance(state, WorkingState):
            continue
        for index, catch in enumerate(state.catch):
            for said in _said(("states", name, "catch", index, "say"), name, state, catch.say):
                yield said._replace(failed=True)


def written_by(name: str, state: State) -> Iterator[Written]:
    """Yield the messages that a state adds to threads unless it fails, in the order in which it does."""
    if isinstance(state, ChatState) and state.messages:
        yield Written(state.thread, _known(("states", name, "messages"), state.messages), name)
    if isinstance(state, WorkingState):
        yield from _said(("states", name, "say"), name, state, state.say)


def _said(at: Path, name: str, state: WorkingState, entries: Iterable[MessageEntry | Said]) -> Iterator[Written]:
    for index, entry in enumerate(entries):
        path = (*at, index)
        if isinstance(entry, Said):
            thread, messages = entry.thread or state.own_thread, _known((*path, "messages"), entry.messages)
            yield Written(thread, messages, name, said=True, begins=entry.replace)
        else:
            yield Written(state.own_thread, tuple(_entry(path, entry)), name, said=True)


def _known(path: Path, entries: Iterable[MessageEntry]) -> tuple[KnownMessage, ...]:
    return tuple(known for index, entry in enumerate(entries) for known in _entry((*path, index), entry))


def _entry(path: Path, entry: MessageEntry) -> Iterator[KnownMessage]:
    """Yield what is known of an entry; for a list, the messages of one item, and that there may be others."""
    if isinstance(entry, MessageTemplate):
        yield path, entry
        return
    if isinstance(entry, RepeatedMessages):
        yield from _known((*path, "messages"), entry.messages)
    yield path, None
