"""Messages onto threads: a spec's templates rendered, calls given ids."""

import json
from collections.abc import Iterable

from flowrun.graph import CompiledMessage
from flowrun.machine.run import Run, replace
from flowrun.messages import Log, Message, ToolCall
from flowrun.templates import Scope


def with_messages(run: Run, thread: str, templates: Iterable[CompiledMessage], scope: Scope) -> Run:
    """Render messages onto a thread. A tool message without an id answers the oldest call still open."""
    log = run.threads.get(thread, Log())
    messages: list[Message] = []
    count = run.call_count
    waiting: list[ToolCall] = []
    for template in templates:
        calls = []
        for call_id, name, arguments in template.calls:
            count += 1
            text = json.dumps(arguments(scope), ensure_ascii=False)
            calls.append(identified(ToolCall(id=call_id or "", name=name, arguments=text), count))
        waiting.extend(calls)
        messages.append(_message(template, tuple(calls), waiting, scope))
    return replace(run, threads={**run.threads, thread: log.extended(messages)}, call_count=count)


def _message(template: CompiledMessage, calls: tuple[ToolCall, ...], waiting: list[ToolCall], scope: Scope) -> Message:
    answers = None
    if template.role == "tool" and waiting:
        answers = next((call for call in waiting if call.id == template.tool_call_id), waiting[0])
        waiting.remove(answers)
    return Message(
        role=template.role,
        content=None if template.content is None else template.content(scope),
        tool_calls=calls,
        tool_call_id=template.tool_call_id or (answers.id if answers else None),
        name=template.name or (answers.name if answers else None),
    )


def identified(call: ToolCall, number: int) -> ToolCall:
    """Give a call an id if it has none: nine letters and digits, the one form that every model family takes."""
    return call if call.id else ToolCall(id=f"call{number:05d}", name=call.name, arguments=call.arguments)
