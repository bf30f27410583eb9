"""The wait state: the run pauses until somebody answers with a value that matches the state's schema."""

from flowrun.core.events import Answered, Event, RequestInput
from flowrun.core.graph import Graph, WaitNode
from flowrun.core.machine.state import PENDING, Next, Run, replace, scope_of
from flowrun.core.machine.transitions import leave


def enter_wait(graph: Graph, run: Run, node: WaitNode) -> Next:
    """Ask, and pause."""
    ask = RequestInput(
        step=run.step, state=node.name, run=run.id, prompt=node.prompt(scope_of(run)), schema=node.schema
    )
    return Next(replace(run, status="waiting", awaiting=(PENDING,), left=1), (ask,))


def wait_answered(graph: Graph, run: Run, node: WaitNode, event: Event) -> Next:
    """Take an answer that matches; who passes one on checks it first, so one that does not is as if never given."""
    if not isinstance(event, Answered) or run.awaiting != (PENDING,) or node.validate(event.value) is not None:
        return Next(run)
    return leave(graph, run, event.value, status="running")
