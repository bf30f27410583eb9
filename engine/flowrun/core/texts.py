"""Finds every template and expression of a spec, with its place and the moment when it is evaluated."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from flowrun.errors import Path
from flowrun.spec.model import Holds, MessageEntry, Spec, State, Template, WorkingState
from flowrun.spec.parts import parts_of
from flowrun.templates import TemplateError
from flowrun.templates.reads import Reads, reads_of_expression, reads_of_template

Moment = Literal["vars", "threads", "called", "entered", "set", "said", "left", "failed", "served"]


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """A template, or a bare expression.

    Attributes:
        state: the state that it belongs to; empty before the first state, and for those of tools.
        moment: when it is evaluated; those of tools whenever a state makes a call of the tool (``called``),
            those of ``serve`` before there is a run (``served``).
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

    @property
    def is_valid(self) -> bool:
        """Return whether the text is a valid template or expression."""
        try:
            self.reads()
        except TemplateError:
            return False
        return True

    def reads_if_valid(self) -> Reads:
        """Return the names that the text reads; none if it is not valid, which another check reports."""
        try:
            return self.reads()
        except TemplateError:
            return Reads()


def texts_of(spec: Spec) -> Iterator[Text]:
    """Yield every template and expression of a spec."""
    yield from _values(Text(path=("vars",), text="", moment="vars"), spec.vars)
    at = Text(path=("threads",), text="", moment="threads")
    yield from _of_parts(at, spec.threads, kind=Mapping[str, tuple[MessageEntry, ...]])
    for name, tool in spec.tools.items():
        yield from _of_parts(Text(path=("tools", name), text="", moment="called"), tool)
    if spec.serve is not None:
        yield from _of_parts(Text(path=("serve",), text="", moment="served"), spec.serve)
    for name, state in spec.states.items():
        yield from _state(name, state)


def states_of(spec: Spec, text: Text) -> tuple[str, ...]:
    """Return the states in which a text is evaluated; none if it is evaluated before the first one."""
    if text.moment == "called":
        return tuple(name for name, state in spec.states.items() if state.makes_calls)
    return (text.state,) if text.state else ()


def _state(name: str, state: State) -> Iterator[Text]:
    at = Text(path=("states", name), text="", state=name, moment="entered")
    yield from _of_parts(at, state, lambda field: field not in ("set", "say", "routes", "retry", "catch"))
    if not isinstance(state, WorkingState):
        return
    failed = msgspec.structs.replace(at, moment="failed")
    for text in _of_parts(failed, state, lambda field: field in ("retry", "catch")):
        yield msgspec.structs.replace(text, assigned=_assigned_before(state, text.path[2:]))
    assigned: tuple[str, ...] = ()
    for variable, template in state.set.items():
        yield from _values(_below(at, "set", variable, moment="set", assigned=assigned), template)
        assigned = (*assigned, variable)
    said = msgspec.structs.replace(at, moment="said", assigned=assigned)
    yield from _of_parts(said, state, lambda field: field == "say")
    for index, route in enumerate(state.routes):
        if route.when is not None:
            path = ("routes", index, "when")
            yield _below(at, *path, text=route.when, kind="expression", moment="left", assigned=assigned)


def _assigned_before(state: WorkingState, path: Path) -> tuple[str, ...]:
    """Return the variables that a ``catch`` has set before a text in it is evaluated."""
    match path:
        case ("catch", int(index), "set", str(name), *_):
            names = list(state.catch[index].set)
            return tuple(names[: names.index(name)])
        case ("catch", int(index), "say", *_):
            return tuple(state.catch[index].set)
    return ()


def _of_parts(
    at: Text, value: object, is_wanted: Callable[[str], bool] = lambda field: True, kind: Any = None
) -> Iterator[Text]:
    """Yield the expressions and templates in some fields of a struct, or in a value of a type."""
    for role in (Holds.EXPRESSION, Holds.TEMPLATE):
        for part in parts_of(value, role, kind):
            if is_wanted(str(part.path[0])):
                text = _below(at, *part.path, extra=part.names)
                if role is Holds.TEMPLATE:
                    yield from _values(text, part.value)
                elif part.value is not None:
                    yield _below(text, text=part.value, kind="expression")


def _below(at: Text, *keys: str | int, **changes: object) -> Text:
    return msgspec.structs.replace(at, path=(*at.path, *keys), **changes)


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
