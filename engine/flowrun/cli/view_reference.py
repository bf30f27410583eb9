"""Renders what templates see as Markdown, from the declarations that the machine and the checks read."""

from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

from flowrun.cli.reference import NAMES, render_table
from flowrun.core.shapes import is_view
from flowrun.core.states import KINDS, StateKind
from flowrun.core.views import RequestView, ScopeView, ToolView
from flowrun.spec.json_types import JSON_TYPES
from flowrun.spec.model import Holds
from flowrun.spec.parts import properties_with
from flowrun.templates.extracting import FILTERS

_INTRODUCTION: Final = """\
## What templates see

Templates and expressions of every state see these names. One that has no value yet is not defined: `reply is defined`
is a condition. In a state's `set` and `routes`, its own result is there too. `reply is calling('look_up')`, a test,
says whether a reply calls a tool."""


def render_views() -> str:
    """Render the names that templates see, the members of each, and what differs by the type of the state."""
    views = [*(view for kind in KINDS.values() for view in kind.extra.values()), ToolView, RequestView]
    blocks = [_INTRODUCTION, _members(ScopeView)]
    for view in dict.fromkeys(_views_below(ScopeView, *views)):
        blocks += [f"## {_title(view)}", str(view.__doc__), _members(view)]
    blocks += ["## What templates see, by the type of the state", render_table(_HEADS, list(map(_row, KINDS.values())))]
    filters = [[f"`{one.form}`", one.meaning] for one in FILTERS.values()]
    blocks += [_OF_TOOLS, _OF_SERVE, _OF_FILTERS, render_table(("filter", "gives"), filters)]
    return "\n\n".join(blocks)


_OF_TOOLS: Final = """\
The templates of a tool see what those of the state see that makes the call, with the names of
[tool in templates](#tool-in-templates)."""

_OF_SERVE: Final = """\
The templates of `serve` see `request` only: [request in templates](#request-in-templates)."""

_OF_FILTERS: Final = """\
## Filters in templates

Those of Jinja2, except `pprint`, `random`, `urlize` and `xmlattr`, and these:"""

_HEADS: Final = ("type", "templates and expressions in", "names besides those above", "`outputs.<state>`")


def _row(kind: StateKind[Any]) -> list[str]:
    properties = properties_with(kind.struct, Holds.TEMPLATE, Holds.EXPRESSION)
    extra = [f"in `{name}`: {_link(view)}" for name, view in kind.extra.items()]
    return [f"`{kind.name}`", ", ".join(f"`{name}`" for name in properties), ", ".join(extra), kind.output]


def _members(view: Any) -> str:
    hints = get_type_hints(view, include_extras=True)
    rows = [[f"`{name}`", _words(hint), _meaning(hint)] for name, hint in hints.items()]
    return render_table(("name", "type", "meaning"), rows)


def _views_below(*views: Any) -> Iterator[Any]:
    """Yield the views that the members of views lead to."""
    for view in views:
        if view is not ScopeView:
            yield view
        for hint in get_type_hints(view).values():
            yield from _views_below(*filter(is_view, _types_in(hint)))


def _types_in(hint: Any) -> Iterator[Any]:
    """Yield a type, and the types that it is made of."""
    yield hint
    for arg in get_args(hint):
        yield from _types_in(arg)


def _meaning(hint: Any) -> str:
    return str(get_args(hint)[1]) if get_origin(hint) is Annotated else ""


def _words(hint: Any) -> str:
    """Return a type in words, with links to views."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _words(args[0])
    if origin is list:
        return f"list of {_words(args[0])}"
    if origin is Mapping and any(map(is_view, _types_in(hint))):
        return f"mapping of names to {_words(args[1])}"
    if NoneType in args:
        return " or ".join(map(_words, args))
    if is_view(hint):
        return _link(hint)
    return NAMES[JSON_TYPES[hint]] if hint in JSON_TYPES else "mapping" if origin else "any JSON value"


def _link(view: Any) -> str:
    return f"[{_title(view)}](#{_title(view).replace(' ', '-')})"


def _title(view: Any) -> str:
    return f"{view.__name__.removesuffix('View').lower()} in templates"
