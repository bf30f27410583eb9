"""The machine: for each event, decides the next run, the effects to perform and the moves that were made. Pure.

The same events always lead to the same run: a run is the fold of its events, so it can be restored from them alone.
"""

from collections.abc import Iterable

from flowrun.core.events import (
    ANSWERS,
    CallStarted,
    Cancelled,
    Event,
    Slept,
    Started,
    TimedOut,
)
from flowrun.core.run import Run, Transition, thaw
from flowrun.core.state_node import Graph, StateFailure, Turn, failure_of, too_many_steps
from flowrun.core.threads import start_threads
from flowrun.core.token_limits import least_limits
from flowrun.errors import Failure
from flowrun.templates import TemplateError


def advance(graph: Graph, run: Run, event: Event) -> Transition:
    """Return the transition that an event causes.

    The argument ``run`` is not changed. If the run does not await the event, the transition holds the same object.
    """
    if not run.awaiting:
        return _start(graph, run, event) if run.status == "new" and isinstance(event, Started) else Transition(run)
    if not isinstance(event, ANSWERS):
        return _interrupt(graph, run, event)
    node, sleeps = graph.nodes[run.state], run.awaiting == "sleep"
    if event.step != run.step or not (isinstance(event, Slept) if sleeps else node.accepts(run, event)):
        return Transition(run)
    turn = Turn(graph, thaw(run))
    try:
        if sleeps:
            if node.render_timeout is not None and run.timeout is None:
                turn.run.timeout = node.render_timeout(turn.scope)
            node.try_again(turn)
        else:
            node.handle(turn, event)
    except (StateFailure, TemplateError) as exc:
        turn.abort(exc, event)
    return _enter_states(turn)


def fold(graph: Graph, events: Iterable[Event]) -> Transition:
    """Apply events to a new run. Return the final run, with the effects and moves of the last event."""
    transition = Transition(Run())
    for event in events:
        transition = advance(graph, transition.run, event)
    return transition


def _start(graph: Graph, run: Run, event: Started) -> Transition:
    limits = graph.limits
    turn = Turn(graph, draft := thaw(run))
    draft.id, draft.status, draft.inputs, draft.seed = event.run, "running", event.inputs, event.seed
    draft.max_rounds = limits.max_rounds if event.max_rounds is None else min(limits.max_rounds, event.max_rounds)
    draft.max_steps = limits.max_steps if event.max_steps is None else min(limits.max_steps, event.max_steps)
    draft.max_tool_calls = min(
        (most for most in (limits.max_tool_calls, event.max_tool_calls) if most is not None), default=None
    )
    draft.token_limits = least_limits(limits.tokens, event.token_limits)
    if (wrong := graph.inputs(event.inputs)) is not None:
        turn.finish("failed", None, Failure(name="input.invalid", message=wrong))
        return turn.end()
    try:
        if graph.variables:
            scope = turn.scope
            draft.vars = {name: evaluate(scope) for name, evaluate in graph.variables}
        start_threads(draft, graph.threads, turn.scope)
    except (StateFailure, TemplateError) as exc:
        turn.finish("failed", None, failure_of(exc))
        return turn.end()
    turn.target = graph.start
    return _enter_states(turn)


def _enter_states(turn: Turn) -> Transition:
    """Enter states one after another until one awaits an event or the run ends; at most ``limits.max_steps`` a run."""
    while turn.target is not None:
        run = turn.run
        if run.step + run.child_steps >= run.max_steps:
            turn.finish("failed", None, Failure(name="limit.steps", message=too_many_steps(run), state=run.state))
            break
        node = turn.graph.nodes[turn.target]
        turn.target = turn.saved = None
        run.state, run.step, run.attempt = node.name, run.step + 1, 1
        run.awaiting, run.left, run.started, run.memo = "", 0, 0, ()
        run.returned = run.calls = run.children = None
        if run.feedback is not None:
            run.feedback = None
        run.path = run.path.appended(node.name)
        if run.unread and node.reads_calls:
            turn.see_calls(node.reads_calls)
        try:
            if node.render_timeout is not None:
                run.timeout = None  # if this fails, another attempt renders it
                run.timeout = node.render_timeout(turn.scope)
            node.enter(turn)
        except (StateFailure, TemplateError) as exc:
            turn.abort(exc)
    return turn.end()


def _interrupt(graph: Graph, run: Run, event: Started | CallStarted | Cancelled | TimedOut) -> Transition:
    match event:
        case Cancelled():
            turn = Turn(graph, draft := thaw(run))
            draft.rounds += event.rounds
            draft.child_steps += event.steps
            draft.tool_calls += event.tool_calls
            draft.usage += event.usage
            error = Failure(name="run.cancelled", message=event.reason, state=run.state)
            turn.finish("cancelled", None, error)
            return turn.end()
        case TimedOut():
            return _time_out(graph, run, event)
        case Started() | CallStarted():
            return Transition(run)


def _time_out(graph: Graph, run: Run, event: TimedOut) -> Transition:
    limit, node = graph.limits.timeout, graph.nodes[run.state]
    if event.step == 0 and limit is not None:
        message = f"the run took longer than limits.timeout, {limit:g} s"
        turn = Turn(graph, thaw(run))
        turn.finish("failed", None, Failure(name="limit.timeout", message=message, state=run.state))
        return turn.end()
    timeout = node.timeout_of(run)
    if event.step != run.step or timeout is None:
        return Transition(run)
    turn = Turn(graph, thaw(run))
    message = f"state {run.state!r} took longer than its timeout, {timeout:g} s"
    waited = run.status == "waiting" and not node.of_visit
    turn.fail(Failure(name="wait.timeout" if waited else "state.timeout", message=message))
    return _enter_states(turn)


__all__ = ["Run", "Transition", "advance", "fold"]
