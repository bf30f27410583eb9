"""What a template or expression reads, found in its text alone: it is parsed, never evaluated."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import msgspec

from flowrun.templates import TemplateError, parse_expression, parse_template
from flowrun.templates.sandbox import environment

if TYPE_CHECKING:
    from jinja2 import nodes

Keys = tuple[str | int, ...]
"""A name and the members behind it: ``("reply", "tool_calls", 0, "name")``."""

_PATH: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_PART: Final = re.compile(r"\{(?:\{\s*(" + _PATH.pattern + r")\s*\}\}|[{%#])")
_WORDS: Final = frozenset(
    {"true", "false", "none", "True", "False", "None", "not", "and", "or", "in", "is", "if", "else"}
)
_LOCAL: Final = frozenset({"loop", "caller", "varargs", "kwargs"})
_MAX_DEPTH: Final = 80  # operators within operators: Python itself gives up at a hundred


class Reads(msgspec.Struct, frozen=True):
    """The names that a template reads; ``guarded`` are those that it also asks of whether they are there."""

    roots: frozenset[str] = frozenset()
    paths: frozenset[Keys] = frozenset()
    guarded: frozenset[Keys] = frozenset()


@lru_cache(maxsize=4096)
def reads_of_expression(text: str) -> Reads:
    """Give what a bare expression reads.

    Raises:
        TemplateError: it is no expression.
    """
    stripped = text.strip()
    if _PATH.fullmatch(stripped) and stripped not in _WORDS:
        return _plain([stripped])
    return _reads(text, parse_expression(text), statements=False)


@lru_cache(maxsize=4096)
def reads_of_template(text: str) -> Reads:
    """Give what a template reads. Most are texts with bare paths, which need no parser.

    Raises:
        TemplateError: it is no template.
    """
    found = [match[1] for match in _PART.finditer(text)]
    if all(path and path not in _WORDS for path in found):
        return _plain(found)
    from jinja2 import nodes

    tree = parse_template(text)
    return _reads(text, tree, statements=any(not isinstance(node, nodes.Output) for node in tree.body))


def _plain(paths: list[str]) -> Reads:
    keys = [tuple(path.split(".")) for path in paths]
    return Reads(frozenset(path[0] for path in keys), frozenset(keys))


def _reads(text: str, tree: "nodes.Node", *, statements: bool) -> Reads:
    try:
        reader = _Reader()
        reader.visit(tree, 0)
        roots = _undeclared(tree) if statements else {path[0] for path in reader.paths}
    except RecursionError:
        raise TemplateError(f"in {text[:80]!r}: nested too deeply") from None
    except TemplateError as exc:
        raise TemplateError(f"in {(text if len(text) <= 80 else text[:77] + '...')!r}: {exc}") from None
    known = frozenset(str(root) for root in roots) - environment().globals.keys() - reader.stored - _LOCAL
    return Reads(known, frozenset(path for path in reader.paths if path[0] in known), frozenset(reader.guarded))


def _undeclared(tree: "nodes.Node") -> set[str]:
    """Ask Jinja2 itself which names a template with statements takes from outside."""
    from jinja2 import TemplateSyntaxError
    from jinja2.meta import TrackingCodeGenerator

    tracker = TrackingCodeGenerator(environment())
    tracker.optimizer = None  # what meta.find_undeclared_variables leaves on: it would evaluate constant filters
    try:
        tracker.visit(tree)
    except TemplateSyntaxError as exc:
        raise TemplateError(exc.message or "it is no template") from None
    return tracker.undeclared_identifiers


class _Reader:
    """Collects from a tree the paths that it reads, asks about, and stores."""

    def __init__(self) -> None:
        from jinja2 import nodes

        self.paths: set[Keys] = set()
        self.guarded: set[Keys] = set()
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
            self._look(node)
            for child in node.iter_child_nodes():
                self.visit(child, depth + 1)

    def _look(self, node: "nodes.Node") -> None:
        nodes = self._nodes
        if isinstance(node, nodes.Filter):
            _check_known("filter", node.name, environment().filters)
            if node.name in ("default", "d") and node.node is not None:
                self._guard(keys_of(node.node))
        elif isinstance(node, nodes.Test):
            _check_known("test", node.name, environment().tests)
            if node.name in ("defined", "undefined"):
                self._guard(keys_of(node.node))
        elif isinstance(node, nodes.Compare) and isinstance(node.expr, nodes.Const):
            for operand in node.ops:
                if operand.op in ("in", "notin") and (keys := keys_of(operand.expr)) is not None:
                    self._guard((*keys, node.expr.value))

    def _guard(self, keys: Keys | None) -> None:
        if keys is not None:
            self.guarded.add(keys)


def _check_known(kind: str, name: str, known: object) -> None:
    if name not in known:  # type: ignore[operator]
        raise TemplateError(f"No {kind} named {name!r}.")


def keys_of(node: "nodes.Node") -> Keys | None:
    """Give the path that a node is, if it is one; a method that is called is no part of it."""
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
