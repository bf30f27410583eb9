"""Finds the names that a template or an expression reads. The text is parsed, never evaluated."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import msgspec

from flowrun.excerpts import cut
from flowrun.templates import KEYWORDS, PATH, TemplateError, is_path, parse_expression, parse_template
from flowrun.templates.extracting import compile_pattern
from flowrun.templates.sandbox import environment

if TYPE_CHECKING:
    from jinja2 import nodes

Keys = tuple[str | int, ...]
"""A name followed by the keys of its nested members: ``("reply", "tool_calls", 0, "name")``."""

_PART: Final = re.compile(r"\{(?:\{\s*(" + PATH.pattern + r")\s*\}\}|[{%#])")
_LOCAL: Final = frozenset({"loop", "caller", "varargs", "kwargs"})
_CACHED: Final = 65536  # more than a spec has texts: the checks read all of them in turn, again and again
_MAX_DEPTH: Final = 80  # of nested operators: CPython's own compiler fails at about 100


class Reads(msgspec.Struct, frozen=True):
    """The names that a template reads.

    ``roots`` are the names, ``paths`` the names with their members. ``guarded`` are the paths whose existence is also
    tested, such as by ``is defined``. ``calls`` are the replies that ``is calling`` asks about, each with the tool.
    """

    roots: frozenset[str] = frozenset()
    paths: frozenset[Keys] = frozenset()
    guarded: frozenset[Keys] = frozenset()
    calls: frozenset[tuple[Keys, str]] = frozenset()


@lru_cache(maxsize=_CACHED)
def reads_of_expression(text: str) -> Reads:
    """Return the names that a bare expression reads.

    Raises:
        TemplateError: the text is not an expression.
    """
    stripped = text.strip()
    if is_path(stripped):
        return _reads_of_paths([stripped])
    return _reads(text, parsed_expression(text), statements=False)


@lru_cache(maxsize=_CACHED)
def parsed_expression(text: str) -> "nodes.Expr":
    """Return the cached result of ``parse_expression``. It must not be compiled, because that changes the tree."""
    return parse_expression(text)


@lru_cache(maxsize=_CACHED)
def reads_of_template(text: str) -> Reads:
    """Return the names that a template reads. A text with bare paths only, the most frequent case, needs no parser.

    Raises:
        TemplateError: the text is not a template.
    """
    found = [match[1] for match in _PART.finditer(text)]
    if all(path and path not in KEYWORDS for path in found):
        return _reads_of_paths(found)
    from jinja2 import nodes

    tree = parse_template(text)
    return _reads(text, tree, statements=any(not isinstance(node, nodes.Output) for node in tree.body))


def _reads_of_paths(paths: list[str]) -> Reads:
    keys = [tuple(path.split(".")) for path in paths]
    return Reads(frozenset(path[0] for path in keys), frozenset(keys))


def _reads(text: str, tree: "nodes.Node", *, statements: bool) -> Reads:
    try:
        reader = _Reader()
        reader.visit(tree, 0)
        roots = _undeclared(tree) if statements else {path[0] for path in reader.paths}
    except RecursionError:
        raise TemplateError(f"in {cut(text, 80)!r}: nested too deeply") from None
    except TemplateError as exc:
        raise TemplateError(f"in {cut(text, 80)!r}: {exc}") from None
    known = frozenset(str(root) for root in roots) - environment().globals.keys() - reader.stored - _LOCAL
    paths = frozenset(path for path in reader.paths if path[0] in known)
    return Reads(known, paths, frozenset(reader.guarded), frozenset(reader.calls))


def _undeclared(tree: "nodes.Node") -> set[str]:
    """Find the undeclared names of a template with statements, by Jinja2's own code generator."""
    from jinja2 import TemplateSyntaxError
    from jinja2.meta import TrackingCodeGenerator

    tracker = TrackingCodeGenerator(environment())
    tracker.optimizer = None  # meta.find_undeclared_variables leaves it on, which would evaluate constant filters
    try:
        tracker.visit(tree)
    except TemplateSyntaxError as exc:
        raise TemplateError(exc.message or "it is no template") from None
    return tracker.undeclared_identifiers


class _Reader:
    """A visitor that collects the paths of a tree that are read or guarded, and the names that it sets."""

    def __init__(self) -> None:
        from jinja2 import nodes

        self.paths: set[Keys] = set()
        self.guarded: set[Keys] = set()
        self.calls: set[tuple[Keys, str]] = set()
        self.stored: set[str] = set()
        self._nodes = nodes

    def visit(self, node: "nodes.Node", depth: int) -> None:
        nodes = self._nodes
        if depth > _MAX_DEPTH:
            raise TemplateError("nested too deeply")
        if isinstance(node, nodes.Name) and node.ctx != "load":
            self.stored.add(node.name)
        elif (keys := keys_of(node)) is not None:
            self.paths.add(keys)
            for argument in _arguments(node):
                self.visit(argument, depth + 1)
        else:
            self._inspect(node)
            for child in node.iter_child_nodes():
                self.visit(child, depth + 1)

    def _inspect(self, node: "nodes.Node") -> None:
        nodes = self._nodes
        if isinstance(node, nodes.Filter):
            _check_known("filter", node.name, environment().filters)
            if node.name in ("default", "d") and node.node is not None:
                self._guard(keys_of(node.node))
            elif node.name == "findall" and node.args and isinstance(node.args[0], nodes.Const):
                compile_pattern(str(node.args[0].value))
        elif isinstance(node, nodes.Test):
            _check_known("test", node.name, environment().tests)
            if node.name in ("defined", "undefined"):
                self._guard(keys_of(node.node))
            elif node.name == "calling":
                self._call(node)
        elif isinstance(node, nodes.Compare) and isinstance(node.expr, nodes.Const):
            for operand in node.ops:
                if operand.op in ("in", "notin") and (keys := keys_of(operand.expr)) is not None:
                    self._guard((*keys, node.expr.value))

    def _call(self, node: "nodes.Test") -> None:
        if len(node.args) != 1 or node.kwargs:
            raise TemplateError("'is calling' needs the name of a tool: reply is calling('NAME')")
        name, keys = node.args[0], keys_of(node.node)
        if isinstance(name, self._nodes.Const) and isinstance(name.value, str) and keys is not None:
            self.calls.add((keys, name.value))

    def _guard(self, keys: Keys | None) -> None:
        if keys is not None:
            self.guarded.add(keys)


def _check_known(kind: str, name: str, known: object) -> None:
    if name not in known:  # type: ignore[operator]
        raise TemplateError(f"No {kind} named {name!r}.")


def keys_of(node: "nodes.Node") -> Keys | None:
    """Return the path that a node stands for, or None; the name of a called method is not part of it."""
    from jinja2 import nodes

    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr):
        return keys_of(node.node.node)
    keys: list[str | int] = []
    while True:
        if isinstance(node, nodes.Name) and node.ctx == "load":
            return (node.name, *reversed(keys))
        if isinstance(node, nodes.Getattr):
            keys.append(node.attr)
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
            if not isinstance(node.arg.value, (str, int)) or isinstance(node.arg.value, bool):
                return None
            keys.append(node.arg.value)
        else:
            return None
        node = node.node


def _arguments(node: "nodes.Node") -> Iterator["nodes.Node"]:
    from jinja2 import nodes

    if isinstance(node, nodes.Call):
        yield from node.args
        yield from (argument.value for argument in node.kwargs)
