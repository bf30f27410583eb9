"""FR303 and FR305: every route of a state can match, and one always does. Conditions are parsed, never evaluated."""

from collections.abc import Generator, Hashable, Iterator
from typing import TYPE_CHECKING, Any, Final

from flowrun.checks.shapes import schema_at, shapes_at
from flowrun.checks.subject import Subject
from flowrun.core.state_node import matches
from flowrun.core.texts import Text
from flowrun.errors import Issue, Path
from flowrun.spec.model import Route, WorkingState
from flowrun.templates import TemplateError
from flowrun.templates.reads import Keys, keys_of, parsed_expression

if TYPE_CHECKING:
    from jinja2 import nodes

_OPPOSITES: Final = (("eq", "ne"), ("lt", "gteq"), ("gt", "lteq"), ("in", "notin"))
_MAX_DEPTH: Final = 100
_NEGATED: Final = {a: b for pair in _OPPOSITES for a, b in (pair, pair[::-1])}


def check_routes(subject: Subject) -> Iterator[Issue]:
    """Find routes that can never match, and states where it is possible that no route matches."""
    for name, state in subject.spec.states.items():
        if not isinstance(state, WorkingState):
            continue
        always = yield from _never_matching(subject, ("states", name), state.routes)
        if not always and not _catches_unmatched(state) and not _is_exhaustive(subject, name, state.routes):
            index = len(state.routes) - 1
            message = f"it may be that no route of state {name!r} matches: the last one has a condition too"
            remedy = "add a last route without when; a run that matches none fails with route.unmatched"
            path = ("states", name, "routes", index)
            yield subject.issue("FR305", path, message, remedy, severity="warning")


def _never_matching(subject: Subject, at: Path, routes: tuple[Route, ...]) -> Generator[Issue, None, bool]:
    """Yield an issue for each route that can never match; return whether one of the others always matches."""
    seen: dict[Hashable, int] = {}
    always = False
    for index, route in enumerate(routes):
        path = (*at, "routes", index)
        condition = None if route.when is None else _parse_condition(route.when)
        constant = True if route.when is None else _constant(condition)
        if always:
            remedy = "put the route without when last" if routes[index - 1].when is None else "delete it"
            yield subject.issue("FR303", path, "this route can never match: the one before always does", remedy)
            break
        if constant is False:
            message = f"this route can never match: {route.when!r} is never true"
            yield subject.issue("FR303", (*path, "when"), message, "delete it, or give it a condition")
        elif constant is None and condition is not None:
            duplicate = seen.setdefault(_key(condition), index)
            if duplicate != index:
                message = f"this route can never match: route {duplicate + 1} has the same condition"
                yield subject.issue("FR303", (*path, "when"), message, "delete one of them, or change its condition")
        always = constant is True
    return always


def _catches_unmatched(state: WorkingState) -> bool:
    return any(catch.when is None and matches("route.unmatched", catch.errors) for catch in state.catch)


def _is_exhaustive(subject: Subject, name: str, routes: tuple[Route, ...]) -> bool:
    """Return whether the conditions cover all cases: one negates another, or they name all values of an enum."""
    conditions = [
        condition for route in routes if route.when is not None and (condition := _parse_condition(route.when))
    ]
    if len(conditions) < len(routes):
        return True  # one of them is not an expression; check_templates reports it
    known = {_key(condition) for condition in conditions}
    if any(negation is not None and _key(negation) in known for negation in map(_negation, conditions)):
        return True
    compared: dict[Keys, list[Any]] = {}
    for condition in conditions:
        if (equation := _equation(condition)) is not None:
            compared.setdefault(equation[0], []).append(equation[1])
    text = Text(path=("states", name), text="", state=name, moment="left")
    shapes = shapes_at(subject, text) if compared else {}
    return any(_are_all_values(shapes.get(str(path[0])), path, values) for path, values in compared.items())


def _are_all_values(shape: Any, path: Keys, values: list[Any]) -> bool:
    schema = None if shape is None else schema_at(shape, path)
    allowed = None if schema is None else schema.get("enum")
    known = set(values)
    return isinstance(allowed, list) and all(isinstance(value, Hashable) and value in known for value in allowed)


def _key(part: Any, depth: int = 0) -> Hashable:
    """Return a hashable key of a parsed condition; conditions that jinja2 considers equal have equal keys.

    Parts of a condition that is nested too deeply, which check_templates reports, are equal to themselves only.
    """
    from jinja2 import nodes

    if isinstance(part, nodes.Node) and depth < _MAX_DEPTH:
        return type(part), *(_key(value, depth + 1) for _, value in part.iter_fields())
    return tuple(_key(value, depth) for value in part) if isinstance(part, list) else part


def _negation(condition: "nodes.Expr") -> "nodes.Expr | None":
    from jinja2 import nodes

    if isinstance(condition, nodes.Not):
        return condition.node
    if isinstance(condition, nodes.Compare) and len(condition.ops) == 1:
        operand = condition.ops[0]
        return nodes.Compare(condition.expr, [nodes.Operand(_NEGATED[operand.op], operand.expr)])
    return None


def _equation(condition: "nodes.Expr") -> tuple[Keys, Any] | None:
    """Return the path and the constant of a condition ``path == constant``; None for any other condition."""
    from jinja2 import nodes

    if isinstance(condition, nodes.Compare) and len(condition.ops) == 1 and condition.ops[0].op == "eq":
        keys, other = keys_of(condition.expr), condition.ops[0].expr
        if keys is not None and isinstance(other, nodes.Const):
            return keys, other.value
    return None


def _constant(condition: "nodes.Expr | None") -> bool | None:
    """Return the value of a condition made of literals only, such as ``not true``; None for any other condition."""
    from jinja2 import nodes

    if isinstance(condition, nodes.Not):
        inner = _constant(condition.node)
        return None if inner is None else not inner
    if isinstance(condition, nodes.Const) and (condition.value is None or isinstance(condition.value, (bool, str))):
        return bool(condition.value)
    if isinstance(condition, (nodes.List, nodes.Tuple, nodes.Dict)) and not condition.items:
        return False
    return None


def _parse_condition(when: str) -> "nodes.Expr | None":
    """Return a parsed condition, or None if it is not an expression."""
    try:
        return parsed_expression(when)
    except TemplateError:
        return None
