"""The tools state: checks each call of the last reply, makes the valid calls, and adds the results to the thread.

The result of an invalid call is its failure, and that of a tool without a function its arguments. What one call adds to
the thread is bounded by ``max_output`` of its tool. A call that succeeded is never made twice for the same message,
neither by a retry nor by a later tools state.
"""

import json
from typing import Final

from msgspec.structs import replace

from flowrun.core.events import CallFunction, Event, Failed, Returned
from flowrun.core.messages import LastCalls, Message, ToolCall, last_calls
from flowrun.core.run import ANSWERED, PENDING, CallSlot, Draft, Made, Mark, Run, without
from flowrun.core.slots import Slots
from flowrun.core.state_node import StateFailure, StateNode, Turn
from flowrun.core.tool_calls import offered_tools, prepare_call
from flowrun.core.views import LazyResults, Value
from flowrun.errors import Failure
from flowrun.excerpts import cut_bytes
from flowrun.spec.model import JSON, MAX_OUTPUT

_encode = json.JSONEncoder(ensure_ascii=False).encode

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
        calls, slots = self._open_calls(turn)
        run = turn.run
        offered = offered_tools(turn.graph, run, self.thread)
        effects: list[CallFunction] = []
        for index, call in enumerate(calls):
            if slots[index] is PENDING:
                prepared = prepare_call(turn, offered, index, call)
                if isinstance(prepared, CallFunction):
                    effects.append(prepared)
                else:
                    slots[index] = prepared
        run.calls, run.awaiting, run.left = Slots(slots), "calls", len(effects)
        if effects:
            turn.effects = tuple(effects)
        else:
            self._leave(turn)

    def _open_calls(self, turn: Turn) -> tuple[tuple[ToolCall, ...], list[CallSlot]]:
        """Return the last calls of the thread, and their slots, with what was made before; count the others.

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
        return last.calls, slots

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
        """Store the values of the calls that returned, and the approvals: no state makes, or asks, them again."""
        run = turn.run
        if run.calls is not None and (run.approved or any(isinstance(answer, Value) for answer in run.calls)):
            values = tuple(answer if isinstance(answer, Value) else PENDING for answer in run.calls)
            made = Made(last_calls(run.threads[self.thread]).at, values, run.approved)
            run.made = {**run.made, self.thread: made}

    def _leave(self, turn: Turn) -> None:
        """Append the results to the thread in the order of the calls, not of their completion, and leave."""
        run = turn.run
        assert run.calls is not None
        thread = run.threads[self.thread]
        pairs: list[tuple[ToolCall, Value | Failure]] = []
        messages: list[Message] = []
        for index, (call, answer) in enumerate(zip(last_calls(thread).calls, run.calls, strict=True)):
            if isinstance(answer, Value):
                text = _value_text(answer.value) if answer.text is None else answer.text
            elif isinstance(answer, Mark):
                continue
            elif self.raises:
                turn.fail(answer)
                return
            else:
                text = f"error: {answer.name}: {answer.message}"
            if index in run.approved and run.approved[index].edited:
                call = replace(call, arguments=_encode(run.approved[index].arguments))
                text = f"arguments used: {call.arguments}\n{text}"
            if len(text) > self.uncut:
                tool = turn.graph.tools.get(call.name)
                text = cut_bytes(text, MAX_OUTPUT if tool is None else tool.max_output)
            pairs.append((call, answer))
            messages.append(Message(role="tool", content=text, tool_call_id=call.id, name=call.name))
        run = turn.save(self)
        run.threads = {**run.threads, self.thread: thread.extended(messages)}
        run.results = LazyResults(pairs)
        if self.thread in run.made:
            run.made = without(run.made, self.thread)
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
                prepared = prepare_call(turn, offered_tools(turn.graph, run, self.thread), index, calls[index])
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


def _value_text(value: JSON) -> str:
    if isinstance(value, str):
        return value
    return repr(value) if type(value) in _PLAIN else _encode(value)
