"""FR309, FR313: the messages that a spec writes make conversations that models can be asked about.

Only what is certain before a run is reported. Each round's conversation is checked once more when the model is asked.
"""

from collections.abc import Iterable, Iterator, Sequence

from flowrun.checks.dataflow import StateGraph
from flowrun.checks.offers import offered_tools
from flowrun.checks.subject import Subject
from flowrun.core.call_handling import answers, touches, works_on
from flowrun.core.conversations import ConversationFault, faults_of_conversation
from flowrun.core.messages import Message, ToolCall
from flowrun.core.requests import SETUP_ROLES
from flowrun.core.written import KnownMessage, Written, messages_written, written_by
from flowrun.errors import Issue, Path
from flowrun.spec.model import ChatState, Holds, MessageTemplate, Spec
from flowrun.spec.parts import parts_of
from flowrun.templates import has_template


def check_conversations(subject: Subject) -> Iterator[Issue]:
    """Find messages that leave calls unanswered, answer none, or set up a model too late."""
    spec, graph = subject.spec, subject.state_graph
    written = list(messages_written(spec))
    yield from _without_history(subject)
    first = {one.thread: one.messages for one in written if not one.state}
    used = (part.value for state in spec.states.values() for part in parts_of(state, Holds.THREAD))
    for thread, messages in {**dict.fromkeys(used, ()), **first}.items():
        yield from _first_faults(subject, thread, messages)
    for one in written:
        if one.said and not one.failed and not one.begins and not _leading_answers(one.messages):
            yield from _before_answers(subject, one)
        if one.state:
            answering = () if one.begins else _leading_answers(one.messages)
            for path, fault in _faults(one.messages[len(answering) :], ended=not one.said):
                yield subject.issue("FR309", path, fault.message, fault.remedy)
        if not one.state or one.state in graph.facts:
            yield from _late(subject, one, begun=_has_begun(graph, one))


def _without_history(subject: Subject) -> Iterator[Issue]:
    """Find states that read nothing of their thread, and have nothing of their own for the model to read."""
    for name, state in subject.spec.states.items():
        if not isinstance(state, ChatState) or state.history != "none":
            continue
        if not state.messages:
            remedy = "give the state messages, or leave history out"
            message = "with history: none the model reads only the state's own messages, and there are none"
            yield subject.issue("FR309", ("states", name, "history"), message, remedy)
        for one in written_by(name, state):
            if one.said or not _leading_answers(one.messages):
                continue
            path = one.messages[0][0]
            message = "with history: none the model does not read the call that this answers"
            yield subject.issue("FR309", path, message, "say it in a state before, or leave history out")


def _before_answers(subject: Subject, written: Written) -> Iterator[Issue]:
    """Yield an issue about messages that a chat state says while the calls of its own reply have no answer."""
    chat = subject.spec.states[written.state]
    if not isinstance(chat, ChatState) or chat.makes_calls or chat.thread != written.thread:
        return
    first = next((one for one in written_by(written.state, chat) if one.said and one.thread == chat.thread), written)
    path, message = first.messages[0] if first.messages else ((), None)
    if first == written and message is not None and offered_tools(subject.spec, chat):
        text = (
            f"state {written.state!r} offers tools, and fails if its reply has calls: this is said before their answers"
        )
        remedy = "say it in the state that follows when there are no calls"
        yield subject.issue("FR309", path, text, remedy, severity="warning")


def _faults(messages: Sequence[KnownMessage], *, ended: bool) -> Iterator[tuple[Path, ConversationFault]]:
    """Yield the faults that are certain, with the paths of their messages.

    Unknown messages may answer the calls before them, and may make calls that the messages behind them answer.
    """
    gaps = [at for at, (_, message) in enumerate(messages) if message is None]
    for start, stop in zip([0, *(gap + 1 for gap in gaps)], [*gaps, len(messages)], strict=True):
        if start:
            start += len(_leading_answers(messages[start:stop]))
        known = [(path, message) for path, message in messages[start:stop] if message is not None]
        for fault in faults_of_conversation(_plain(known), ended=ended and stop == len(messages)):
            yield known[fault.at][0], fault


def _plain(messages: Iterable[tuple[Path, MessageTemplate]]) -> list[Message]:
    """Return messages with the structure of templates. A call without an id gets one that says where it is written.

    An id that is not known before a run is taken for that of the oldest open call.
    """
    plain = []
    for path, template in messages:
        where = f"message {int(path[-1]) + 1}"
        calls = (
            ToolCall(id=call.id or f"{call.name} (call {index} of {where})", name=call.name, arguments="")
            for index, call in enumerate(template.tool_calls, 1)
        )
        answered = template.tool_call_id
        answered = None if answered is None or has_template(answered) else answered
        plain.append(Message(role=template.role, tool_calls=tuple(calls), tool_call_id=answered))
    return plain


def _leading_answers(messages: Sequence[KnownMessage]) -> Sequence[KnownMessage]:
    """Return the messages that answer calls made before them: the leading ones of role tool."""
    end = next((at for at, (_, one) in enumerate(messages) if one is None or one.role != "tool"), len(messages))
    return messages[:end]


def _answers(spec: Spec, name: str, thread: str) -> Sequence[KnownMessage]:
    """Return the first messages that a state puts onto a thread, as far as they answer calls made before."""
    state = spec.states[name]
    on_entering = works_on(state, thread)
    own = (one for one in written_by(name, state) if one.thread == thread and one.said != on_entering)
    return next((_leading_answers(one.messages) for one in own), ())


def _first_faults(subject: Subject, thread: str, messages: Sequence[KnownMessage]) -> Iterator[Issue]:
    """Yield the faults of a thread's first messages, and of the answers that always come first after them."""
    spec, graph = subject.spec, subject.state_graph
    first = sorted(_reached(graph, [spec.start] if spec.start in spec.states else [], thread))
    answered = _answers(spec, first[0], thread) if len(first) == 1 else ()
    asked = bool(first) and (bool(answered) or not any(answers(spec.states[name], thread) for name in first))
    for path, fault in _faults([*messages, *answered], ended=asked):
        yield subject.issue("FR309", path, fault.message, fault.remedy)


def _late(subject: Subject, written: Written, *, begun: bool) -> Iterator[Issue]:
    """Yield the system messages behind a message of another role.

    Args:
        begun: whether there are messages of other roles on the thread before these.
    """
    for path, message in written.messages:
        if message is None:
            continue
        if message.role not in SETUP_ROLES:
            begun = True
        elif begun:
            text = f"a {message.role} message stands behind others: many chat templates refuse it, or move it"
            remedy = "put it first on the thread, say it as a user, or write it as the 'system' of the chat state"
            yield subject.issue("FR313", (*path, "role"), text, remedy, severity="warning")


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
        if touches(graph.spec.states[name], thread):
            found.add(name)
        else:
            waiting += (edge.target for edge in graph.outgoing[name])
    return found


def _after(graph: StateGraph, name: str, thread: str) -> set[str]:
    """Return the next states with a thread after a state."""
    return _reached(graph, (edge.target for edge in graph.outgoing[name] if edge.kind == "route"), thread)


def _has_begun(graph: StateGraph, written: Written) -> bool:
    """Return whether a thread may hold messages of other roles when messages are put onto it."""
    spec, thread = graph.spec, written.thread
    if written.begins:
        return False
    if any(message.role not in SETUP_ROLES for message in _known_first(spec, thread)):
        return True
    if written.said and works_on(spec.states[written.state], thread):
        return True
    touching = (one for one in graph.facts if touches(spec.states[one], thread))
    return any(written.state in _after(graph, one, thread) for one in touching)


def _known_first(spec: Spec, thread: str) -> Iterator[MessageTemplate]:
    first = (one.messages for one in messages_written(spec) if not one.state and one.thread == thread)
    return (message for messages in first for _, message in messages if message is not None)
