"""The kinds of states, one module each: how the state is compiled, entered and left, and how it handles events."""

from typing import assert_never

from flowrun.core.state_node import StateNode
from flowrun.core.states.call import compile_call
from flowrun.core.states.chat import compile_chat
from flowrun.core.states.compiler import Compiler
from flowrun.core.states.end import compile_end
from flowrun.core.states.flow import compile_flow
from flowrun.core.states.map import compile_map
from flowrun.core.states.parallel import compile_parallel
from flowrun.core.states.route import compile_route
from flowrun.core.states.tools import compile_tools
from flowrun.core.states.wait import compile_wait
from flowrun.spec.model import (
    CallState,
    ChatState,
    EndState,
    FlowState,
    MapState,
    ParallelState,
    RouteState,
    State,
    ToolsState,
    WaitState,
)


def compile_state(name: str, state: State, compiler: Compiler) -> StateNode:
    """Compile a state to a node of its kind."""
    match state:
        case ChatState():
            return compile_chat(name, state, compiler)
        case ToolsState():
            return compile_tools(name, state, compiler)
        case CallState():
            return compile_call(name, state, compiler)
        case RouteState():
            return compile_route(name, state, compiler)
        case FlowState():
            return compile_flow(name, state, compiler)
        case MapState():
            return compile_map(name, state, compiler)
        case ParallelState():
            return compile_parallel(name, state, compiler)
        case WaitState():
            return compile_wait(name, state, compiler)
        case EndState():
            return compile_end(name, state, compiler)
        case _:
            assert_never(state)


__all__ = ["Compiler", "compile_state"]
