"""The chat state: asks for a reply, and takes none for an answer that was cut off or cannot be read."""

from collections.abc import Mapping
from functools import cache

from flowrun.core.events import AskModel, Event, Failed, Replied
from flowrun.core.graph import ChatNode, Graph
from flowrun.core.machine.replies import check_reply
from flowrun.core.machine.state import PENDING, Next, Run, StateFailure, replace, scope_of
from flowrun.core.machine.strict_json import parse_json, parse_leniently
from flowrun.core.machine.threads import check_answered, with_messages
from flowrun.core.machine.transitions import attempt, fail, leave
from flowrun.core.messages import Message, Reply
from flowrun.core.rendering import with_id
from flowrun.spec.model import JSON


def enter_chat(graph: Graph, run: Run, node: ChatNode) -> Next:
    if node.render:
        run = with_messages(run, node.thread, node.render, scope_of(run))
    return attempt(graph, replace(run, started=1), ask, node)


def ask_again(graph: Graph, run: Run, node: ChatNode) -> Next:
    """Make another attempt: the state's own messages are on the thread already, unless it failed before."""
    return ask(graph, run, node) if run.started else enter_chat(graph, run, node)


def ask(graph: Graph, run: Run, node: ChatNode) -> Next:
    check_answered(run.threads[node.thread])
    if run.rounds >= run.max_rounds:
        raise StateFailure("limit.rounds", f"the run asked the model {run.rounds} times, which is limits.max_rounds")
    asked = run.asked
    if asked.get(node.thread) != node.name:
        asked = {**asked, node.thread: node.name} if asked else _first_asked(node.thread, node.name)
    run = replace(run, rounds=run.rounds + 1, awaiting=(PENDING,), asked=asked)
    ask = AskModel(
        step=run.step,
        state=node.name,
        run=run.id,
        thread=node.thread,
        model=node.model,
        messages=run.threads[node.thread],
        tools=node.tools,
        tool_choice=node.tool_choice,
        sampling=node.sampling,
        response_format=node.response_format,
    )
    return Next(run, (ask,))


@cache
def _first_asked(thread: str, state: str) -> Mapping[str, str]:
    """Give what most runs' ``asked`` ever is, one object for all of them."""
    return {thread: state}


def chat_answered(graph: Graph, run: Run, node: ChatNode, event: Event) -> Next:
    """Take a reply, or the model's failure."""
    if run.awaiting != (PENDING,):
        return Next(run)
    if isinstance(event, Failed):
        return fail(graph, run, event.failure)
    if not isinstance(event, Replied):
        return Next(run)
    run = replace(run, usage=run.usage + event.reply.usage)
    return attempt(graph, run, _leave_chat, node, event.reply)


def _leave_chat(graph: Graph, run: Run, node: ChatNode, reply: Reply) -> Next:
    check_reply(node, reply)
    calls = tuple(with_id(call, number) for number, call in enumerate(reply.tool_calls, run.call_count + 1))
    message = Message(
        role="assistant", content=reply.content, reasoning=reply.reasoning, tool_calls=calls, tokens=reply.tokens
    )
    parsed = _parsed(node, reply) if node.validate is not None and not calls else None
    view = _reply_view(message, reply, parsed)
    threads = {**run.threads, node.thread: run.threads[node.thread].extended((message,))}
    return leave(
        graph,
        run,
        view,
        threads=threads,
        call_count=run.call_count + len(calls),
        reply=view,
        unread=node.name if calls else run.unread,
    )


def _parsed(node: ChatNode, reply: Reply) -> JSON:
    assert node.validate is not None
    try:
        value = parse_json(reply.content or "")
    except ValueError as exc:
        raise StateFailure("model.invalid_output", f"the reply is no JSON: {exc}") from exc
    if (wrong := node.validate(value)) is not None:
        raise StateFailure("model.invalid_output", f"the reply does not match response_format: {wrong}")
    return value


def _reply_view(message: Message, reply: Reply, parsed: JSON) -> dict[str, JSON]:
    """Give a reply as templates see it; arguments that are no JSON stay text."""
    usage = reply.usage
    return {
        "content": message.content,
        "reasoning": message.reasoning,
        "tool_calls": [
            {"id": c.id, "name": c.name, "arguments": parse_leniently(c.arguments)} for c in message.tool_calls
        ],
        "parsed": parsed,
        "finish_reason": reply.finish_reason,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_tokens": usage.cached_tokens,
            "rerendered": usage.rerendered,
        },
    }
