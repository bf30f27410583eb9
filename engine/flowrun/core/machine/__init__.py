"""Every transition is decided here. No I/O, no clock, no randomness.

``advance`` takes a run and an event to the next run and the effects that it wants. A run's state is the fold of its
events, so replay, resume and tests are all the same thing: feeding events to ``advance``. An event that is not awaited
(late, doubled, or of another state) changes nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from flowrun.core.events import (
    Answer,
    Answered,
    CallStarted,
    Cancelled,
    ChildEnded,
    Event,
    Failed,
    Replied,
    Returned,
    Slept,
    Started,
    TimedOut,
)
from flowrun.core.graph import (
    CallNode,
    ChatNode,
    EndNode,
    FlowNode,
    Graph,
    MapNode,
    Node,
    ParallelNode,
    RouteNode,
    ToolsNode,
    WaitNode,
)
from flowrun.core.machine.calls import call_answered, enter_call, enter_route
from flowrun.core.machine.chat import ask_again, chat_answered, enter_chat
from flowrun.core.machine.children import (
    enter_flow,
    enter_map,
    enter_parallel,
    flow_answered,
    map_answered,
    parallel_answered,
)
from flowrun.core.machine.state import ASLEEP, Next, Run, Step, finish, replace, scope_of
from flowrun.core.machine.threads import last_calls, with_threads
from flowrun.core.machine.tools import enter_tools, tools_answered
from flowrun.core.machine.transitions import attempt, fail
from flowrun.core.machine.waits import enter_wait, wait_answered
from flowrun.errors import Failure
from flowrun.templates import TemplateError


def advance(graph: Graph, run: Run, event: Event) -> Step:
    """Take a run one event further."""
    if run.status not in ("running", "waiting"):
        return _start(graph, event) if run.status == "new" and isinstance(event, Started) else Step(run, ())
    return _HAPPENED[type(event)](graph, run, event)


def fold(graph: Graph, events: Iterable[Event]) -> Step:
    """Give the run that a sequence of events leads to, with the effects of the last one."""
    step = Step(Run(), ())
    for event in events:
        step = advance(graph, step.run, event)
    return step


# --- the loop: from state to state until something is awaited -------------------------------------------------------


def _start(graph: Graph, event: Started) -> Step:
    limits = graph.limits
    run = Run(
        id=event.run,
        status="running",
        inputs=event.inputs,
        max_rounds=limits.max_rounds if event.max_rounds is None else min(limits.max_rounds, event.max_rounds),
        max_steps=limits.max_steps if event.max_steps is None else min(limits.max_steps, event.max_steps),
    )
    if (wrong := graph.inputs(event.inputs)) is not None:
        return finish(run, "failed", None, Failure(name="input.invalid", message=wrong))
    try:
        if graph.variables:
            scope = scope_of(run)
            run = replace(run, vars={name: evaluate(scope) for name, evaluate in graph.variables})
        run = with_threads(run, graph.threads, scope_of(run))
    except TemplateError as exc:
        return finish(run, "failed", None, Failure(name="template.failed", message=str(exc)))
    return _go(graph, run, graph.start)


def _go(graph: Graph, run: Run, target: str) -> Step:
    """Enter states until one awaits an event or the run ends. Bounded by ``limits.max_steps``."""
    while True:
        if run.step + run.child_steps >= run.max_steps:
            return finish(run, "failed", None, _limit_steps(run))
        run = replace(
            run, state=target, step=run.step + 1, attempt=1, awaiting=(), started=0, path=run.path.extended((target,))
        )
        node = graph.nodes[target]
        if run.unread and node.reads_calls:
            run = replace(run, unread="")
        if isinstance(node, EndNode):
            return _end(graph, run, node)
        entered = attempt(graph, run, _ENTERED[type(node)], node)
        if entered.target is None:
            return Step(entered.run, entered.effects)
        run, target = entered.run, entered.target


def _answered(graph: Graph, run: Run, event: Answer) -> Step:
    if event.step != run.step:
        return Step(run, ())
    node = graph.nodes[run.state]
    if run.awaiting != ASLEEP:
        return _settle(graph, run, _ANSWERED[type(node)], node, event)
    if isinstance(event, Slept):
        return _settle(graph, replace(run, awaiting=()), _AGAIN[type(node)], node)
    return Step(run, ())


def _settle(graph: Graph, run: Run, handler: Callable[..., Next], *subject: Any) -> Step:
    return _take(graph, attempt(graph, run, handler, *subject))


def _take(graph: Graph, after: Next) -> Step:
    return Step(after.run, after.effects) if after.target is None else _go(graph, after.run, after.target)


def _end(graph: Graph, run: Run, node: EndNode) -> Step:
    try:
        output = node.output(scope_of(run))
    except TemplateError as exc:
        return finish(run, "failed", None, Failure(name="template.failed", message=str(exc), state=node.name))
    if node.status == "failed":
        message = f"the flow ended in state {node.name!r}, whose status is failed"
        return finish(run, "failed", output, Failure(name="flow.failed", message=message, state=node.name))
    if run.unread and (dropped := _dropped_calls(graph, run)):
        message = f"the run would end in state {node.name!r} although no state handled the calls {dropped}"
        return finish(run, "failed", None, Failure(name="model.unhandled_call", message=message, state=run.unread))
    return finish(run, "succeeded", output, None)


def _dropped_calls(graph: Graph, run: Run) -> str:
    """Name the calls of the reply that nothing looked at, as far as nothing has answered them."""
    node = graph.nodes[run.unread]
    assert isinstance(node, ChatNode)
    return ", ".join(call.name for call in last_calls(run.threads[node.thread]).open)


def _limit_steps(run: Run) -> Failure:
    entered = run.step + run.child_steps
    message = f"the run entered {entered} states, which is limits.max_steps: is there a loop without an end?"
    return Failure(name="limit.steps", message=message, state=run.state)


def _cancelled(graph: Graph, run: Run, event: Cancelled) -> Step:
    return finish(run, "cancelled", None, Failure(name="run.cancelled", message=event.reason, state=run.state))


def _unmoved(graph: Graph, run: Run, event: Started | CallStarted) -> Step:
    return Step(run, ())


def _timed_out(graph: Graph, run: Run, event: TimedOut) -> Step:
    limit, timeout = graph.limits.timeout, graph.nodes[run.state].timeout
    if event.step == 0 and limit is not None:
        message = f"the run took longer than limits.timeout, {limit:g} s"
        return finish(run, "failed", None, Failure(name="limit.timeout", message=message, state=run.state))
    if event.step != run.step or timeout is None:
        return Step(run, ())
    message = f"state {run.state!r} took longer than its timeout, {timeout:g} s"
    name = "wait.timeout" if run.status == "waiting" else "state.timeout"
    return _take(graph, fail(graph, run, Failure(name=name, message=message)))


_HAPPENED: Final[Mapping[type[Event], Callable[..., Step]]] = {
    **dict.fromkeys((Replied, Returned, Failed, ChildEnded, Answered, Slept), _answered),
    TimedOut: _timed_out,
    Cancelled: _cancelled,
    Started: _unmoved,
    CallStarted: _unmoved,
}
_ENTERED: Final[Mapping[type[Node], Callable[..., Next]]] = {
    ChatNode: enter_chat,
    ToolsNode: enter_tools,
    CallNode: enter_call,
    RouteNode: enter_route,
    FlowNode: enter_flow,
    MapNode: enter_map,
    ParallelNode: enter_parallel,
    WaitNode: enter_wait,
}
_AGAIN: Final[Mapping[type[Node], Callable[..., Next]]] = {**_ENTERED, ChatNode: ask_again}
"""What another attempt at a state does."""

_ANSWERED: Final[Mapping[type[Node], Callable[..., Next]]] = {
    ChatNode: chat_answered,
    ToolsNode: tools_answered,
    CallNode: call_answered,
    FlowNode: flow_answered,
    MapNode: map_answered,
    ParallelNode: parallel_answered,
    WaitNode: wait_answered,
}


__all__ = ["Run", "Step", "advance", "fold"]
