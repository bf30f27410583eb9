"""The tools state: checks each call of the last reply, makes the valid calls, and adds the results to the thread.

The result of an invalid call is its failure, and that of a tool without a function its arguments. What one call adds to
the thread is bounded by ``max_output`` of its tool. A call that succeeded is never made twice for the same message,
neither by a retry nor by a later tools state.
"""

import json
from typing import Final

from flowrun.core.events import CallFunction, Event, Failed, Returned
from flowrun.core.messages import LastCalls, Message, ToolCall, last_calls
from flowrun.core.run import ANSWERED, PENDING, CallSlot, Draft, Made, Mark, Run, RunScope
from flowrun.core.shapes import shape_of
from flowrun.core.slots import Slots
from flowrun.core.state_node import Graph, HiddenArguments, StateFailure, StateNode, Turn
from flowrun.core.states.compiler import Compiler
from flowrun.core.states.kind import Look, StateKind
from flowrun.core.views import LazyResults, ResultView, Value
from flowrun.errors import Failure
from flowrun.excerpts import cut_bytes, shortened
from flowrun.spec.model import JSON, MAX_OUTPUT, ToolsState
from flowrun.spec.strict_json import parse_json

_encode = json.JSONEncoder(ensure_ascii=False).encode

_MAX_BYTES: Final = 4
"""Bytes of a character in UTF-8, at most."""

_ANSWERS: Final = (Returned, Failed)

_PLAIN: Final = frozenset({int, float})
"""Numbers are written as Python shows them, and a JSON value's numbers are finite: no encoder is needed."""


class ToolsNode(StateNode, frozen=True, kw_only=True):
    """A tools state. With ``raises``, a failed call fails the state.

    Attributes:
        uncut: the number of characters that fit into the ``max_output`` of every tool.
    """

    thread: str
    raises: bool
    uncut: int

    def enter(self, turn: Turn) -> None:
        """Check every call, then request the valid ones.

        Raises:
            StateFailure: the calls are more than the run may make.
        """
        run = turn.run
        last = last_calls(run.threads[self.thread])
        count = len(last.calls)
        slots: list[CallSlot] = [PENDING] * count
        if last.answered or run.made:
            slots = _slots_before(run.made.get(self.thread), last)
            count = slots.count(PENDING)
        if run.unread:
            run.unread -= {self.thread}
        if run.max_tool_calls is not None:
            _count_calls(run, run.max_tool_calls, count)
        offered = _offered(turn.graph, run, self.thread)
        effects: list[CallFunction] = []
        for index, call in enumerate(last.calls):
            if slots[index] is PENDING:
                prepared = _prepare_call(turn, offered, index, call)
                if isinstance(prepared, CallFunction):
                    effects.append(prepared)
                else:
                    slots[index] = prepared
        run.calls, run.awaiting, run.left = Slots(slots), "calls", len(effects)
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
                text = _value_text(answer.value) if answer.text is None else answer.text
            elif isinstance(answer, Mark):
                continue
            elif self.raises:
                turn.fail(answer)
                return
            else:
                text = f"error: {answer.name}: {answer.message}"
            if len(text) > self.uncut:
                tool = turn.graph.tools.get(call.name)
                text = cut_bytes(text, MAX_OUTPUT if tool is None else tool.max_output)
            pairs.append((call, answer))
            messages.append(Message(role="tool", content=text, tool_call_id=call.id, name=call.name))
        run = turn.save(self)
        run.threads = {**run.threads, self.thread: thread.extended(messages)}
        run.results = LazyResults(pairs)
        if self.thread in run.made:
            run.made = {name: made for name, made in run.made.items() if name != self.thread}
        turn.leave(self, run.results)


class OrderedToolsNode(ToolsNode, frozen=True, kw_only=True):
    """A tools state that runs ``max_concurrency`` calls at once; the others are held back, and start in their order.

    ``Run.started`` is the number of calls that are not held back. Once the state is to fail, none of them starts.
    """

    max_concurrency: int

    def enter(self, turn: Turn) -> None:
        """Check every call, and request the first valid ones. Raises as ``ToolsNode.enter`` does."""
        super().enter(turn)
        run = turn.run
        if run.calls is not None and run.left:
            run.started = len(run.calls)
            if run.left > self.max_concurrency:
                run.started = getattr(turn.effects[self.max_concurrency], "index", 0)
                turn.effects = turn.effects[: self.max_concurrency]

    def accepts(self, run: Run, event: Event) -> bool:
        """Return whether an event is the value or failure of a call that was started and has no result yet."""
        return super().accepts(run, event) and getattr(event, "index", 0) < run.started

    def handle(self, turn: Turn, event: Event) -> None:
        """Store a call's value or failure, and start the next call; leave the state after the last one."""
        super().handle(turn, event)
        run = turn.run
        if not run.left or run.calls is None:
            return
        if self.raises and isinstance(event, Failed):
            run.left = sum(run.calls[index] is PENDING for index in range(run.started))
            run.started = len(run.calls)
            if not run.left:
                self._leave(turn)
            return
        calls = last_calls(run.threads[self.thread]).calls
        while run.started < len(calls):
            index = run.started
            run.started += 1
            if run.calls[index] is PENDING:
                prepared = _prepare_call(turn, _offered(turn.graph, run, self.thread), index, calls[index])
                assert isinstance(prepared, CallFunction)
                turn.effects = (prepared,)
                return


def _slots_before(made: Made | None, last: LastCalls) -> list[CallSlot]:
    """Return the slots of a thread's last calls, with the values that an earlier visit stored."""
    slots: list[CallSlot] = [PENDING] * len(last.calls)
    if made is not None and made.at == last.at:
        slots = list(made.values)
    for index in last.answered:
        slots[index] = ANSWERED
    return slots


def _count_calls(run: Draft, most: int, count: int) -> None:
    """Count the calls of a reply that are about to be made.

    Raises:
        StateFailure: they are more than the run may make; none is counted.
    """
    left = max(most - run.tool_calls, 0)
    if count > left:
        message = f"the reply makes {count} calls, and limits.max_tool_calls leaves {left}"
        raise StateFailure("limit.tool_calls", message)
    run.tool_calls += count


def _prepare_call(turn: Turn, offered: tuple[str, ...], index: int, call: ToolCall) -> CallFunction | Value | Failure:
    """Return the effect that makes a call, or its result: a failure, or the value of a tool without a function.

    Raises:
        StateFailure, TemplateError: the arguments that the spec gives, or the result of a tool without a function,
            cannot be rendered, or do not match the tool's parameters.
    """
    run, tool = turn.run, turn.graph.tools.get(call.name)
    if tool is None or call.name not in offered:
        known = ", ".join(offered) or "none"
        return Failure(name="tool.unknown", message=f"there is no tool {call.name[:80]!r}; there are: {known}")
    try:
        arguments = {} if not call.arguments or call.arguments.isspace() else parse_json(call.arguments)
    except ValueError as exc:
        return Failure(name="tool.invalid_arguments", message=f"the arguments are no JSON: {shortened(str(exc), 400)}")
    if not isinstance(arguments, dict):
        return Failure(name="tool.invalid_arguments", message="the arguments must be a JSON object")
    if (wrong := tool.validate(arguments)) is not None:
        return Failure(name="tool.invalid_arguments", message=wrong)
    if tool.hidden is not None:
        if given := sorted(tool.hidden.names & arguments.keys()):
            were = "was" if len(given) == 1 else "were"
            message = f"Additional properties are not allowed ({', '.join(map(repr, given))} {were} unexpected)"
            return Failure(name="tool.invalid_arguments", message=message)
        arguments |= _hidden_arguments(run, call, tool.hidden, arguments)
    if tool.result is not None:
        view = {"id": call.id, "name": call.name, "arguments": arguments}
        return Value(arguments, tool.result(RunScope(run, {"call": view})))
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
        max_concurrency=tool.max_concurrency,
        isolation=tool.isolation,
    )


def _hidden_arguments(run: Draft, call: ToolCall, hidden: HiddenArguments, visible: dict[str, JSON]) -> JSON:
    """Return the arguments that the spec gives to a call.

    Raises:
        StateFailure, TemplateError: they cannot be rendered, or do not match the tool's parameters.
    """
    arguments = hidden.render(RunScope(run))
    if (wrong := hidden.validate({**visible, **arguments})) is not None:
        raise StateFailure(
            "template.failed", f"the arguments that the spec gives to {call.name!r} do not match: {wrong}"
        )
    return arguments


def _offered(graph: Graph, run: Draft, thread: str) -> tuple[str, ...]:
    """Return the names of the tools that were last offered on the thread; all tools if no model was asked."""
    asked = run.asked.get(thread)
    return tuple(graph.tools) if asked is None else asked.offered


def _value_text(value: JSON) -> str:
    if isinstance(value, str):
        return value
    return repr(value) if type(value) in _PLAIN else _encode(value)


def compile_tools(name: str, state: ToolsState, compiler: Compiler) -> ToolsNode:
    """Compile a tools state."""
    fields = compiler.common(name, state) | {
        "thread": state.thread,
        "raises": state.on_error == "raise",
        "uncut": min((tool.max_output for tool in compiler.spec.tools.values()), default=MAX_OUTPUT) // _MAX_BYTES,
    }
    if state.max_concurrency is None:
        return ToolsNode(**fields)
    return OrderedToolsNode(max_concurrency=state.max_concurrency, **fields)


KIND: Final = StateKind(
    struct=ToolsState,
    compile=compile_tools,
    output="the results of the calls, as in `results`",
    shape=lambda state, flows: shape_of(list[ResultView]),
    looks={"tools": Look(outline="cut", light=("#fff3dc", "#c98a12"), dark=("#33270e", "#e3b341"))},
)
