"""The route state: chooses a route, and does nothing else."""

from typing import Final

from flowrun.core.state_node import StateNode, Turn
from flowrun.core.states.compiler import Compiler
from flowrun.core.states.kind import Look, StateKind
from flowrun.spec.model import RouteState


class RouteNode(StateNode, frozen=True, kw_only=True):
    """A route state."""

    def enter(self, turn: Turn) -> None:
        """Choose a route."""
        turn.leave(self, None)


def compile_route(name: str, state: RouteState, compiler: Compiler) -> RouteNode:
    """Compile a route state."""
    return RouteNode(**compiler.common(name, state))


KIND: Final = StateKind(
    struct=RouteState,
    compile=compile_route,
    output="null",
    looks={"route": Look(outline="hexagon", light=("#f1f1f4", "#7a7d8c"), dark=("#26272d", "#a0a3b1"))},
)
