"""Finds the chat states that handle the tool calls of their replies, when a spec is compiled.

A chat state handles calls if a template reads them before the next chat, or if every path from it leads to a state that
answers them: a tools state of its thread, or a chat state with a message of role tool. A call in the reply of any other
chat state is a failure, and is never dropped.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from flowrun.core.texts import Text, texts_of
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
        set: the same for a state's ``set``.
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
                case "set":
                    assigned[text.state] = assigned.get(text.state, NOTHING) | threads
                case _:
                    entered[text.state] = entered.get(text.state, NOTHING) | threads
    reads = CallHandling(entered=entered, set=assigned, routes=routes)
    leaving = reads.leaving
    handled = frozenset(
        name
        for name, chat in chats.items()
        if name in leaving or _is_read(spec, name, reads) or _is_answered(spec, name, chat.thread)
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
    return frozenset(threads)


def _is_read(spec: Spec, chat: str, reads: CallHandling) -> bool:
    """Return whether a state after a chat, up to the messages of the next chat, reads its calls."""
    return any(
        name in reads.entered or (name in reads.leaving and not isinstance(spec.states[name], ChatState))
        for name in _after(spec, chat, lambda state: isinstance(state, ChatState))
    )


def _is_answered(spec: Spec, chat: str, thread: str) -> bool:
    """Return whether every path from a chat leads to a state that answers the calls of its thread."""
    first_touching = [
        state
        for name in _after(spec, chat, lambda state: _touches(state, thread))
        if _touches(state := spec.states[name], thread)
    ]
    return bool(first_touching) and all(state.answers_calls for state in first_touching)


def _after(spec: Spec, start: str, is_last: Callable[[State], bool]) -> Iterator[str]:
    """Yield the states that routes lead to from a state, on each path up to the first one that ``is_last``."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        state = spec.states[waiting.pop()]
        for route in state.routes if isinstance(state, WorkingState) else ():
            if route.to in spec.states and route.to not in seen:
                seen.add(route.to)
                yield route.to
                if not is_last(spec.states[route.to]):
                    waiting.append(route.to)


def _touches(state: State, thread: str) -> bool:
    """Return whether a state ends the run, or adds messages to a thread."""
    return isinstance(state, EndState) or any(part.value == thread for part in parts_of(state, Holds.THREAD))
