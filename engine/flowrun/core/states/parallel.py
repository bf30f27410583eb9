"""The parallel state: runs several sub-flows at once, to the end of all of them, or of the first that succeeds."""

from collections.abc import Mapping
from typing import Annotated, Final, TypedDict

from flowrun.core.events import ChildEnded
from flowrun.core.run import PENDING
from flowrun.core.shapes import Shape, closed, one_of, shape_of, shape_of_output
from flowrun.core.state_node import Turn
from flowrun.core.states.children import (
    ParentNode,
    await_children,
    cancel_child,
    collected,
    outcome_of,
    output_of,
    shape_of_collected,
    start_child,
)
from flowrun.core.states.compiler import Compiler
from flowrun.core.states.kind import Look, StateKind
from flowrun.core.views import Value
from flowrun.spec.model import JSON, ParallelState, Spec
from flowrun.templates import Evaluator, compile_value


class ParallelNode(ParentNode, frozen=True, kw_only=True):
    """A parallel state that awaits all its branches. Each of its ``branches`` is a (name, flow, arguments) tuple.

    With ``collect``, a branch that fails has its failure in the output.
    """

    branches: tuple[tuple[str, str, Evaluator], ...]
    collect: bool = False

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
        """Leave when all branches have ended; fail as soon as one branch fails, unless failures are collected."""
        if not self.collect:
            output_of(event.outcome, f"branch {self.branches[event.index][0]!r}")
        if not turn.run.left:
            self._leave(turn)

    def _leave(self, turn: Turn) -> None:
        assert turn.run.children is not None
        outcomes = list(map(outcome_of, turn.run.children))
        outputs = [collected(outcome) if self.collect else outcome.output for outcome in outcomes]
        turn.leave(self, {branch[0]: output for branch, output in zip(self.branches, outputs, strict=True)})


class RaceNode(ParallelNode, frozen=True, kw_only=True):
    """A parallel state that goes on with the first branch that succeeds. ``Run.returned`` is the index of this branch.

    The other branches are cancelled, and their ends awaited: what they have used counts.
    """

    def enter(self, turn: Turn) -> None:
        """Start every branch; in an attempt after one has succeeded, leave with it."""
        if turn.run.returned is None:
            super().enter(turn)
        else:
            self._leave(turn)

    def ended(self, turn: Turn, event: ChildEnded) -> None:
        """Cancel the others after the first success; leave, or fail with the last failure, when all have ended."""
        run = turn.run
        if run.returned is None and event.outcome.status == "succeeded":
            run.returned = Value(event.index)
            assert run.children is not None
            turn.effects = tuple(
                cancel_child(run, index, flow)
                for index, (_, flow, _) in enumerate(self.branches)
                if run.children[index] is PENDING
            )
        if run.left:
            return
        if run.returned is None:
            output_of(event.outcome, f"every branch failed; the last one, {self.branches[event.index][0]!r},")
        self._leave(turn)

    def _leave(self, turn: Turn) -> None:
        run = turn.run
        assert run.children is not None
        assert run.returned is not None
        index = run.returned.value
        turn.leave(self, _won(self.branches[index][0], outcome_of(run.children[index]).output))


class WinnerView(TypedDict):
    """The output of a race, with `until: first`."""

    branch: Annotated[str, "the name of the branch that was first"]
    output: Annotated[JSON, "the output of this branch"]


def _won(branch: str, output: JSON) -> WinnerView:
    return {"branch": branch, "output": output}


def compile_parallel(name: str, state: ParallelState, compiler: Compiler) -> ParallelNode:
    """Compile a parallel state."""
    branches = tuple((branch, part.flow, compile_value(part.arguments)) for branch, part in state.branches.items())
    fields = compiler.common(name, state) | {"branches": branches}
    if state.until == "first":
        return RaceNode(**fields)
    return ParallelNode(collect=state.on_branch_error == "collect", **fields)


def shape_of_parallel(state: ParallelState, flows: Mapping[str, Spec]) -> Shape:
    """Return the shape of a parallel state's output."""
    outputs = {name: shape_of_output(flows.get(branch.flow)) for name, branch in state.branches.items()}
    if state.until == "first":
        shape = shape_of(WinnerView)
        return {**shape, "properties": {**shape["properties"], "output": one_of(list(outputs.values()))}}
    if state.on_branch_error == "collect":
        return closed(**{name: shape_of_collected(output) for name, output in outputs.items()})
    return closed(**outputs)


KIND: Final = StateKind(
    struct=ParallelState,
    compile=compile_parallel,
    output="the outputs of the branches, by their names; with `on_branch_error: collect`, each beside its error; with "
    "`until: first`, {branch, output} of the first one that succeeded",
    shape=shape_of_parallel,
    looks={"parallel": Look(outline="barred", light=("#e9ebff", "#5b62d6"), dark=("#1d2042", "#9aa0ff"))},
)
