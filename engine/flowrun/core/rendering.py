"""Renders messages from a spec's templates: calls get ids, and results the ids of their calls. Pure.

Messages that are the same in every run are rendered once, when the spec is compiled, and all runs share them.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

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
        written = (
            ToolCall(id=call_id or "", name=name, arguments=arguments(scope))
            for call_id, name, arguments in template.calls
        )
        calls = with_ids(tuple(written), count)
        count += len(calls)
        waiting.extend(calls)
        messages.append(_message(template, calls, waiting, scope))
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


def with_ids(calls: tuple[ToolCall, ...], count: int) -> tuple[ToolCall, ...]:
    """Return the calls of one message, with a new id for each that has none, or that of an earlier one.

    All calls are answered before anything else is said, so an id need not differ from those of other messages.

    Args:
        count: the number of calls before them in the run.
    """
    taken = {call.id for call in calls}
    if len(taken) == len(calls) and "" not in taken:
        return calls
    kept: set[str] = set()
    named = []
    for number, call in enumerate(calls, count + 1):
        if not call.id or call.id in kept:
            call = msgspec.structs.replace(call, id=_new_id(number, taken, len(calls)))
            taken.add(call.id)
        kept.add(call.id)
        named.append(call)
    return tuple(named)


def _new_id(number: int, taken: Collection[str], step: int) -> str:
    """Return nine letters and digits, the only form that every model family accepts."""
    while (new := f"call{number:05d}") in taken:
        number += step
    return new


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
