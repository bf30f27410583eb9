"""The states that do without a model: call and route."""

from flowrun.core.events import CallFunction, Event, Failed, Returned
from flowrun.core.graph import CallNode, Graph, RouteNode
from flowrun.core.machine.state import PENDING, Next, Run, Value, replace, scope_of, take
from flowrun.core.machine.transitions import attempt, fail, leave


def enter_call(graph: Graph, run: Run, node: CallNode) -> Next:
    """Call a function with the rendered arguments; if it returned in an attempt before, only leave."""
    if run.kept and run.kept[0] is not PENDING:
        return _leave_call(graph, replace(run, awaiting=run.kept), node)
    call = CallFunction(
        step=run.step,
        state=node.name,
        run=run.id,
        entrypoint=node.entrypoint,
        arguments=node.arguments(scope_of(run)),
        idempotent=node.idempotent,
        attempt=run.attempt,
    )
    return Next(replace(run, awaiting=(PENDING,), left=1), (call,))


def call_answered(graph: Graph, run: Run, node: CallNode, event: Event) -> Next:
    """Take the function's value or failure."""
    if isinstance(event, Failed) and run.awaiting == (PENDING,) and event.index == 0:
        return fail(graph, run, event.failure)
    if isinstance(event, Returned) and (taken := take(run, event.index, Value(event.value))) is not None:
        return attempt(graph, taken, _leave_call, node)
    return Next(run)


def _leave_call(graph: Graph, run: Run, node: CallNode) -> Next:
    return leave(graph, run, run.awaiting[0].value)


def enter_route(graph: Graph, run: Run, node: RouteNode) -> Next:
    """Decide where to go."""
    return leave(graph, run, None)
