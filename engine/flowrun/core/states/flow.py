"""The flow state: runs one sub-flow; the output of the sub-flow becomes the output of the state."""

from typing import Final

from flowrun.core.events import ChildEnded
from flowrun.core.shapes import shape_of_output
from flowrun.core.state_node import Turn
from flowrun.core.states.children import ParentNode, await_children, output_of, start_child
from flowrun.core.states.compiler import Compiler
from flowrun.core.states.kind import Look, StateKind
from flowrun.spec.model import FlowState
from flowrun.templates import Evaluator, compile_value


class FlowNode(ParentNode, frozen=True, kw_only=True):
    """A flow state: ``flow`` is a key of ``Graph.flows``."""

    flow: str
    arguments: Evaluator

    def enter(self, turn: Turn) -> None:
        """Start the child, unless it has succeeded in an earlier attempt."""
        run = turn.run
        arguments = self.arguments(turn.scope)
        await_children(run, 1)
        if run.left:
            turn.effects = (start_child(run, 0, self.flow, arguments),)
        else:
            self._leave(turn)

    def ended(self, turn: Turn, event: ChildEnded) -> None:
        """Leave with the child's output."""
        self._leave(turn)

    def _leave(self, turn: Turn) -> None:
        assert turn.run.children is not None
        turn.leave(self, output_of(turn.run.children[0], f"sub-flow {self.flow!r}"))


def compile_flow(name: str, state: FlowState, compiler: Compiler) -> FlowNode:
    """Compile a flow state."""
    return FlowNode(flow=state.flow, arguments=compile_value(state.arguments), **compiler.common(name, state))


KIND: Final = StateKind(
    struct=FlowState,
    compile=compile_flow,
    output="the output of the sub-flow",
    shape=lambda state, flows: shape_of_output(flows.get(state.flow)),
    looks={"flow": Look(outline="doubled", light=("#f1eafc", "#8457d0"), dark=("#271c3b", "#b392f0"))},
)
