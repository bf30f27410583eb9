"""Finds every template and expression of a spec, with its place and the moment when it is evaluated."""

from collections.abc import Iterator, Mapping
from typing import Literal, assert_never

import msgspec

from flowrun.errors import Path
from flowrun.spec.model import (
    CallState,
    ChatState,
    EndState,
    FlowState,
    MapState,
    MessageTemplate,
    ParallelState,
    RouteState,
    Spec,
    State,
    Template,
    ToolsState,
    WaitState,
)
from flowrun.templates import TemplateError
from flowrun.templates.reads import Reads, reads_of_expression, reads_of_template

Moment = Literal["vars", "threads", "entered", "set", "left"]


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """A template, or a bare expression.

    Attributes:
        state: the state that it belongs to; empty before the first state.
        moment: when it is evaluated.
        extra: names that are in scope in addition to the usual ones.
        assigned: the variables that the state has set before it is evaluated.
    """

    path: Path
    text: str
    kind: Literal["template", "expression"] = "template"
    state: str = ""
    moment: Moment
    extra: frozenset[str] = frozenset()
    assigned: tuple[str, ...] = ()

    def reads(self) -> Reads:
        """Return the names that the text reads.

        Raises:
            TemplateError: the text is not valid.
        """
        return reads_of_expression(self.text) if self.kind == "expression" else reads_of_template(self.text)

    def reads_if_valid(self) -> Reads:
        """Return the names that the text reads; none if it is not valid, which another check reports."""
        try:
            return self.reads()
        except TemplateError:
            return Reads()


def texts_of(spec: Spec) -> Iterator[Text]:
    """Yield every template and expression of a spec."""
    yield from _values(Text(path=("vars",), text="", moment="vars"), spec.vars)
    for thread, messages in spec.threads.items():
        yield from _messages(Text(path=("threads", thread), text="", moment="threads"), messages)
    for name, state in spec.states.items():
        yield from _state(name, state)


def _state(name: str, state: State) -> Iterator[Text]:
    at = Text(path=("states", name), text="", state=name, moment="entered")
    match state:
        case EndState():
            yield from _values(_below(at, "output"), state.output)
            return
        case ChatState():
            yield from _messages(_below(at, "messages"), state.messages)
        case CallState() | FlowState():
            yield from _values(_below(at, "with"), state.arguments)
        case MapState():
            yield _below(at, "for_each", text=state.for_each, kind="expression")
            yield from _values(_below(at, "with", extra=frozenset({state.item, "index"})), state.arguments)
        case ParallelState():
            for key, branch in state.branches.items():
                yield from _values(_below(at, "branches", key, "with"), branch.arguments)
        case WaitState():
            yield from _values(_below(at, "prompt"), state.prompt)
        case ToolsState() | RouteState():
            pass
        case _:
            assert_never(state)
    assigned: tuple[str, ...] = ()
    for variable, template in state.set.items():
        yield from _values(_below(at, "set", variable, moment="set", assigned=assigned), template)
        assigned = (*assigned, variable)
    for index, route in enumerate(state.routes):
        if route.when is not None:
            path = ("routes", index, "when")
            yield _below(at, *path, text=route.when, kind="expression", moment="left", assigned=assigned)


def _below(at: Text, *keys: str | int, **changes: object) -> Text:
    return msgspec.structs.replace(at, path=(*at.path, *keys), **changes)


def _messages(at: Text, messages: tuple[MessageTemplate, ...]) -> Iterator[Text]:
    for index, message in enumerate(messages):
        yield from _values(_below(at, index, "content"), message.content)
        yield from _values(_below(at, index, "tool_call_id"), message.tool_call_id)
        for number, call in enumerate(message.tool_calls):
            yield from _values(_below(at, index, "tool_calls", number, "arguments"), call.arguments)


def _values(at: Text, value: Template) -> Iterator[Text]:
    if isinstance(value, str):
        if "{" in value:
            yield _below(at, text=value)
    elif isinstance(value, Mapping):
        for key, member in value.items():
            yield from _values(_below(at, key), member)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _values(_below(at, index), item)
