"""The Jinja2 environment of all templates: immutable, strict, with costs bounded by ``limits``.

Each operation whose result can be much larger than its input spends units first. For loops, literals and comparisons,
the template's tree is rewritten; operators and calls are intercepted; ``filters`` wraps the filters. Compiling does not
fold constants, so it evaluates nothing.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from jinja2 import StrictUndefined, Undefined, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from flowrun.templates.filters import bounded_filters, bounded_tests, check_format, replaced_length
from flowrun.templates.limits import (
    TemplateError,
    add,
    check_length,
    check_operands,
    check_weight,
    compared,
    counted,
    spend,
)
from flowrun.templates.writing import as_text, concatenate

_TAGS: Final[dict[type[nodes.Node], str]] = {
    nodes.Extends: "extends",
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "from",
    nodes.Block: "block",
    nodes.ScopedEvalContextModifier: "autoescape",
}
"""Tags that are refused, because a template cannot read other templates and its text is not HTML."""

_NO_METHODS: Final = frozenset({"encode", "translate", "maketrans", "expandtabs", "fromkeys"})
_PADDING: Final = frozenset({"center", "ljust", "rjust", "zfill"})


_DATA: Final = (Mapping, list, tuple, str, int, float, type(None))
"""The types of plain data."""

_METHOD: Final = "(method) "
"""Marks the name of a method that is called; no template can write such a name."""


class Missing(StrictUndefined):
    """An undefined value whose error message lists the existing members."""

    @property
    def _undefined_message(self) -> str:
        if isinstance(self._undefined_obj, Mapping):
            known = ", ".join(map(str, self._undefined_obj)) or "none"
            return f"there is no member {self._undefined_name!r}; there are: {known}"
        return str(super()._undefined_message)


class SpecEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox. A value's methods are no members of it: they are found only where they are called.

    A member takes precedence over a method, so an input named ``items`` can be read; if there is none, it is missing.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        name = attribute.removeprefix(_METHOD)
        if isinstance(obj, Mapping) and name in obj:
            return obj[name]
        if isinstance(obj, _DATA) and name == attribute and not name.startswith("_"):
            return self.undefined(obj=obj, name=name)
        return super().getattr(obj, name)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if not isinstance(obj, _DATA):
            return super().getitem(obj, argument)
        try:
            return obj[argument]  # type: ignore[index]  # some have no items
        except (TypeError, LookupError):
            return self.undefined(obj=obj, name=argument)

    def wrap_str_format(self, value: Any) -> Callable[..., Any] | None:
        formatted = super().wrap_str_format(value)
        if formatted is None:
            return None

        def metered(*args: Any, **kwargs: Any) -> Any:
            values = args[0].values() if value.__name__ == "format_map" and args else args
            check_format(value.__self__, [*values, *kwargs.values()])
            return formatted(*args, **kwargs)

        return metered

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+":
            return add(left, right)
        check_operands(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(__obj, LoopContext):  # a recursive loop
            spend(100)
            args = (counted(args[0], 10), *args[1:]) if args else args
        elif isinstance(__obj, Macro):
            spend(100)
        else:
            _check_call(__obj, args)
        value = super().call(__context, __obj, *args, **kwargs)
        if isinstance(value, (str, list, tuple, dict)):
            check_weight(value)
        return value


def _check_call(function: Any, args: tuple[Any, ...]) -> None:
    """Check that a call is a plain method of a text, list or mapping, and that its result is not too large.

    Raises:
        SecurityError: the method must not be called.
        TemplateError: the result would be too large, or the budget is exceeded.
    """
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if isinstance(owner, str):
        spend(1 + len(owner) // 100)
        _check_text_method(owner, name, args)
    elif isinstance(owner, (list, tuple)):
        check_weight(owner)
    elif isinstance(owner, (int, float, bytes, range)):
        raise SecurityError(f"a value of type {type(owner).__name__} has no methods here")
    if name in _NO_METHODS:
        raise SecurityError(f"the method {name!r} cannot be called here")


def _check_text_method(owner: str, name: str, args: tuple[Any, ...]) -> None:
    if name in _PADDING and args and isinstance(args[0], int):
        check_length(args[0], "the padded text")
    elif name == "replace" and len(args) > 1:
        check_length(replaced_length(owner, args[0], args[1]), "the text with replacements")
    elif name == "join" and args and isinstance(args[0], (list, tuple, dict)):
        check_length(sum(len(owner) + len(item) for item in args[0] if isinstance(item, str)), "the joined text")


class _MeteringTransformer(NodeTransformer):
    """A transformer that rewrites a template's tree so that loops, literals and comparisons spend units."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        cost = 1 + sum(_cost(child) for child in node.body) + (0 if node.test is None else _cost(node.test))
        node.iter = _filtered(node.iter, "(counted)", nodes.Const(cost))
        return node

    def visit_Call(self, node: nodes.Call) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.node, nodes.Getattr):
            node.node.attr = _METHOD + node.node.attr
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "(concatenate)")

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.expr, nodes.Const):
            node.expr = _filtered(node.expr, "(compared)")
            for operand in node.ops:
                if not isinstance(operand.expr, nodes.Const):
                    operand.expr = _filtered(operand.expr, "(compared)")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "(weighed)") if isinstance(node.arg, nodes.Slice) else node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return node if _is_constant(node.items) else _filtered(node, "(weighed)")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return node if node.ctx != "load" or _is_constant(node.items) else _filtered(node, "(weighed)")

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return node if _is_constant([pair.value for pair in node.items]) else _filtered(node, "(weighed)")


def add_metering(tree: nodes.Template) -> nodes.Template:
    """Rewrite a parsed template so that its evaluation spends units."""
    metered: nodes.Template = _MeteringTransformer().visit(tree)
    metered.set_environment(environment())
    return metered


def refuse_tags(tree: nodes.Template) -> None:
    """Check that a parsed template has no tag of ``_TAGS``.

    Raises:
        TemplateError: it has one.
    """
    for node in tree.find_all(tuple(_TAGS)):
        raise TemplateError(f"the tag '{_TAGS[type(node)]}' is not available: a template here stands by itself")


def _cost(node: nodes.Node) -> int:
    """Return the cost of a tree: its nodes, plus one for each 100 characters; a nested loop spends its own units."""
    if isinstance(node, nodes.TemplateData):
        return 1 + len(node.data) // 100
    if isinstance(node, nodes.For):
        return 1 + _cost(node.iter)
    return 1 + sum(map(_cost, node.iter_child_nodes()))


def _is_constant(items: list[nodes.Expr]) -> bool:
    return all(isinstance(item, nodes.Const) for item in items)


def _filtered(node: Any, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


@pass_context  # with pass_context, Jinja2 cannot fold constants, so compiling evaluates nothing
def _finalize(context: Any, value: Any) -> Any:
    if isinstance(value, Undefined):
        return value
    text = as_text(value)
    spend(1 + len(text) // 100)
    return text


@cache
def environment() -> SpecEnvironment:
    """Return the Jinja2 environment that all templates share."""
    env = SpecEnvironment(
        undefined=Missing, autoescape=False, optimized=False, finalize=_finalize, keep_trailing_newline=True
    )
    own: dict[str, Callable[..., Any]] = {
        "(counted)": counted,  # no template can write such a name
        "(concatenate)": concatenate,
        "(weighed)": check_weight,
        "(compared)": compared,
    }
    filters: dict[str, Any] = {**bounded_filters(env.filters), **own}
    known: dict[str, Any] = {**env.tests}
    tests: dict[str, Any] = bounded_tests(known)
    env.filters, env.tests = filters, tests
    for name in ("lipsum", "cycler", "joiner"):
        del env.globals[name]
    return env
