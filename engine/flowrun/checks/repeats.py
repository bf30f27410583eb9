"""FR316: a state that is tried again runs a failed sub-flow from its start, with the calls that succeeded in it."""

from collections.abc import Iterator

from flowrun.checks.dataflow import leading_to
from flowrun.checks.offers import offered_tools
from flowrun.checks.subject import Subject
from flowrun.core.graph import Edge, edges
from flowrun.errors import Issue
from flowrun.spec import FlowTree
from flowrun.spec.model import (
    AgentState,
    CallState,
    ChatState,
    EndState,
    FlowState,
    Holds,
    MapState,
    ParallelState,
    PauseState,
    RouteState,
    Spec,
    State,
    ToolsState,
    WorkingState,
)
from flowrun.spec.parts import parts_of
from flowrun.spec.phrases import listed


def check_repeats(subject: Subject) -> Iterator[Issue]:
    """Find states with ``retry`` whose sub-flows call functions before something else can fail."""
    for name, state in subject.spec.states.items():
        if not isinstance(state, WorkingState) or state.retry is None or state.retry.max_attempts < 2:
            continue
        for part in parts_of(state, Holds.FLOW):
            flow = subject.tree.flows.get(part.value)
            if flow is not None and (callers := _states_that_call_before_a_failure(flow)):
                yield subject.issue(
                    "FR316",
                    ("states", name, "retry"),
                    f"another attempt runs the sub-flow {part.value!r} from its start, with the calls of "
                    f"{listed(callers, 'and')} that succeeded",
                    "move retry to the states of the sub-flow that fail, or say idempotent: true where a repeated call "
                    "does no harm",
                    key=True,
                    severity="warning",
                )


def _states_that_call_before_a_failure(flow: FlowTree) -> list[str]:
    """Return the states that call functions, of which a call may succeed before the flow fails."""
    spec = flow.loaded.spec
    followed = _states_before_a_failure(spec)
    return [
        name
        for name, state in spec.states.items()
        if _calls(flow, state) and (name in followed or _fails_after_a_call(flow, state))
    ]


def _calls(flow: FlowTree, state: State) -> bool:
    """Return whether a state makes calls that may not be made twice, itself or in its sub-flows."""
    if isinstance(state, CallState):
        return not state.idempotent
    if state.makes_calls:
        tools = flow.loaded.spec.tools
        offered = offered_tools(flow.loaded.spec, state) if isinstance(state, ChatState) else tools
        return any(tools[name].entrypoint and not tools[name].idempotent for name in offered if name in tools)
    return any(_calls(child, inner) for child in _children(flow, state) for inner in child.loaded.spec.states.values())


def _fails_after_a_call(flow: FlowTree, state: State) -> bool:
    """Return whether a state may fail when one of its calls has succeeded."""
    match state:
        case AgentState():
            return True  # its model is asked about the results
        case ToolsState():
            return state.on_error == "raise"
        case FlowState():
            return any(map(_states_that_call_before_a_failure, _children(flow, state)))
        case MapState():
            return state.on_item_error == "fail"
        case ParallelState():
            return state.on_branch_error == "fail"
    return False


def _children(flow: FlowTree, state: State) -> list[FlowTree]:
    """Return the sub-flows of a state that are known."""
    return [flow.flows[part.value] for part in parts_of(state, Holds.FLOW) if part.value in flow.flows]


def _states_before_a_failure(flow: Spec) -> set[str]:
    """Return the states that, once they have succeeded, lead to one that may fail."""
    outgoing: dict[str, list[Edge]] = {name: [] for name in flow.states}
    for edge in edges(flow):
        outgoing[edge.source].append(edge)
    ahead = leading_to(outgoing, [name for name, state in flow.states.items() if _may_fail(state)])
    return {edge.source for edge in edges(flow) if edge.kind == "route" and edge.target in ahead}


def _may_fail(state: State) -> bool:
    """Return whether a state may fail, other than by a template, or lets the flow fail."""
    if isinstance(state, EndState):
        return state.status == "failed"
    return not isinstance(state, RouteState | PauseState)
