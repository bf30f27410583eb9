"""Renders messages from a spec's templates: calls get ids, and results the ids of their calls. Pure.

Messages that are the same in every run are rendered once, when the spec is compiled, and all runs share them.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from json import dumps
from typing import Final

import msgspec

from flowrun.core.chat_messages import MessagesError, parse_image, parse_messages
from flowrun.core.messages import Image, Message, Role, ToolCall, text_of_parts
from flowrun.excerpts import cut
from flowrun.spec.model import (
    CallTemplate,
    ContentPart,
    MessageEntry,
    MessagesFrom,
    MessageTemplate,
    RepeatedMessages,
    Said,
    Template,
    TextPart,
)
from flowrun.templates import (
    Evaluator,
    Scope,
    TemplateError,
    compile_expression,
    compile_text,
    compile_value,
    has_template,
)

_OWN_ID: Final = re.compile(r"call([0-9]{5})")


class CompiledMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message template. ``calls`` are (id or None, name, arguments as JSON text). ``parts`` take the place of
    ``content`` in a message with images.

    A ``fixed`` message does not depend on the scope. With ``answers_all`` it is said once for each open call.
    """

    role: Role
    content: Callable[[Scope], str] | None
    calls: tuple[tuple[str | None, str, Callable[[Scope], str]], ...] = ()
    tool_call_id: Callable[[Scope], str] | None = None
    answers_all: bool = False
    name: str | None = None
    parts: tuple[Callable[[Scope], str | Image], ...] = ()
    fixed: bool = False


class CompiledRepeat(msgspec.Struct, frozen=True, kw_only=True):
    """Messages for each item of a list, which templates see under the name ``item``."""

    items: Evaluator
    item: str
    messages: tuple[CompiledMessage, ...]


class CompiledFrom(msgspec.Struct, frozen=True, kw_only=True):
    """Messages that are the value of an expression."""

    source: Evaluator


CompiledEntry = CompiledMessage | CompiledRepeat | CompiledFrom


class CompiledSay(msgspec.Struct, frozen=True, kw_only=True):
    """Messages for a thread; with ``replace``, the thread begins anew with them."""

    thread: str
    messages: tuple[CompiledEntry, ...]
    replace: bool = False


class RenderedMessages(msgspec.Struct, frozen=True):
    """Consecutive messages, the number of calls up to their end, and the calls without an answer."""

    messages: tuple[Message, ...] = ()
    call_count: int = 0
    waiting: tuple[ToolCall, ...] = ()


class Prologue(msgspec.Struct, frozen=True):
    """The first messages of a thread: ``ready`` ones, the same in every run, then ``others``, rendered in each run.

    Whether those are a conversation must be ``checked`` in each run if they hold values that are messages.
    """

    ready: RenderedMessages
    others: tuple[CompiledEntry, ...]
    checked: bool = False


def compile_entry(entry: MessageEntry) -> CompiledEntry:
    """Compile an entry of ``messages``."""
    if isinstance(entry, RepeatedMessages):
        messages = tuple(map(compile_message, entry.messages))
        return CompiledRepeat(items=compile_expression(entry.for_each), item=entry.item, messages=messages)
    if isinstance(entry, MessagesFrom):
        return CompiledFrom(source=compile_expression(entry.source))
    return compile_message(entry)


def compile_message(message: MessageTemplate) -> CompiledMessage:
    """Compile a message template."""
    content, parts = (None, message.content) if isinstance(message.content, tuple) else (message.content, ())
    texts = [content, message.tool_call_id, *map(_template_of, parts), *(call.arguments for call in message.tool_calls)]
    return CompiledMessage(
        role=message.role,
        content=None if content is None else compile_text(content),
        parts=tuple(map(_compile_part, parts)),
        calls=tuple(map(_compile_call, message.tool_calls)),
        tool_call_id=None if message.tool_call_id is None else compile_text(message.tool_call_id),
        answers_all=message.answers == "all",
        name=message.name,
        fixed=all(map(_is_fixed, texts)),
    )


def _template_of(part: ContentPart) -> str:
    return part.text if isinstance(part, TextPart) else part.image


def _compile_part(part: ContentPart) -> Callable[[Scope], str | Image]:
    evaluate = compile_text(_template_of(part))
    if isinstance(part, TextPart):
        return evaluate
    if not has_template(part.image):
        image = Image(part.image)
        return lambda scope: image
    return lambda scope: _image(evaluate(scope))


def _image(uri: str) -> Image:
    try:
        return parse_image(uri, "content")
    except MessagesError as exc:
        raise TemplateError(str(exc)) from exc


def compile_say(entries: Iterable[MessageEntry | Said], thread: str) -> tuple[CompiledSay, ...]:
    """Compile the entries of a ``say``; those that name no thread are for ``thread``."""
    said: list[CompiledSay] = []
    for entry in entries:
        if isinstance(entry, Said):
            messages = tuple(map(compile_entry, entry.messages))
            said.append(CompiledSay(thread=entry.thread or thread, messages=messages, replace=entry.replace))
        else:
            said.append(CompiledSay(thread=thread, messages=(compile_entry(entry),)))
    return tuple(said)


def compile_prologues(threads: Mapping[str, Iterable[MessageEntry]]) -> dict[str, Prologue]:
    """Compile the first messages of threads. Their calls are counted in the order of the threads."""
    prologues = {}
    count = 0
    for thread, entries in threads.items():
        compiled = tuple(map(compile_entry, entries))
        leading = next((index for index, one in enumerate(compiled) if not _is_ready(one)), len(compiled))
        prologues[thread] = Prologue(
            render(compiled[:leading], {}, RenderedMessages(call_count=count)),
            compiled[leading:],
            any(isinstance(one, CompiledFrom) for one in compiled),
        )
        count += sum(len(one.calls) for one in compiled if isinstance(one, CompiledMessage))
    return prologues


def _is_ready(entry: CompiledEntry) -> bool:
    return isinstance(entry, CompiledMessage) and entry.fixed


def render(entries: Iterable[CompiledEntry], scope: Scope, after: RenderedMessages) -> RenderedMessages:
    """Render messages after others. A tool message without an id answers the oldest call without an answer.

    Raises:
        TemplateError: a template cannot be evaluated, or ``for_each`` gives no list.
        MessagesError: the value of a ``from`` is no list of messages.
    """
    rendering = _Rendering(list(after.messages), after.call_count, list(after.waiting))
    for entry in entries:
        if isinstance(entry, CompiledMessage):
            rendering.say(entry, scope)
        elif isinstance(entry, CompiledRepeat):
            rendering.repeat(entry, scope)
        else:
            for message in parse_messages(entry.source(scope)):
                rendering.add(message)
    return RenderedMessages(tuple(rendering.messages), rendering.call_count, tuple(rendering.waiting))


class _Rendering(msgspec.Struct):
    """The messages so far, the number of calls, and the calls without an answer."""

    messages: list[Message]
    call_count: int
    waiting: list[ToolCall]

    def say(self, template: CompiledMessage, scope: Scope) -> None:
        """Add a message that is written in the spec."""
        calls = tuple(
            ToolCall(id=call_id or "", name=name, arguments=arguments(scope))
            for call_id, name, arguments in template.calls
        )
        parts = tuple(part(scope) for part in template.parts)
        text = text_of_parts(parts) if parts else None if template.content is None else template.content(scope)
        message = Message(
            role=template.role,
            content=text,
            parts=parts if any(isinstance(part, Image) for part in parts) else (),
            tool_calls=calls,
            tool_call_id=None if template.tool_call_id is None else template.tool_call_id(scope) or None,
            name=template.name,
        )
        for _ in range(len(self.waiting)) if template.answers_all else (None,):
            self.add(message)

    def repeat(self, entry: CompiledRepeat, scope: Scope) -> None:
        """Add messages for each item of a list."""
        items = entry.items(scope)
        if not isinstance(items, (list, tuple)):
            raise TemplateError(f"for_each gave {cut(repr(items), 80)}, which is no list")
        around = dict(scope)
        for index, item in enumerate(items):
            for template in entry.messages:
                self.say(template, {**around, entry.item: item, "index": index})

    def add(self, message: Message) -> None:
        """Add a message; its calls and its answer get the ids that they lack."""
        if message.tool_calls:
            calls = with_ids(message.tool_calls, self.call_count)
            message = msgspec.structs.replace(message, tool_calls=calls)
            self.waiting.extend(calls)
            self.call_count = max(self.call_count + len(calls), *map(_number_of, calls))
        elif message.role == "tool":
            message = self._answer(message)
        self.messages.append(message)

    def _answer(self, message: Message) -> Message:
        named = message.tool_call_id
        call = next((call for call in self.waiting if named in (None, call.id)), None)
        if call is None:
            return message
        self.waiting.remove(call)
        return msgspec.structs.replace(message, tool_call_id=call.id, name=message.name or call.name)


def _number_of(call: ToolCall) -> int:
    """Return the number in an id of a call if it has the form of our own ids: later ones are to be others."""
    own = _OWN_ID.fullmatch(call.id)
    return int(own[1]) if own else 0


def with_ids(calls: tuple[ToolCall, ...], count: int) -> tuple[ToolCall, ...]:
    """Return the calls of one message, with a new id for each that has none, or that of an earlier one.

    All calls are answered before anything else is said, so an id need not differ from those of other messages.

    Args:
        count: the number of calls before them in the run.
    """
    if len(calls) == 1 and calls[0].id:
        return calls
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
        text = dumps(evaluate({}), ensure_ascii=False)
        return call.id, call.name, lambda scope: text
    return call.id, call.name, lambda scope: dumps(evaluate(scope), ensure_ascii=False)


def _is_fixed(template: Template) -> bool:
    if isinstance(template, str):
        return not has_template(template)
    if isinstance(template, Mapping):
        return all(map(_is_fixed, template.values()))
    return not isinstance(template, Sequence) or all(map(_is_fixed, template))
