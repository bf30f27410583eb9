"""The states that run sub-flows: flow, map and parallel. A child counts against the limits of its parent."""

from collections.abc import Mapping

from flowrun.core.events import ChildEnded, Event, Outcome, StartChild
from flowrun.core.graph import FlowNode, Graph, MapNode, ParallelNode
from flowrun.core.machine.state import PENDING, Next, Run, StateFailure, replace, scope_of, take
from flowrun.core.machine.transitions import UNCAUGHT, attempt, leave
from flowrun.errors import Failure
from flowrun.spec.model import JSON


def _start(run: Run, index: int, flow: str, inputs: Mapping[str, JSON]) -> StartChild:
    return StartChild(
        step=run.step,
        index=index,
        state=run.state,
        flow=flow,
        inputs=inputs,
        max_rounds=run.max_rounds - run.rounds,
        max_steps=run.max_steps - run.step - run.child_steps,
    )


def _ended(run: Run, event: Event) -> Run | None:
    """Put a child's outcome into its place, and count what it spent; None if it is not awaited."""
    if not isinstance(event, ChildEnded) or (taken := take(run, event.index, event.outcome)) is None:
        return None
    return replace(
        taken,
        rounds=run.rounds + event.rounds,
        child_steps=run.child_steps + event.steps,
        usage=run.usage + event.usage,
    )


def _output(outcome: Outcome, what: str) -> JSON:
    """Give a child's output.

    Raises:
        StateFailure: it has none; named as the child's failure, if a state can catch that.
    """
    if outcome.status == "succeeded":
        return outcome.output
    error = outcome.error or Failure(name="flow.failed", message=f"it was {outcome.status}")
    where = f" in its state {error.state!r}" if error.state else ""
    if error.name in UNCAUGHT:
        raise StateFailure("flow.failed", f"{what} failed{where}: {error.name}: {error.message}")
    raise StateFailure(error.name, f"{what} failed{where}: {error.message}")


# --- flow ---------------------------------------------------------------------------------------------------------


def enter_flow(graph: Graph, run: Run, node: FlowNode) -> Next:
    """Start the one child; if it succeeded in an attempt before, only leave."""
    if run.kept and run.kept[0] is not PENDING:
        return _leave_flow(graph, replace(run, awaiting=run.kept), node)
    child = _start(run, 0, node.flow, node.arguments(scope_of(run)))
    return Next(replace(run, awaiting=(PENDING,), left=1), (child,))


def flow_answered(graph: Graph, run: Run, node: FlowNode, event: Event) -> Next:
    """Take the child's output for the state's."""
    taken = _ended(run, event)
    return Next(run) if taken is None else attempt(graph, taken, _leave_flow, node)


def _leave_flow(graph: Graph, run: Run, node: FlowNode) -> Next:
    return leave(graph, run, _output(run.awaiting[0], f"sub-flow {node.flow!r}"))


# --- parallel -----------------------------------------------------------------------------------------------------


def enter_parallel(graph: Graph, run: Run, node: ParallelNode) -> Next:
    """Start every branch; in another attempt only those that did not succeed."""
    scope = scope_of(run)
    awaiting = run.kept or (PENDING,) * len(node.branches)
    children = tuple(
        _start(run, index, flow, arguments(scope))
        for index, (_, flow, arguments) in enumerate(node.branches)
        if awaiting[index] is PENDING
    )
    run = replace(run, awaiting=awaiting, left=len(children))
    return Next(run, children) if children else _leave_parallel(graph, run, node)


def parallel_answered(graph: Graph, run: Run, node: ParallelNode, event: Event) -> Next:
    """Take a branch's output; the first branch that fails fails the state."""
    taken = _ended(run, event)
    return Next(run) if taken is None else attempt(graph, taken, _branch_ended, node, event)


def _branch_ended(graph: Graph, run: Run, node: ParallelNode, event: ChildEnded) -> Next:
    _output(event.outcome, f"branch {node.branches[event.index][0]!r}")
    return Next(run) if run.left else _leave_parallel(graph, run, node)


def _leave_parallel(graph: Graph, run: Run, node: ParallelNode) -> Next:
    outputs = {branch[0]: outcome.output for branch, outcome in zip(node.branches, run.awaiting, strict=True)}
    return leave(graph, run, outputs)


# --- map ----------------------------------------------------------------------------------------------------------


def enter_map(graph: Graph, run: Run, node: MapNode) -> Next:
    """Start as many children as may run at once, each for one item; in another attempt not those that succeeded."""
    if run.kept:
        run = replace(run, awaiting=run.kept, left=run.kept.count(PENDING), started=0)
    else:
        items = node.items(scope_of(run))
        if not isinstance(items, (list, tuple)):
            raise StateFailure("template.failed", f"for_each gave {items!r}, which is no list")
        run = replace(run, items=tuple(items), awaiting=(PENDING,) * len(items), left=len(items), started=0)
    if not run.left:
        return _leave_map(graph, run, node)
    return _start_items(run, node, node.max_concurrency or run.left)


def map_answered(graph: Graph, run: Run, node: MapNode, event: Event) -> Next:
    """Take an item's outcome, and start the next one in its stead."""
    if not isinstance(event, ChildEnded) or event.index >= run.started:
        return Next(run)
    taken = _ended(run, event)
    return Next(run) if taken is None else attempt(graph, taken, _item_ended, node, event)


def _item_ended(graph: Graph, run: Run, node: MapNode, event: ChildEnded) -> Next:
    if node.on_item_error == "fail":
        _output(event.outcome, f"item {event.index}")
    if not run.left:
        return _leave_map(graph, run, node)
    return _start_items(run, node, 1)


def _start_items(run: Run, node: MapNode, count: int) -> Next:
    """Start the next ``count`` items that have no outcome yet, as far as there are so many."""
    scope = scope_of(run)
    started = run.started
    children: list[StartChild] = []
    while len(children) < count and started < len(run.items):
        if run.awaiting[started] is PENDING:
            given = node.arguments({**scope, node.item: run.items[started], "index": started})
            children.append(_start(run, started, node.flow, given))
        started += 1
    return Next(replace(run, started=started), tuple(children))


def _leave_map(graph: Graph, run: Run, node: MapNode) -> Next:
    """Give the outputs in the items' order: with ``collect`` each beside its error, with ``skip`` the good ones."""
    outcomes: tuple[Outcome, ...] = run.awaiting
    outputs: list[JSON]
    if node.on_item_error == "collect":
        outputs = [_collected(outcome) for outcome in outcomes]
    else:
        outputs = [outcome.output for outcome in outcomes if outcome.status == "succeeded"]
    return leave(graph, run, outputs, items=())


def _collected(outcome: Outcome) -> dict[str, JSON]:
    error = outcome.error
    return {
        "output": outcome.output,
        "error": None if error is None else {"name": error.name, "message": error.message, "state": error.state},
    }
