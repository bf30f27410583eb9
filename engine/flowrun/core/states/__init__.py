"""The kinds of states, one module each: how the state is compiled, entered and left, and how it handles events."""

from collections.abc import Mapping
from typing import Any, Final

from flowrun.core.state_node import StateNode
from flowrun.core.states import agent, call, chat, decide, end, flow, map, parallel, pause, route, tools, wait
from flowrun.core.states.compiler import Compiler
from flowrun.core.states.kind import Look, Outline, StateKind
from flowrun.spec.model import STATES, State

_MODULES: Final = (chat, decide, tools, agent, call, route, flow, map, parallel, wait, pause, end)

KINDS: Final[dict[str, StateKind[Any]]] = {module.KIND.name: module.KIND for module in _MODULES}
"""All kinds of states by their names."""

if (structs := {name: kind.struct for name, kind in KINDS.items()}) != STATES:
    raise TypeError(f"core.states and spec.model.STATES differ: {structs.items() ^ STATES.items()}")


def compile_state(name: str, state: State, compiler: Compiler) -> StateNode:
    """Compile a state to a node of its kind."""
    return KINDS[state.type].compile(name, state, compiler)


def looks() -> Mapping[str, Look]:
    """Return the looks of all states by ``State.look``."""
    return {name: look for kind in KINDS.values() for name, look in kind.looks.items()}


__all__ = ["KINDS", "Compiler", "Look", "Outline", "StateKind", "compile_state", "looks"]
