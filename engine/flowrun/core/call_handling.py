"""Which chat states handle the tool calls of their replies: the rule of the language, decided when a spec is compiled.

A chat state handles calls if a template reads them before the next chat, or if no way from it avoids what answers them:
a tools state of its thread, or a message of role tool. A call in any other chat's reply is a failure, never dropped.
"""

from collections.abc import Callable, Iterator

import msgspec

from flowrun.core.texts import Text, texts_of
from flowrun.spec.model import ChatState, EndState, Spec, State, ToolsState
from flowrun.templates.reads import Keys


class CallHandling(msgspec.Struct, frozen=True, kw_only=True):
    """What a spec does with the tool calls of replies.

    ``chats`` are the chat states that handle them. The others say which templates look at them: those of states that
    are entered, those of their ``set``, and their routes' conditions.
    """

    chats: frozenset[str] = frozenset()
    entered: frozenset[str] = frozenset()
    set: frozenset[str] = frozenset()
    routes: frozenset[tuple[str, int]] = frozenset()

    @property
    def leaving(self) -> frozenset[str]:
        """Give the states that look at calls when they are left."""
        return self.set | {state for state, _ in self.routes}


def find_call_handling(spec: Spec) -> CallHandling:
    """Find out what a spec does with the tool calls of replies."""
    chats = {name: state for name, state in spec.states.items() if isinstance(state, ChatState)}
    if not chats:
        return CallHandling()
    texts = [text for text in texts_of(spec) if text.state and _reads_calls(text)]
    reads = CallHandling(
        entered=frozenset(text.state for text in texts if text.moment == "entered"),
        set=frozenset(text.state for text in texts if text.moment == "set"),
        routes=frozenset((text.state, int(text.path[3])) for text in texts if text.moment == "left"),
    )
    handling = frozenset(
        name
        for name, chat in chats.items()
        if name in reads.leaving or _is_read(spec, name, reads) or _is_answered(spec, name, chat.thread)
    )
    return msgspec.structs.replace(reads, chats=handling)


def _reads_calls(text: Text) -> bool:
    """Tell whether a template or expression looks at the tool calls of a reply, or at all of a reply."""
    return any(map(_leads_to_calls, text.reads_if_valid().paths))


def _leads_to_calls(path: Keys) -> bool:
    match path:
        case ("reply",) | ("outputs",) | ("outputs", _):
            return True
        case ("reply", member, *_) | ("outputs", _, member, *_):
            return member == "tool_calls"
        case _:
            return False


def _is_read(spec: Spec, chat: str, reads: CallHandling) -> bool:
    """Tell whether some state after a chat, up to the next chat's own messages, looks at its calls."""
    return any(
        name in reads.entered or (name in reads.leaving and not isinstance(spec.states[name], ChatState))
        for name in _after(spec, chat, lambda state: isinstance(state, ChatState))
    )


def _is_answered(spec: Spec, chat: str, thread: str) -> bool:
    """Tell whether no way from a chat avoids what answers the calls of its thread."""
    last = [
        state
        for name in _after(spec, chat, lambda state: _touches(state, thread))
        if _touches(state := spec.states[name], thread)
    ]
    return bool(last) and all(_answers(state) for state in last)


def _after(spec: Spec, start: str, is_last: Callable[[State], bool]) -> Iterator[str]:
    """Give the states that the routes of one lead to, on and on, up to the first on each way that is a last one."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        state = spec.states[waiting.pop()]
        for route in () if isinstance(state, EndState) else state.routes:
            if route.to in spec.states and route.to not in seen:
                seen.add(route.to)
                yield route.to
                if not is_last(spec.states[route.to]):
                    waiting.append(route.to)


def _touches(state: State, thread: str) -> bool:
    """Tell whether a state ends the run, or says something on a thread."""
    return isinstance(state, EndState) or (isinstance(state, ChatState | ToolsState) and state.thread == thread)


def _answers(state: State) -> bool:
    """Tell whether a state that says something on a thread answers the calls that the thread ends in."""
    return isinstance(state, ToolsState) or (
        isinstance(state, ChatState) and any(m.role == "tool" for m in state.messages)
    )
