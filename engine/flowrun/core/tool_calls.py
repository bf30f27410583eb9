"""Checks the tool calls of a reply, and begins them. Pure."""

from collections.abc import Mapping
from typing import Any

from flowrun.core.approvals import Approved
from flowrun.core.events import CallFunction
from flowrun.core.messages import ToolCall
from flowrun.core.run import EMPTY, Draft, RunScope
from flowrun.core.state_node import CompiledTool, Graph, StateFailure, Turn
from flowrun.core.views import Value
from flowrun.errors import Failure
from flowrun.excerpts import shortened
from flowrun.spec.model import JSON
from flowrun.spec.strict_json import parse_json


def offered_tools(graph: Graph, run: Draft, thread: str) -> tuple[str, ...]:
    """Return the names of the tools that were last offered on a thread; all tools if no model was asked."""
    asked = run.asked.get(thread)
    return tuple(graph.tools) if asked is None else asked.offered


def prepare_call(
    turn: Turn, offered: tuple[str, ...], index: int, call: ToolCall, approved: Approved | None = None
) -> CallFunction | Value | Failure:
    """Return the effect that makes a call, the value of a call of a tool without a function, or why it is invalid.

    Args:
        approved: the arguments that a person has approved, which need no check.

    Raises:
        StateFailure, TemplateError: see ``hidden_arguments``; the result of a tool without a function cannot be
            rendered.
    """
    run, tools = turn.run, turn.graph.tools
    arguments: Mapping[str, JSON]
    if approved is not None:
        tool, arguments = tools[call.name], {**approved.arguments, **approved.hidden}
    else:
        given = check_call(turn.graph, offered, call)
        if isinstance(given, Failure):
            return given
        tool, arguments = tools[call.name], given
        if tool.hidden is not None:
            arguments = {**given, **hidden_arguments(run, tool, given)}
    if tool.result is not None:
        return Value(arguments, tool.result(scope_of_call(run, call, arguments)))
    return CallFunction(
        step=run.step,
        index=index,
        state=run.state,
        run=run.id,
        entrypoint=tool.entrypoint,
        arguments=arguments,
        timeout=tool.timeout,
        tool=call.name,
        call_id=call.id,
        idempotent=tool.idempotent,
        attempt=run.attempt,
        max_concurrency=tool.max_concurrency,
        isolation=tool.isolation,
    )


def check_call(graph: Graph, offered: tuple[str, ...], call: ToolCall) -> dict[str, JSON] | Failure:
    """Return the arguments that the model gave to a call, or why it is invalid."""
    tool = graph.tools.get(call.name)
    if tool is None or call.name not in offered:
        known = ", ".join(offered) or "none"
        return Failure(name="tool.unknown", message=f"there is no tool {call.name[:80]!r}; there are: {known}")
    try:
        arguments = {} if not call.arguments or call.arguments.isspace() else parse_json(call.arguments)
    except ValueError as exc:
        return Failure(name="tool.invalid_arguments", message=f"the arguments are no JSON: {shortened(str(exc), 400)}")
    if not isinstance(arguments, dict):
        return Failure(name="tool.invalid_arguments", message="the arguments must be a JSON object")
    if (wrong := tool.validate(arguments)) is not None:
        return Failure(name="tool.invalid_arguments", message=wrong)
    if tool.hidden is not None and (given := sorted(tool.hidden.names & arguments.keys())):
        were = "was" if len(given) == 1 else "were"
        message = f"Additional properties are not allowed ({', '.join(map(repr, given))} {were} unexpected)"
        return Failure(name="tool.invalid_arguments", message=message)
    return arguments


def hidden_arguments(run: Draft, tool: CompiledTool, visible: Mapping[str, JSON]) -> Mapping[str, JSON]:
    """Return the arguments that the spec gives to a call.

    Raises:
        StateFailure, TemplateError: they cannot be rendered, or all arguments together do not match the parameters.
    """
    if tool.hidden is None:
        return EMPTY
    arguments: dict[str, JSON] = tool.hidden.render(RunScope(run))
    if (wrong := tool.hidden.validate({**visible, **arguments})) is not None:
        name = tool.declaration.name
        raise StateFailure("template.failed", f"the arguments that the spec gives to {name!r} do not match: {wrong}")
    return arguments


def scope_of_call(run: Draft, call: ToolCall, arguments: Mapping[str, Any]) -> RunScope:
    """Return what the templates of a tool see of a call."""
    return RunScope(run, {"call": {"id": call.id, "name": call.name, "arguments": arguments}})
