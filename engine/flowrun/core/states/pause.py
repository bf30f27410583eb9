"""The pause state: the run sleeps for a duration, or until a point in time."""

from collections.abc import Callable
from typing import Final

from flowrun.core.events import Event, Sleep, Slept
from flowrun.core.run import Run
from flowrun.core.shapes import NULL
from flowrun.core.state_node import StateNode, Turn
from flowrun.core.states.compiler import Compiler
from flowrun.core.states.kind import Look, StateKind
from flowrun.core.timing import compile_duration, compile_moment
from flowrun.spec.model import PauseState
from flowrun.templates import Scope


class PauseNode(StateNode, frozen=True, kw_only=True):
    """A pause state: exactly one of ``seconds`` and ``until`` is set."""

    seconds: Callable[[Scope], float] | None
    until: Callable[[Scope], float] | None

    def enter(self, turn: Turn) -> None:
        """Let the run sleep."""
        run, scope = turn.run, turn.scope
        sleep = Sleep(
            step=run.step,
            seconds=0.0 if self.seconds is None else self.seconds(scope),
            until=None if self.until is None else self.until(scope),
        )
        run.status, run.awaiting = "sleeping", "effect"
        turn.effects = (sleep,)

    def accepts(self, run: Run, event: Event) -> bool:
        """Return whether an event is the end of the pause."""
        return isinstance(event, Slept)

    def handle(self, turn: Turn, event: Event) -> None:
        """Leave."""
        turn.run.status = "running"
        turn.leave(self, None)


def compile_pause(name: str, state: PauseState, compiler: Compiler) -> PauseNode:
    """Compile a pause state."""
    return PauseNode(
        seconds=None if state.duration is None else compile_duration(state.duration),
        until=None if state.until is None else compile_moment(state.until),
        **compiler.common(name, state),
    )


KIND: Final = StateKind(
    struct=PauseState,
    compile=compile_pause,
    output="null",
    shape=lambda state, flows: NULL,
    looks={"pause": Look(outline="pill", light=("#eef3f6", "#5f7f93"), dark=("#1b262d", "#9cbccf"))},
)
