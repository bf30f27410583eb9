"""The tools state: its compiler, which chooses how calls are run (``tools_node``, ``approving_tools``)."""

from typing import Final

from flowrun.core.approvals import compile_approval
from flowrun.core.shapes import shape_of
from flowrun.core.states.approving_tools import ApprovingToolsNode
from flowrun.core.states.compiler import Compiler
from flowrun.core.states.kind import Look, StateKind
from flowrun.core.states.tools_node import OrderedToolsNode, ToolsNode
from flowrun.core.views import ResultView
from flowrun.spec.model import MAX_OUTPUT, ToolsState

_MAX_BYTES: Final = 4
"""Bytes of a character in UTF-8, at most."""


def compile_tools(name: str, state: ToolsState, compiler: Compiler) -> ToolsNode:
    """Compile a tools state."""
    fields = compiler.common(name, state) | {
        "thread": state.thread,
        "raises": state.on_error == "raise",
        "uncut": min((tool.max_output for tool in compiler.spec.tools.values()), default=MAX_OUTPUT) // _MAX_BYTES,
    }
    if compiler.spec.asks_about_calls:
        approvals = {
            name: compile_approval(name, tool.approve, compiler.declarations[name].parameters, tool.arguments.keys())
            for name, tool in compiler.spec.tools.items()
            if tool.approve is not None
        }
        return ApprovingToolsNode(max_concurrency=state.max_concurrency, approvals=approvals, **fields)
    if state.max_concurrency is None:
        return ToolsNode(**fields)
    return OrderedToolsNode(max_concurrency=state.max_concurrency, **fields)


KIND: Final = StateKind(
    struct=ToolsState,
    compile=compile_tools,
    output="the results of the calls, as in `results`",
    shape=lambda state, flows: shape_of(list[ResultView]),
    looks={"tools": Look(outline="cut", light=("#fff3dc", "#c98a12"), dark=("#33270e", "#e3b341"))},
)

__all__ = ["KIND", "ToolsNode", "compile_tools"]
