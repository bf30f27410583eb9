"""The wait state: pauses the run until an answer arrives that matches the state's schema."""

from collections.abc import Callable, Mapping
from typing import Final

from flowrun.core.events import Answered, Event, RequestInput
from flowrun.core.json_schema import Validator, compile_schema
from flowrun.core.run import Run
from flowrun.core.shapes import ROOT
from flowrun.core.state_node import StateNode, Turn
from flowrun.core.states.compiler import Compiler
from flowrun.core.states.kind import Look, StateKind
from flowrun.spec.model import JSON, WaitState
from flowrun.templates import Scope, compile_text
from flowrun.unicode import find_encoding_error


class WaitNode(StateNode, frozen=True, kw_only=True):
    """A wait state: ``validate`` checks an answer."""

    prompt: Callable[[Scope], str]
    schema: Mapping[str, JSON]
    validate: Validator

    def enter(self, turn: Turn) -> None:
        """Request an answer, and pause the run."""
        run = turn.run
        prompt = self.prompt(turn.scope)
        run.status, run.awaiting = "waiting", "effect"
        turn.effects = (RequestInput(step=run.step, state=self.name, run=run.id, prompt=prompt, schema=self.schema),)

    def accepts(self, run: Run, event: Event) -> bool:
        """Return whether an event is an answer that matches the schema. Callers check an answer before they send it."""
        return isinstance(event, Answered) and event.index == 0 and self._fault(event.value) is None

    def handle(self, turn: Turn, event: Event) -> None:
        """Leave with the answer."""
        assert isinstance(event, Answered)
        turn.run.status = "running"
        turn.leave(self, event.value)

    def _fault(self, value: JSON) -> str | None:
        return find_encoding_error(value) or self.validate(value)


def compile_wait(name: str, state: WaitState, compiler: Compiler) -> WaitNode:
    """Compile a wait state."""
    return WaitNode(
        prompt=compile_text(state.prompt),
        schema=state.schema,
        validate=compile_schema(state.schema),
        **compiler.common(name, state),
    )


KIND: Final = StateKind(
    struct=WaitState,
    compile=compile_wait,
    output="the answer, which matches `schema`",
    shape=lambda state, flows: {ROOT: state.schema},
    looks={"wait": Look(outline="slanted", light=("#fdebdf", "#d9692b"), dark=("#3a2114", "#f2a272"))},
)
