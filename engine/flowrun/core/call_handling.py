"""Finds the chat states that handle the tool calls of their replies, when a spec is compiled.

A chat state handles calls if a template reads them before the next chat, or if every path from it leads to a state that
answers them: a tools state of its thread, or a chat state with a message of role tool. A call in the reply of any other
chat state is a failure, and is never dropped.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from flowrun.core.texts import Text, texts_of
from flowrun.core.written import written_by
from flowrun.spec.model import ChatState, EndState, Holds, Spec, State, WorkingState
from flowrun.spec.parts import parts_of

NOTHING: Final[frozenset[str]] = frozenset()

LAST_REPLY: Final = ""
"""The name for the thread of the last reply, which a template reads as ``reply``. No thread has this name."""


class CallHandling(msgspec.Struct, frozen=True, kw_only=True):
    """The states of a spec that read or handle the tool calls of replies.

    Attributes:
        chats: the chat states whose calls are handled.
        entered: by state, the threads whose last calls are read by the templates evaluated when the state is entered.
        set: the same for a state's ``set`` and ``say``.
        routes: the same for the condition of a state's route, by its index.
    """

    chats: frozenset[str] = frozenset()
    entered: Mapping[str, frozenset[str]] = {}
    set: Mapping[str, frozenset[str]] = {}
    routes: Mapping[tuple[str, int], frozenset[str]] = {}

    @property
    def leaving(self) -> frozenset[str]:
        """The states that read calls when a run leaves them."""
        return frozenset(self.set) | {state for state, _ in self.routes}


def find_call_handling(spec: Spec) -> CallHandling:
    """Find the states of a spec that read or handle the tool calls of replies."""
    chats = {name: state for name, state in spec.states.items() if isinstance(state, ChatState)}
    if not chats:
        return CallHandling()
    entered: dict[str, frozenset[str]] = {}
    assigned: dict[str, frozenset[str]] = {}
    routes: dict[tuple[str, int], frozenset[str]] = {}
    for text in texts_of(spec):
        if text.state and (threads := _threads_read(text, chats)):
            match text.moment:
                case "left":
                    routes[text.state, int(text.path[3])] = threads
                case "set" | "said":
                    assigned[text.state] = assigned.get(text.state, NOTHING) | threads
                case "failed":
                    pass  # only a failure reads them, after the reply
                case _:
                    entered[text.state] = entered.get(text.state, NOTHING) | threads
    reads = CallHandling(entered=entered, set=assigned, routes=routes)
    read = reads.leaving | _read_afterwards(spec, chats, reads)
    answered = {thread: _answered(spec, thread) for thread in {chat.thread for chat in chats.values()}}
    handled = frozenset(
        name
        for name, chat in chats.items()
        if chat.makes_calls or name in read or said_answers(chat, chat.thread, otherwise=name in answered[chat.thread])
    )
    return msgspec.structs.replace(reads, chats=handled)


def _threads_read(text: Text, chats: Mapping[str, ChatState]) -> frozenset[str]:
    """Return the threads whose last calls a template or expression reads, as calls or as part of a full reply."""
    threads: set[str] = set()
    for path in text.reads_if_valid().paths:
        match path:
            case ("reply",) | ("reply", "tool_calls", *_):
                threads.add(LAST_REPLY)
            case ("outputs",):
                threads.update(chat.thread for chat in chats.values())
            case ("outputs", str(name)) | ("outputs", str(name), "tool_calls", *_) if name in chats:
                threads.add(chats[name].thread)
            case ("threads",):
                threads.update(chat.thread for chat in chats.values())
            case ("threads", str(name), *_):
                threads.add(name)
    return frozenset(threads)


def _read_afterwards(spec: Spec, chats: Mapping[str, ChatState], reads: CallHandling) -> set[str]:
    """Return the states after which, up to the messages of the next chat, a state reads calls."""
    return _before(spec, reads.leaving.difference(chats).union(reads.entered), lambda name: name in chats)


def _answered(spec: Spec, thread: str) -> set[str]:
    """Return the states from which every path leads to a state that answers the calls of a thread."""
    touching = {name for name, state in spec.states.items() if ends_or_touches(state, thread)}
    answering = {name for name in touching if answers(spec.states[name], thread)}
    return _before(spec, answering, touching.__contains__) - _before(spec, touching - answering, touching.__contains__)


def _before(spec: Spec, targets: Iterable[str], is_last: Callable[[str], bool]) -> set[str]:
    """Return the states whose routes lead to one of the targets, on a path that ends at the first one that ``is_last``.

    The graph is walked against its routes, so that states share the walk of what comes after them.
    """
    sources: dict[str, list[str]] = {}
    for name, state in spec.states.items():
        for route in state.routes if isinstance(state, WorkingState) else ():
            sources.setdefault(route.to, []).append(name)
    found: set[str] = set()
    waiting = list(targets)
    while waiting:
        for name in sources.get(waiting.pop(), ()):
            if name not in found:
                found.add(name)
                if not is_last(name):
                    waiting.append(name)
    return found


def ends_or_touches(state: State, thread: str) -> bool:
    """Return whether a state ends the run, or adds messages to a thread."""
    return isinstance(state, EndState) or touches(state, thread)


def touches(state: State, thread: str) -> bool:
    """Return whether a state adds messages to a thread, when it is entered or when it is left."""
    return works_on(state, thread) or any(one.thread == thread for one in written_by("", state))


def works_on(state: State, thread: str) -> bool:
    """Return whether a thread is the one that a state itself reads and writes, before it says anything."""
    return any(part.value == thread and part.path[0] != "say" for part in parts_of(state, Holds.THREAD))


def answers(state: State, thread: str) -> bool:
    """Return whether the first messages that a state adds to a thread answer its open calls."""
    return state.answers_calls if works_on(state, thread) else said_answers(state, thread, otherwise=False)


def said_answers(state: State, thread: str, *, otherwise: bool) -> bool:
    """Return whether a state's ``say`` answers the open calls of a thread.

    Args:
        otherwise: the value if it says nothing on the thread.
    """
    said = (one.messages for one in written_by("", state) if one.said and one.thread == thread)
    return next((message is None or message.role == "tool" for messages in said for _, message in messages), otherwise)
