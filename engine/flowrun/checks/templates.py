"""FR4xx: templates and expressions are Jinja2, and the names in them exist. They are parsed here, never evaluated."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal, NamedTuple

from flowrun.checks.subject import Subject
from flowrun.errors import Issue, Path
from flowrun.loading.suggestions import suggest
from flowrun.spec import (
    Call,
    Chat,
    End,
    Flow,
    Map,
    MessageTemplate,
    Parallel,
    Spec,
    State,
    Template,
    Wait,
)
from flowrun.templates import Names, TemplateError, names_in_expression, names_in_template

_NAMES: Final = frozenset({"inputs", "vars", "reply", "results", "outputs", "error", "run"})


class _Text(NamedTuple):
    """A text of the spec that is a template, or a bare expression; ``extra`` names are in scope beside the usual."""

    path: Path
    text: str
    kind: Literal["template", "expression"]
    extra: frozenset[str] = frozenset()


def check_templates(subject: Subject) -> Iterator[Issue]:
    """Find what is no Jinja2, and names that no template of this spec can see."""
    members = _members(subject.spec)
    for text in _texts(subject.spec):
        if text.kind == "expression" and ("{{" in text.text or "{%" in text.text):
            remedy = "write the expression without braces, such as when: reply.tool_calls"
            yield subject.issue("FR403", text.path, f"{text.text!r} has braces, and is an expression already", remedy)
            continue
        try:
            read = names_in_expression if text.kind == "expression" else names_in_template
            names = read(text.text)
        except TemplateError as exc:
            yield subject.issue("FR401", text.path, str(exc), "see the Jinja2 template language")
            continue
        yield from _unknown(subject, text, names, members)


def _unknown(subject: Subject, text: _Text, names: Names, members: Mapping[str, Iterable[str]]) -> Iterator[Issue]:
    for name in sorted(names.roots - _NAMES - text.extra):
        remedy = suggest(name, _NAMES | text.extra, "names")
        if name in subject.spec.inputs:
            remedy = f"did you mean inputs.{name}?"
        yield subject.issue("FR402", text.path, f"the name {name!r} is not defined in {text.text!r}", remedy)
    for root, member in sorted(names.members):
        if root in members and member not in members[root]:
            message = f"{root}.{member} is not defined in {text.text!r}"
            yield subject.issue("FR404", text.path, message, suggest(member, members[root], f"members of {root}"))


def _members(spec: Spec) -> Mapping[str, Iterable[str]]:
    """Give the members that each name can have, whatever path a run takes."""
    set_somewhere = {name for state in spec.states.values() if not isinstance(state, End) for name in state.set}
    return {
        "inputs": set(spec.inputs),
        "vars": {*spec.vars, *set_somewhere},
        "outputs": {name for name, state in spec.states.items() if not isinstance(state, End)},
        "reply": {"content", "reasoning", "tool_calls", "parsed", "finish_reason", "usage"},
        "error": {"name", "message", "state"},
        "run": {"id", "state", "step", "rounds", "attempt"},
    }


def _texts(spec: Spec) -> Iterator[_Text]:
    yield from _values(("vars",), spec.vars)
    for thread, messages in spec.threads.items():
        yield from _messages(("threads", thread), messages)
    for name, state in spec.states.items():
        yield from _state(("states", name), state)


def _state(path: Path, state: State) -> Iterator[_Text]:
    if isinstance(state, End):
        yield from _values((*path, "output"), state.output)
        return
    yield from _values((*path, "set"), state.set)
    for index, route in enumerate(state.routes):
        if route.when is not None:
            yield _Text((*path, "routes", index, "when"), route.when, "expression")
    match state:
        case Chat():
            yield from _messages((*path, "messages"), state.messages)
        case Call() | Flow():
            yield from _values((*path, "with"), state.arguments)
        case Map():
            yield _Text((*path, "for_each"), state.for_each, "expression")
            yield from _values((*path, "with"), state.arguments, frozenset({state.item, "index"}))
        case Parallel():
            for name, branch in state.branches.items():
                yield from _values((*path, "branches", name, "with"), branch.arguments)
        case Wait():
            yield from _values((*path, "prompt"), state.prompt)


def _messages(path: Path, messages: tuple[MessageTemplate, ...]) -> Iterator[_Text]:
    for index, message in enumerate(messages):
        yield from _values((*path, index, "content"), message.content)
        for number, call in enumerate(message.tool_calls):
            yield from _values((*path, index, "tool_calls", number, "arguments"), call.arguments)


def _values(path: Path, value: Template, extra: frozenset[str] = frozenset()) -> Iterator[_Text]:
    if isinstance(value, str):
        if "{" in value:
            yield _Text(path, value, "template", extra)
    elif isinstance(value, Mapping):
        for key, member in value.items():
            yield from _values((*path, key), member, extra)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _values((*path, index), item, extra)
