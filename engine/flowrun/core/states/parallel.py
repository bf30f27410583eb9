"""The parallel state: runs several sub-flows at once; the output is a mapping of the branches' outputs."""

from typing import Final

from flowrun.core.events import ChildEnded
from flowrun.core.run import PENDING
from flowrun.core.shapes import closed, shape_of_output
from flowrun.core.state_node import Turn
from flowrun.core.states.children import ParentNode, await_children, outcome_of, output_of, start_child
from flowrun.core.states.compiler import Compiler
from flowrun.core.states.kind import Look, StateKind
from flowrun.spec.model import ParallelState
from flowrun.templates import Evaluator, compile_value


class ParallelNode(ParentNode, frozen=True, kw_only=True):
    """A parallel state. Each of its ``branches`` is a (name, flow, arguments) tuple."""

    branches: tuple[tuple[str, str, Evaluator], ...]

    def enter(self, turn: Turn) -> None:
        """Start every branch; in another attempt, only the branches that have not succeeded."""
        run, scope = turn.run, turn.scope
        given = [arguments(scope) for _, _, arguments in self.branches]
        children = await_children(run, len(self.branches))
        turn.effects = tuple(
            start_child(run, index, flow, given[index])
            for index, (_, flow, _) in enumerate(self.branches)
            if children[index] is PENDING
        )
        if not run.left:
            self._leave(turn)

    def ended(self, turn: Turn, event: ChildEnded) -> None:
        """Leave when all branches have ended; fail as soon as one branch fails."""
        output_of(event.outcome, f"branch {self.branches[event.index][0]!r}")
        if not turn.run.left:
            self._leave(turn)

    def _leave(self, turn: Turn) -> None:
        children = turn.run.children
        assert children is not None
        pairs = zip(self.branches, children, strict=True)
        turn.leave(self, {branch[0]: outcome_of(slot).output for branch, slot in pairs})


def compile_parallel(name: str, state: ParallelState, compiler: Compiler) -> ParallelNode:
    """Compile a parallel state."""
    branches = tuple((branch, part.flow, compile_value(part.arguments)) for branch, part in state.branches.items())
    return ParallelNode(branches=branches, **compiler.common(name, state))


KIND: Final = StateKind(
    struct=ParallelState,
    compile=compile_parallel,
    output="the outputs of the branches, by their names",
    shape=lambda state, flows: closed(
        **{name: shape_of_output(flows.get(branch.flow)) for name, branch in state.branches.items()}
    ),
    looks={"parallel": Look(outline="barred", light=("#e9ebff", "#5b62d6"), dark=("#1d2042", "#9aa0ff"))},
)
