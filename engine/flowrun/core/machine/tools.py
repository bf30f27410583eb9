"""The tools state: checks each call of the last reply, runs the good ones, tells the model of the bad ones.

A call that succeeded is never made again for the same message: not by a retry, nor by a state that comes back to it.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from flowrun.core.events import CallFunction, Effect, Event, Failed, Returned
from flowrun.core.graph import ChatNode, Graph, ToolsNode
from flowrun.core.machine.state import PENDING, Next, Run, Value, replace, take
from flowrun.core.machine.strict_json import parse_json, parse_leniently
from flowrun.core.machine.threads import last_calls
from flowrun.core.machine.transitions import attempt, fail, leave
from flowrun.core.messages import Message, ToolCall
from flowrun.errors import Failure
from flowrun.spec.model import JSON

_encode = json.JSONEncoder(ensure_ascii=False).encode
ANSWERED: Final = ("answered",)
"""Stands in ``Run.awaiting`` for a call that a message of the thread answers already."""

_PLAIN: Final = frozenset({int, float})
"""Numbers are written as Python shows them, and a JSON value's numbers are finite: no encoder is needed."""


def enter_tools(graph: Graph, run: Run, node: ToolsNode) -> Next:
    """Check every call before any of them runs."""
    last = last_calls(run.threads[node.thread])
    offered = _offered(graph, run, node.thread)
    made = run.made.get(node.thread)
    answers: list[Any] = list(made.values) if made is not None and made.at == last.at else [PENDING] * len(last.calls)
    effects: list[Effect] = []
    for index, call in enumerate(last.calls):
        if index in last.answered:
            answers[index] = ANSWERED
        elif answers[index] is PENDING:
            checked = _check_call(graph, offered, call)
            if isinstance(checked, Failure):
                answers[index] = checked
            else:
                effects.append(_call_tool(graph, run, index, call, checked))
    run = replace(run, awaiting=tuple(answers), left=len(effects), unread="")
    return Next(run, tuple(effects)) if effects else _leave_tools(graph, run, node)


def _check_call(graph: Graph, offered: tuple[str, ...], call: ToolCall) -> dict[str, JSON] | Failure:
    """Give a call's arguments, or the failure that the model is told of instead of a result."""
    tool = graph.tools.get(call.name)
    if tool is None or call.name not in offered:
        known = ", ".join(offered) or "none"
        return Failure(name="tool.unknown", message=f"there is no tool {call.name[:80]!r}; there are: {known}")
    try:
        arguments = parse_json(call.arguments) if call.arguments.strip() else {}
    except ValueError as exc:
        return Failure(name="tool.invalid_arguments", message=f"the arguments are no JSON: {exc}")
    if not isinstance(arguments, dict):
        return Failure(name="tool.invalid_arguments", message="the arguments must be a JSON object")
    if (wrong := tool.validate(arguments)) is not None:
        return Failure(name="tool.invalid_arguments", message=wrong)
    return arguments


def _offered(graph: Graph, run: Run, thread: str) -> tuple[str, ...]:
    """Give the names of the tools that the thread's last chat state offered; all, if the calls were written by hand."""
    node = graph.nodes[run.asked[thread]] if thread in run.asked else None
    return node.offered if isinstance(node, ChatNode) else tuple(graph.tools)


def _call_tool(graph: Graph, run: Run, index: int, call: ToolCall, arguments: Mapping[str, JSON]) -> CallFunction:
    tool = graph.tools[call.name]
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
    )


def tools_answered(graph: Graph, run: Run, node: ToolsNode, event: Event) -> Next:
    """Take one call's value or failure; the state is left when all are there."""
    if isinstance(event, Returned):
        taken = take(run, event.index, Value(event.value))
    elif isinstance(event, Failed):
        taken = take(run, event.index, event.failure)
    else:
        return Next(run)
    if taken is None:
        return Next(run)
    return Next(taken) if taken.left else attempt(graph, taken, _leave_tools, node)


def _leave_tools(graph: Graph, run: Run, node: ToolsNode) -> Next:
    """Append the results to the thread in the order of the calls, whatever order they came in."""
    if node.raises:
        for answer in run.awaiting:
            if isinstance(answer, Failure):
                return fail(graph, run, answer)
    thread = run.threads[node.thread]
    calls = last_calls(thread).calls
    pairs = [(call, answer) for call, answer in zip(calls, run.awaiting, strict=True) if answer is not ANSWERED]
    messages = [
        Message(role="tool", content=_result_text(answer), tool_call_id=call.id, name=call.name)
        for call, answer in pairs
    ]
    results = [_result_view(call, answer) for call, answer in pairs]
    threads = {**run.threads, node.thread: thread.extended(messages)}
    if node.thread in run.made:
        run = replace(run, made={thread: made for thread, made in run.made.items() if thread != node.thread})
    return leave(graph, run, results, threads=threads, results=results)


def _result_text(answer: Value | Failure) -> str:
    if isinstance(answer, Failure):
        return f"error: {answer.name}: {answer.message}"
    value = answer.value
    if isinstance(value, str):
        return value
    return repr(value) if type(value) in _PLAIN else _encode(value)


def _result_view(call: ToolCall, answer: Value | Failure) -> dict[str, JSON]:
    value, error = None, None
    if isinstance(answer, Failure):
        error = {"name": answer.name, "message": answer.message}
    else:
        value = answer.value
    arguments = parse_leniently(call.arguments)
    return {"id": call.id, "name": call.name, "arguments": arguments, "value": value, "error": error}
