"""The tools state: checks each call of the last reply, makes the valid calls, and adds the results to the thread.

The result of an invalid call is its failure. A call that succeeded is never made twice for the same message, neither by
a retry nor by a later tools state.
"""

import json
from typing import Final

from flowrun.core.events import CallFunction, Effect, Event, Failed, Returned
from flowrun.core.messages import LastCalls, Message, ToolCall, last_calls
from flowrun.core.run import ANSWERED, PENDING, CallSlot, Draft, Made, Mark, Run
from flowrun.core.shapes import shape_of
from flowrun.core.slots import Slots
from flowrun.core.state_node import Graph, StateNode, Turn
from flowrun.core.states.chat import ChatNode
from flowrun.core.states.compiler import Compiler
from flowrun.core.states.kind import Look, StateKind
from flowrun.core.strict_json import parse_json
from flowrun.core.views import LazyResults, ResultView, Value
from flowrun.errors import Failure
from flowrun.spec.model import JSON, ToolsState

_encode = json.JSONEncoder(ensure_ascii=False).encode

_ANSWERS: Final = (Returned, Failed)

_PLAIN: Final = frozenset({int, float})
"""Numbers are written as Python shows them, and a JSON value's numbers are finite: no encoder is needed."""


class ToolsNode(StateNode, frozen=True, kw_only=True):
    """A tools state. With ``raises``, a failed call fails the state."""

    thread: str
    raises: bool

    def enter(self, turn: Turn) -> None:
        """Check every call, then request the valid ones."""
        run = turn.run
        last = last_calls(run.threads[self.thread])
        slots: list[CallSlot] = [PENDING] * len(last.calls)
        if last.answered or run.made:
            slots = _slots_before(run.made.get(self.thread), last)
        offered = _offered(turn.graph, run, self.thread)
        effects: list[Effect] = []
        for index, call in enumerate(last.calls):
            if slots[index] is PENDING:
                prepared = _prepare_call(turn, offered, index, call)
                if isinstance(prepared, CallFunction):
                    effects.append(prepared)
                else:
                    slots[index] = prepared
        run.calls, run.awaiting, run.left = Slots(slots), "calls", len(effects)
        if run.unread:
            run.unread -= {self.thread}
        if effects:
            turn.effects = tuple(effects)
        else:
            self._leave(turn)

    def accepts(self, run: Run, event: Event) -> bool:
        """Return whether an event is the value or failure of a call that has no result yet."""
        return isinstance(event, _ANSWERS) and run.calls is not None and run.calls.get(event.index) is PENDING

    def handle(self, turn: Turn, event: Event) -> None:
        """Store a call's value or failure; leave the state after the last one."""
        run = turn.run
        assert run.calls is not None
        if isinstance(event, Returned):
            run.calls = run.calls.changed(event.index, Value(event.value))
        else:
            assert isinstance(event, Failed)
            run.calls = run.calls.changed(event.index, event.failure)
        run.left -= 1
        if not run.left:
            self._leave(turn)

    def failed(self, turn: Turn) -> None:
        """Store the values of the calls that returned, so that no state makes these calls again."""
        run = turn.run
        if run.calls is not None and any(isinstance(answer, Value) for answer in run.calls):
            values = tuple(answer if isinstance(answer, Value) else PENDING for answer in run.calls)
            run.made = {**run.made, self.thread: Made(last_calls(run.threads[self.thread]).at, values)}

    def _leave(self, turn: Turn) -> None:
        """Append the results to the thread in the order of the calls, not of their completion, and leave."""
        run = turn.run
        assert run.calls is not None
        thread = run.threads[self.thread]
        pairs: list[tuple[ToolCall, Value | Failure]] = []
        messages: list[Message] = []
        for call, answer in zip(last_calls(thread).calls, run.calls, strict=True):
            if isinstance(answer, Value):
                text = _value_text(answer.value)
            elif isinstance(answer, Mark):
                continue
            elif self.raises:
                turn.fail(answer)
                return
            else:
                text = f"error: {answer.name}: {answer.message}"
            pairs.append((call, answer))
            messages.append(Message(role="tool", content=text, tool_call_id=call.id, name=call.name))
        run = turn.save(self)
        run.threads = {**run.threads, self.thread: thread.extended(messages)}
        run.results = LazyResults(pairs)
        if self.thread in run.made:
            run.made = {name: made for name, made in run.made.items() if name != self.thread}
        turn.leave(self, run.results)


def _slots_before(made: Made | None, last: LastCalls) -> list[CallSlot]:
    """Return the slots of a thread's last calls, with the values that an earlier visit stored."""
    slots: list[CallSlot] = [PENDING] * len(last.calls)
    if made is not None and made.at == last.at:
        slots = list(made.values)
    for index in last.answered:
        slots[index] = ANSWERED
    return slots


def _prepare_call(turn: Turn, offered: tuple[str, ...], index: int, call: ToolCall) -> CallFunction | Failure:
    """Return the effect that makes a call, or the failure that the model receives as the result of an invalid call."""
    run, tool = turn.run, turn.graph.tools.get(call.name)
    if tool is None or call.name not in offered:
        known = ", ".join(offered) or "none"
        return Failure(name="tool.unknown", message=f"there is no tool {call.name[:80]!r}; there are: {known}")
    try:
        arguments = {} if not call.arguments or call.arguments.isspace() else parse_json(call.arguments)
    except ValueError as exc:
        return Failure(name="tool.invalid_arguments", message=f"the arguments are no JSON: {exc}")
    if not isinstance(arguments, dict):
        return Failure(name="tool.invalid_arguments", message="the arguments must be a JSON object")
    if (wrong := tool.validate(arguments)) is not None:
        return Failure(name="tool.invalid_arguments", message=wrong)
    return CallFunction(
        step=run.step,
        index=index,
        state=run.state,
        run=run.id,
        entrypoint=tool.entrypoint,
        arguments=arguments,
        timeout=tool.timeout,
        tool=call.name,
        call_id=call.id,
        idempotent=tool.idempotent,
        attempt=run.attempt,
        isolation=tool.isolation,
    )


def _offered(graph: Graph, run: Draft, thread: str) -> tuple[str, ...]:
    """Return the names of the tools that the thread's last chat state offered; all tools if there is no such state."""
    node = graph.nodes[run.asked[thread]] if thread in run.asked else None
    return node.offered if isinstance(node, ChatNode) else tuple(graph.tools)


def _value_text(value: JSON) -> str:
    if isinstance(value, str):
        return value
    return repr(value) if type(value) in _PLAIN else _encode(value)


def compile_tools(name: str, state: ToolsState, compiler: Compiler) -> ToolsNode:
    """Compile a tools state."""
    return ToolsNode(thread=state.thread, raises=state.on_error == "raise", **compiler.common(name, state))


KIND: Final = StateKind(
    struct=ToolsState,
    compile=compile_tools,
    output="the results of the calls, as in `results`",
    shape=lambda state, flows: shape_of(list[ResultView]),
    looks={"tools": Look(outline="cut", light=("#fff3dc", "#c98a12"), dark=("#33270e", "#e3b341"))},
)
