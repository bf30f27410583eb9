"""FR307, FR308, FR310, FR311: the calls that models can make fit the tools that are offered and the states after."""

from collections.abc import Iterator, Mapping, Sequence

from flowrun.checks.shapes import chats_behind
from flowrun.checks.subject import Severity, Subject
from flowrun.core.graph import Edge
from flowrun.core.json_schema import compile_schema
from flowrun.core.written import messages_written, written_by
from flowrun.errors import Issue, Path, dotted
from flowrun.spec.hidden_arguments import without_arguments
from flowrun.spec.model import (
    JSON,
    AgentState,
    CallTemplate,
    ChatState,
    MessageEntry,
    MessageTemplate,
    Spec,
    ToolsState,
    WaitState,
)
from flowrun.spec.phrases import listed
from flowrun.spec.suggestions import suggest
from flowrun.templates import has_template


def check_offers(subject: Subject) -> Iterator[Issue]:
    """Find calls that nobody can make, tools that nobody can call, and messages that are added at each turn."""
    yield from _examples(subject)
    yield from _offers(subject)
    yield from _endless(subject)
    if not subject.unsure:
        yield from _tools_states(subject)
        yield from _repeated_messages(subject)
        yield from _calls_asked_about(subject)


def offered_tools(spec: Spec, state: ChatState) -> Sequence[str]:
    """Return the tools that a chat state lets its model call."""
    if state.tool_choice == "none":
        return ()
    return state.tools_among(spec.tools)


def _chats(spec: Spec) -> Iterator[tuple[str, ChatState]]:
    yield from ((name, state) for name, state in spec.states.items() if isinstance(state, ChatState))


# --- messages -----------------------------------------------------------------------------------------------------


def _examples(subject: Subject) -> Iterator[Issue]:
    """Check the calls that messages of the spec show to models."""
    for written in messages_written(subject.spec):
        for path, message in written.messages:
            if message is not None and subject.has(path):
                for number, call in enumerate(message.tool_calls):
                    yield from _example(subject, (*path, "tool_calls", number), call)


def _example(subject: Subject, path: Path, call: CallTemplate) -> Iterator[Issue]:
    """Check a call that the model is shown as an example."""
    tool = subject.spec.tools.get(call.name)
    if tool is None:
        remedy = suggest(call.name, subject.spec.tools, "tools")
        message = f"the example calls {call.name!r}, which is no tool of the flow"
        yield subject.issue("FR309", (*path, "name"), message, remedy, severity="warning")
        return
    parameters = subject.parameters_of(tool)
    if parameters is None or not is_constant(dict(call.arguments)):
        return
    try:
        wrong = compile_schema(without_arguments(parameters, tool.arguments))(dict(call.arguments))
    except ValueError:
        return  # the schema itself is wrong; check_schemas reports it
    if wrong is not None:
        message = f"the example's arguments do not match the parameters of {call.name!r}: {wrong}"
        at = (*path, "arguments") if subject.has((*path, "arguments")) else path
        yield subject.issue("FR309", at, message, "show the model a call that it may make", severity="warning")


def is_constant(value: JSON) -> bool:
    """Return whether no text in a value is a template."""
    if isinstance(value, str):
        return not has_template(value)
    if isinstance(value, Mapping):
        return all(map(is_constant, value.values()))
    return all(map(is_constant, value)) if isinstance(value, list) else True


# --- tools --------------------------------------------------------------------------------------------------------


def _offers(subject: Subject) -> Iterator[Issue]:
    spec = subject.spec
    required = False
    for name, chat in _chats(spec):
        if chat.tool_choice == "required" and not chat.tools_among(spec.tools):
            required = True
            remedy = "declare tools, and offer them here, or leave tool_choice out"
            message = f"state {name!r} requires a call, and offers no tools"
            yield subject.issue("FR310", ("states", name, "tool_choice"), message, remedy)
    offered = _offered_in(spec)
    if required or offered - spec.tools.keys():
        return  # that, or a misspelt name, is reported where it is
    for tool in spec.tools:
        if subject.has(("tools", tool)) and tool not in offered:
            remedy = "name it in a chat state's tools, or delete it"
            message = f"no chat state offers the tool {tool!r}"
            yield subject.issue("FR311", ("tools", tool), message, remedy, key=True, severity="warning")


def _endless(subject: Subject) -> Iterator[Issue]:
    """Find agents whose replies always call tools, of which none ends the state."""
    for name, state in subject.spec.states.items():
        if not isinstance(state, AgentState) or not state.always_calls:
            continue
        callable_tools = offered_tools(subject.spec, state) if state.tool_choice == "required" else (state.tool_choice,)
        if callable_tools and not set(callable_tools) & set(state.stop_at_tools):
            message = f"state {name!r} ends by a limit of rounds only: each reply must call a tool, and none stops it"
            remedy = "name a tool in stop_at_tools, or leave tool_choice out"
            path = ("states", name, "tool_choice")
            yield subject.issue("FR314", path, message, remedy, severity="warning")


def _offered_in(spec: Spec) -> set[str]:
    """Return the tools that chat states of a flow offer, or those of its local flows that have its tools."""
    offered = {tool for _, chat in _chats(spec) for tool in offered_tools(spec, chat)}
    for flow in spec.flows.values():
        if not flow.tools:
            offered |= {tool for _, chat in _chats(flow) for tool in offered_tools(spec, chat)}
            offered |= set(spec.tools) if flow.flows else set()
    return offered


def _tools_states(subject: Subject) -> Iterator[Issue]:
    """Find tools states that no call can ever reach."""
    spec, graph = subject.spec, subject.state_graph
    leaving: dict[str, list[Edge]] = {chat.thread: [] for _, chat in _chats(spec)}
    for at, chat in _chats(spec):
        leaving[chat.thread] += (edge for edge in graph.outgoing[at] if _leaves_calls(spec, chat, edge))
    callers = {thread: _reachable(graph.outgoing, first) for thread, first in leaving.items()}
    written = {one.thread for one in messages_written(spec) if one.has_calls and (one.said or not one.state)}
    for name, state in spec.states.items():
        if not isinstance(state, ToolsState) or name not in graph.facts or state.thread not in {"main", *spec.threads}:
            continue
        if state.thread in written or name in callers.get(state.thread, ()) or not subject.has(("states", name)):
            continue  # without a place, it is one of a flow's default states
        others = sorted(thread for thread, after in callers.items() if name in after)
        remedy = f"did you mean thread: {listed(others, 'or')}?" if others else "offer tools in a chat state before it"
        message = f"no model can call a tool on the thread {state.thread!r} before state {name!r}"
        severity: Severity = "error" if others else "warning"  # without any call it only does nothing
        yield subject.issue("FR307", ("states", name), message, remedy, key=True, severity=severity)


def _leaves_calls(spec: Spec, chat: ChatState, edge: Edge) -> bool:
    """Return whether a chat state leaves calls on its thread: those of its model, or of its own messages.

    An agent that fails may leave those that it was about to make.
    """
    leaves = bool(offered_tools(spec, chat)) and (edge.kind == "catch" or not chat.makes_calls)
    return leaves or any(one.has_calls for one in written_by("", chat) if not one.said)


def _reachable(outgoing: Mapping[str, list[Edge]], first: list[Edge]) -> set[str]:
    """Return the states on the paths that begin with some edges."""
    found: set[str] = set()
    waiting = list(first)
    while waiting:
        target = waiting.pop().target
        if target not in found:
            found.add(target)
            waiting += outgoing[target]
    return found


def _calls_asked_about(subject: Subject) -> Iterator[Issue]:
    """Find conditions that ask whether a reply calls a tool which its chat state does not offer."""
    spec = subject.spec
    for text in subject.texts:
        for keys, tool in sorted(text.reads_if_valid().calls, key=str):
            chats = chats_behind(subject, text, keys)
            if tool in spec.tools and chats and not any(tool in offered_tools(spec, chat) for chat in chats.values()):
                states = listed([*chats], "or")
                message = f"{dotted(keys)} never calls {tool!r}: state {states} does not offer it"
                yield subject.issue("FR409", text.path, message, "offer it there, or delete this", severity="warning")


def _repeated_messages(subject: Subject) -> Iterator[Issue]:
    """Find chat states whose messages are added again each time that their tools have run."""
    for name, chat in _chats(subject.spec):
        if chat.history == "none" or all(map(_only_answers, chat.messages)) or name not in subject.state_graph.facts:
            continue
        if _returns_by_tools(subject, name, chat):
            message = f"state {name!r} is entered again after its tools, and its messages are added each time"
            remedy = "put them into a state before the loop, or into the thread's first messages"
            at = ("states", name, "messages")
            yield subject.issue("FR308", at, message, remedy, key=True, severity="warning")


def _only_answers(entry: MessageEntry) -> bool:
    return isinstance(entry, MessageTemplate) and entry.role == "tool"


def _returns_by_tools(subject: Subject, name: str, chat: ChatState) -> bool:
    """Return whether a path leads from a chat over a tools state of its thread back to it, past no other question."""
    spec, graph = subject.spec, subject.state_graph
    seen: set[tuple[str, bool]] = set()
    queue = [(name, False)]
    while queue:
        here, by_tools = queue.pop()
        for edge in graph.outgoing[here]:
            if edge.target == name:
                if by_tools:
                    return True
                continue
            state = spec.states[edge.target]
            if isinstance(state, (ChatState, WaitState)):
                continue
            step = (edge.target, by_tools or (isinstance(state, ToolsState) and state.thread == chat.thread))
            if step not in seen:
                seen.add(step)
                queue.append(step)
    return False
