"""Renders messages from a spec's templates: calls get ids, and results the ids of their calls. Pure.

Messages that are the same in every run are rendered once, when the spec is compiled, and all runs share them.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from flowrun.core.messages import Message, Role, ToolCall
from flowrun.spec.model import CallTemplate, MessageTemplate, Template
from flowrun.templates import Scope, compile_text, compile_value, has_template


class CompiledMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message template. ``calls`` are (id or None, name, arguments as JSON text).

    A ``fixed`` message does not depend on the scope.
    """

    role: Role
    content: Callable[[Scope], str] | None
    calls: tuple[tuple[str | None, str, Callable[[Scope], str]], ...] = ()
    tool_call_id: Callable[[Scope], str] | None = None
    name: str | None = None
    fixed: bool = False


class RenderedMessages(msgspec.Struct, frozen=True):
    """Consecutive messages, the number of calls up to their end, and the calls without an answer."""

    messages: tuple[Message, ...] = ()
    call_count: int = 0
    waiting: tuple[ToolCall, ...] = ()


class Prologue(msgspec.Struct, frozen=True):
    """The first messages of a thread: ``ready`` ones, the same in every run, then ``others``, rendered in each run."""

    ready: RenderedMessages
    others: tuple[CompiledMessage, ...]


def compile_message(message: MessageTemplate) -> CompiledMessage:
    """Compile a message template."""
    texts = [message.content, message.tool_call_id, *(call.arguments for call in message.tool_calls)]
    return CompiledMessage(
        role=message.role,
        content=None if message.content is None else compile_text(message.content),
        calls=tuple(map(_compile_call, message.tool_calls)),
        tool_call_id=None if message.tool_call_id is None else compile_text(message.tool_call_id),
        name=message.name,
        fixed=all(map(_is_fixed, texts)),
    )


def compile_prologues(threads: Mapping[str, Iterable[MessageTemplate]]) -> dict[str, Prologue]:
    """Compile the first messages of threads. Their calls are counted in the order of the threads."""
    prologues = {}
    count = 0
    for thread, templates in threads.items():
        compiled = tuple(map(compile_message, templates))
        leading = next((index for index, one in enumerate(compiled) if not one.fixed), len(compiled))
        prologues[thread] = Prologue(
            render(compiled[:leading], {}, RenderedMessages(call_count=count)), compiled[leading:]
        )
        count += sum(len(one.calls) for one in compiled)
    return prologues


def render(templates: Iterable[CompiledMessage], scope: Scope, after: RenderedMessages) -> RenderedMessages:
    """Render messages after others. A tool message without an id answers the oldest call without an answer."""
    messages = list(after.messages)
    count = after.call_count
    waiting = list(after.waiting)
    for template in templates:
        calls = []
        for call_id, name, arguments in template.calls:
            count += 1
            calls.append(with_id(ToolCall(id=call_id or "", name=name, arguments=arguments(scope)), count))
        waiting.extend(calls)
        messages.append(_message(template, tuple(calls), waiting, scope))
    return RenderedMessages(tuple(messages), count, tuple(waiting))


def _message(template: CompiledMessage, calls: tuple[ToolCall, ...], waiting: list[ToolCall], scope: Scope) -> Message:
    named = None if template.tool_call_id is None else template.tool_call_id(scope)
    answers = None
    if template.role == "tool":
        answers = next((call for call in waiting if named in (None, call.id)), None)
        if answers is not None:
            waiting.remove(answers)
    return Message(
        role=template.role,
        content=None if template.content is None else template.content(scope),
        tool_calls=calls,
        tool_call_id=named or (answers.id if answers else None),
        name=template.name or (answers.name if answers else None),
    )


def with_id(call: ToolCall, number: int) -> ToolCall:
    """Return a call with an id: nine letters and digits, the only form that every model family accepts."""
    return call if call.id else ToolCall(id=f"call{number:05d}", name=call.name, arguments=call.arguments)


def with_ids(calls: tuple[ToolCall, ...], count: int) -> tuple[ToolCall, ...]:
    """Return calls, with a new id for each that has none. ``count`` is the number of calls before them in the run."""
    for call in calls:
        if not call.id:
            return tuple(with_id(one, number) for number, one in enumerate(calls, count + 1))
    return calls


def _compile_call(call: CallTemplate) -> tuple[str | None, str, Callable[[Scope], str]]:
    evaluate = compile_value(call.arguments)
    if _is_fixed(call.arguments):
        text = json.dumps(evaluate({}), ensure_ascii=False)
        return call.id, call.name, lambda scope: text
    return call.id, call.name, lambda scope: json.dumps(evaluate(scope), ensure_ascii=False)


def _is_fixed(template: Template) -> bool:
    if isinstance(template, str):
        return not has_template(template)
    if isinstance(template, Mapping):
        return all(map(_is_fixed, template.values()))
    return not isinstance(template, Sequence) or all(map(_is_fixed, template))
