"""FR309, FR313: the messages that a spec writes make conversations that models can be asked about.

Only what is certain before a run is reported. Each round's conversation is checked once more when the model is asked.
"""

from collections.abc import Iterable, Iterator, Sequence

from flowrun.checks.dataflow import StateGraph
from flowrun.checks.subject import Subject
from flowrun.core.conversations import faults_of_conversation
from flowrun.core.messages import Message, ToolCall
from flowrun.errors import Issue, Path
from flowrun.spec.model import ChatState, Holds, MessageTemplate, State
from flowrun.spec.parts import parts_of
from flowrun.templates import has_template

_SYSTEM = ("system", "developer")


def check_conversations(subject: Subject) -> Iterator[Issue]:
    """Find messages that leave calls unanswered, answer none, or set up a model too late."""
    spec, graph = subject.spec, subject.state_graph
    used = (part.value for state in spec.states.values() for part in parts_of(state, Holds.THREAD))
    for thread, templates in {**dict.fromkeys(used, ()), **spec.threads}.items():
        yield from _first_faults(subject, thread, templates)
        yield from _late(subject, ("threads", thread), templates, begun=False)
    for name, state in spec.states.items():
        if isinstance(state, ChatState) and state.messages:
            path: Path = ("states", name, "messages")
            answers = len(_answers(state))
            for fault in faults_of_conversation(_plain(state.messages)[answers:], ended=True):
                yield subject.issue("FR309", (*path, answers + fault.at), fault.message, fault.remedy)
            if name in graph.facts:
                yield from _late(subject, path, state.messages, begun=_has_begun(graph, name, state))


def _plain(templates: Sequence[MessageTemplate]) -> list[Message]:
    """Return messages with the structure of templates. A call without an id gets one that says where it is written.

    An id that is not known before a run is taken for that of the oldest open call.
    """
    messages = []
    for number, template in enumerate(templates, 1):
        calls = (
            ToolCall(id=call.id or f"{call.name} (call {index} of message {number})", name=call.name, arguments="")
            for index, call in enumerate(template.tool_calls, 1)
        )
        answers = template.tool_call_id
        answers = None if answers is None or has_template(answers) else answers
        messages.append(Message(role=template.role, tool_calls=tuple(calls), tool_call_id=answers))
    return messages


def _answers(state: State) -> Sequence[MessageTemplate]:
    """Return the messages of a state that answer calls made before it: the leading ones of role tool."""
    messages = state.messages if isinstance(state, ChatState) else ()
    return messages[: next((at for at, one in enumerate(messages) if one.role != "tool"), len(messages))]


def _first_faults(subject: Subject, thread: str, templates: Sequence[MessageTemplate]) -> Iterator[Issue]:
    """Yield the faults of a thread's first messages, and of the answers that always come first after them."""
    spec, graph = subject.spec, subject.state_graph
    first = sorted(_reached(graph, [spec.start] if spec.start in spec.states else [], thread))
    answers = _answers(spec.states[first[0]]) if len(first) == 1 else ()
    asked = bool(first) and (bool(answers) or not any(spec.states[name].answers_calls for name in first))
    for fault in faults_of_conversation(_plain([*templates, *answers]), ended=asked):
        own = fault.at < len(templates)
        path = ("threads", thread, fault.at) if own else ("states", first[0], "messages", fault.at - len(templates))
        yield subject.issue("FR309", path, fault.message, fault.remedy)


def _late(subject: Subject, path: Path, templates: Sequence[MessageTemplate], *, begun: bool) -> Iterator[Issue]:
    """Yield the system messages behind a message of another role.

    Args:
        begun: whether there are messages of other roles on the thread before these.
    """
    for at, template in enumerate(templates):
        if template.role not in _SYSTEM:
            begun = True
        elif begun:
            message = f"a {template.role} message stands behind others: many chat templates refuse it, or move it"
            remedy = "put it first on the thread, or say it as a user"
            yield subject.issue("FR313", (*path, at, "role"), message, remedy, severity="warning")


def _touches(state: State, thread: str) -> bool:
    return any(part.value == thread for part in parts_of(state, Holds.THREAD))


def _reached(graph: StateGraph, sources: Iterable[str], thread: str) -> set[str]:
    """Return the first states with a thread on the routes from ``sources``, which may be such states themselves."""
    found: set[str] = set()
    seen: set[str] = set()
    waiting = list(sources)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if _touches(graph.spec.states[name], thread):
            found.add(name)
        else:
            waiting += (edge.target for edge in graph.outgoing[name])
    return found


def _after(graph: StateGraph, name: str, thread: str) -> set[str]:
    """Return the next states with a thread after a state."""
    return _reached(graph, (edge.target for edge in graph.outgoing[name] if edge.kind == "route"), thread)


def _has_begun(graph: StateGraph, name: str, state: ChatState) -> bool:
    """Return whether a thread may hold messages of other roles when a state is entered."""
    spec, thread = graph.spec, state.thread
    if any(message.role not in _SYSTEM for message in spec.threads.get(thread, ())):
        return True
    touching = (one for one in graph.facts if _touches(spec.states[one], thread))
    return any(name in _after(graph, one, thread) for one in touching)
