"""The states that do without a model: call and route."""

from flowrun.events import CallFunction, Event, Failed, Returned
from flowrun.graph import BranchNode, CallNode, Graph
from flowrun.machine.moves import fail, leave
from flowrun.machine.run import PENDING, Next, Run, replace, scope_of


def enter_call(graph: Graph, run: Run, node: CallNode) -> Next:
    """Call a function with the rendered arguments."""
    call = CallFunction(
        step=run.step,
        state=node.name,
        run=run.id,
        entrypoint=node.entrypoint,
        arguments=node.arguments(scope_of(run)),
        idempotent=node.idempotent,
        attempt=run.attempt,
    )
    return Next(replace(run, awaiting=(PENDING,)), (call,))


def call_answered(graph: Graph, run: Run, node: CallNode, event: Event) -> Next:
    """Take the function's value or failure."""
    if run.awaiting != (PENDING,):
        return Next(run)
    if isinstance(event, Failed) and event.index == 0:
        return fail(graph, run, event.failure)
    if isinstance(event, Returned) and event.index == 0:
        return leave(graph, run, event.value)
    return Next(run)


def enter_branch(graph: Graph, run: Run, node: BranchNode) -> Next:
    """Decide where to go."""
    return leave(graph, run, None)
