"""The end state: ends the run."""

from typing import Final

from flowrun.core.call_handling import NOTHING
from flowrun.core.messages import last_calls
from flowrun.core.run import Draft
from flowrun.core.state_node import StateNode, Turn
from flowrun.core.states.compiler import Compiler
from flowrun.core.states.kind import Look, StateKind
from flowrun.errors import Failure
from flowrun.spec.model import EndState
from flowrun.templates import Evaluator, compile_value


class EndNode(StateNode, frozen=True, kw_only=True):
    """An end state."""

    status: str
    output: Evaluator

    def enter(self, turn: Turn) -> None:
        """End the run. It fails instead of succeeding if the tool calls of a reply were not handled."""
        run = turn.run
        output = self.output(turn.scope)
        if self.status == "failed":
            message = f"the flow ended in state {self.name!r}, whose status is failed"
            turn.finish("failed", output, Failure(name="flow.failed", message=message, state=self.name))
        elif run.unread and (dropped := _dropped_calls(run)):
            thread, names = dropped
            message = f"the run would end in state {self.name!r} although no state handled the calls {names}"
            turn.finish(
                "failed", None, Failure(name="model.unhandled_call", message=message, state=run.asked[thread].state)
            )
        else:
            turn.finish("succeeded", output, None)


def _dropped_calls(run: Draft) -> tuple[str, str] | None:
    """Return a thread with unhandled tool calls and the names of these calls; None if there is none."""
    for thread in sorted(run.unread):
        if calls := last_calls(run.threads[thread]).open:
            return thread, ", ".join(call.name for call in calls)
    return None


def compile_end(name: str, state: EndState, compiler: Compiler) -> EndNode:
    """Compile an end state."""
    return EndNode(
        name=name,
        status=state.status,
        output=compile_value(state.output),
        reads_calls=compiler.handling.entered.get(name, NOTHING),
    )


KIND: Final = StateKind(
    struct=EndState,
    compile=compile_end,
    output="",
    looks={
        "succeeded": Look(
            title="end · succeeded",
            outline="pill",
            light=("#e3f6e6", "#2e9d4a"),
            dark=("#12301a", "#56d373"),
            mark="■",
        ),
        "failed": Look(
            title="end · failed",
            outline="pill",
            light=("#fde7e7", "#d0403f"),
            dark=("#3a1517", "#ff8580"),
            mark="✗",
        ),
    },
)
