"""The call state: calls a Python function without the model."""

from typing import Final

from flowrun.core.events import CallFunction, Event, Failed, Returned
from flowrun.core.run import Run
from flowrun.core.state_node import StateNode, Turn
from flowrun.core.states.compiler import Compiler
from flowrun.core.states.kind import Look, StateKind
from flowrun.core.views import Value
from flowrun.spec.model import CallState, Isolation
from flowrun.templates import Evaluator, compile_value


class CallNode(StateNode, frozen=True, kw_only=True):
    """A call state."""

    entrypoint: str
    arguments: Evaluator
    idempotent: bool
    isolation: Isolation

    def enter(self, turn: Turn) -> None:
        """Call the function with the rendered arguments."""
        run = turn.run
        arguments = self.arguments(turn.scope)
        run.awaiting = "effect"
        turn.effects = (
            CallFunction(
                step=run.step,
                state=self.name,
                run=run.id,
                entrypoint=self.entrypoint,
                arguments=arguments,
                idempotent=self.idempotent,
                attempt=run.attempt,
                isolation=self.isolation,
            ),
        )

    def try_again(self, turn: Turn) -> None:
        """Call the function again, or leave with its value if it has returned and something else failed afterwards."""
        if turn.run.returned is None:
            self.enter(turn)
        else:
            turn.leave(self, turn.run.returned.value)

    def accepts(self, run: Run, event: Event) -> bool:
        """Return whether an event is the function's value or failure."""
        return isinstance(event, (Returned, Failed)) and event.index == 0

    def handle(self, turn: Turn, event: Event) -> None:
        """Leave with the function's value, or fail."""
        if isinstance(event, Failed):
            turn.fail(event.failure)
            return
        assert isinstance(event, Returned)
        turn.run.returned = Value(event.value)
        turn.leave(self, event.value)


def compile_call(name: str, state: CallState, compiler: Compiler) -> CallNode:
    """Compile a call state."""
    return CallNode(
        entrypoint=state.entrypoint,
        arguments=compile_value(state.arguments),
        idempotent=state.idempotent,
        isolation=compiler.spec.isolation_of(state),
        **compiler.common(name, state),
    )


KIND: Final = StateKind(
    struct=CallState,
    compile=compile_call,
    output="the value that the function returned",
    looks={"call": Look(outline="striped", light=("#e0f5f1", "#1f9d86"), dark=("#0f2d28", "#4fd1b5"))},
)
