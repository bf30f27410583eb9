"""FR316: a state that is tried again runs a failed sub-flow from its start, with the calls that succeeded in it."""

from collections.abc import Iterator

from flowrun.checks.dataflow import leading_to
from flowrun.checks.subject import Subject
from flowrun.core.graph import Edge, edges
from flowrun.errors import Issue
from flowrun.spec.model import CallState, Holds, RouteState, Spec, State, ToolsState, WorkingState
from flowrun.spec.parts import parts_of
from flowrun.spec.phrases import listed


def check_repeats(subject: Subject) -> Iterator[Issue]:
    """Find states with ``retry`` whose sub-flows call functions before something else can fail."""
    for name, state in subject.spec.states.items():
        if not isinstance(state, WorkingState) or state.retry is None or state.retry.max_attempts < 2:
            continue
        for part in parts_of(state, Holds.FLOW):
            flow = subject.flows.get(part.value)
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


def _states_that_call_before_a_failure(flow: Spec) -> list[str]:
    """Return the states that call functions, of which a call may succeed before the flow fails."""
    followed = _states_before_a_failure(flow)
    return [
        name
        for name, state in flow.states.items()
        if _calls(flow, state) and (name in followed or (isinstance(state, ToolsState) and state.on_error == "raise"))
    ]


def _calls(flow: Spec, state: State) -> bool:
    """Return whether a state makes calls that may not be made twice."""
    if isinstance(state, ToolsState):
        return not all(tool.idempotent for tool in flow.tools.values())
    return isinstance(state, CallState) and not state.idempotent


def _states_before_a_failure(flow: Spec) -> set[str]:
    """Return the states that lead to one that may fail."""
    outgoing: dict[str, list[Edge]] = {name: [] for name in flow.states}
    for edge in edges(flow):
        outgoing[edge.source].append(edge)
    states = flow.states.items()
    may_fail = [name for name, state in states if isinstance(state, WorkingState) and not isinstance(state, RouteState)]
    ahead = leading_to(outgoing, may_fail)
    return {edge.source for edge in edges(flow) if edge.target in ahead}
