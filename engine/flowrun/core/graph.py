"""Compiles a spec: flat tables for the machine, edges for analysis. Evaluates nothing.

Templates become functions, names become references, schemas become validators. A reference to a missing part raises
``KeyError``, so a spec is checked first.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import msgspec

from flowrun.core.call_handling import find_call_handling
from flowrun.core.events import ToolDeclaration
from flowrun.core.json_schema import Validator, compile_inputs, compile_schema
from flowrun.core.rendering import compile_prologues
from flowrun.core.state_node import CompiledTool, Graph, HiddenArguments, StateNode
from flowrun.core.states import Compiler, compile_state
from flowrun.spec.hidden_arguments import without_arguments
from flowrun.spec.model import MAIN, Spec, Tool, WorkingState
from flowrun.templates import compile_assignments, compile_text, compile_value


def compile_graph(
    spec: Spec,
    *,
    declarations: Mapping[str, ToolDeclaration],
    flows: Mapping[str, Graph] = MappingProxyType({}),
    backends: Mapping[str, str] = MappingProxyType({}),
) -> Graph:
    """Compile a checked spec.

    Args:
        declarations: the tools in the form that models receive, by name, with the arguments that are hidden from them.
        flows: the compiled sub-flows, by the references to them in the spec.
        backends: the names of the models' backends, by model, where the two names differ.

    Raises:
        TemplateError: a template is not valid Jinja2.
    """
    handling = find_call_handling(spec)
    tools = {name: _compile_tool(spec, tool, declarations[name]) for name, tool in spec.tools.items()}
    seen = {name: tool.declaration for name, tool in tools.items()}
    compiler = Compiler(spec=spec, declarations=seen, backends=backends, handling=handling)
    return Graph(
        spec=spec,
        start=spec.start,
        flows=flows,
        nodes={name: compile_state(name, state, compiler) for name, state in spec.states.items()},
        tools=tools,
        threads=compile_prologues({MAIN: (), **spec.threads}),
        variables=compile_assignments(spec.vars),
        inputs=compile_inputs(spec),
        limits=spec.limits,
    )


def _compile_tool(spec: Spec, tool: Tool, declared: ToolDeclaration) -> CompiledTool:
    declaration = msgspec.structs.replace(
        declared, parameters=without_arguments(declared.parameters, tool.arguments.keys())
    )
    return CompiledTool(
        declaration=declaration,
        declared=declared,
        entrypoint=tool.entrypoint or "",
        result=None if tool.result is None else compile_text(tool.result),
        timeout=tool.timeout,
        idempotent=tool.idempotent,
        max_output=tool.max_output,
        max_concurrency=tool.max_concurrency,
        isolation=spec.isolation_of(tool),
        validate=compile_schema(declaration.parameters),
        hidden=None if not tool.arguments else _compile_hidden(tool, declared),
    )


def _compile_hidden(tool: Tool, declared: ToolDeclaration) -> HiddenArguments:
    return HiddenArguments(
        names=frozenset(tool.arguments),
        render=compile_value(tool.arguments),
        validate=compile_schema(declared.parameters),
    )


# --- for analysis -------------------------------------------------------------------------------------------------


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """An edge between two states of a spec; ``label`` is the condition or the caught errors, ``path`` its place."""

    source: str
    target: str
    kind: str
    label: str
    path: tuple[str | int, ...]


def edges(spec: Spec) -> Iterator[Edge]:
    """Yield every edge between states in the order of the spec, those to missing states included."""
    for name, state in spec.states.items():
        if isinstance(state, WorkingState):
            yield from _state_edges(name, state)


def _state_edges(name: str, state: WorkingState) -> Iterator[Edge]:
    for index, route in enumerate(state.routes):
        path = ("states", name, "routes", index, "to")
        yield Edge(source=name, target=route.to, kind="route", label=route.when or "", path=path)
    for index, catch in enumerate(state.catch):
        path = ("states", name, "catch", index, "to")
        yield Edge(source=name, target=catch.to, kind="catch", label=catch.label, path=path)


__all__ = ["Edge", "Graph", "StateNode", "Validator", "compile_graph", "compile_schema", "edges"]
