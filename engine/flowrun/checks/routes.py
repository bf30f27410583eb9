"""FR303 and FR305: every route of a state can match, and one always does. Conditions are compared, never evaluated."""

from collections.abc import Generator, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from flowrun.checks.shapes import schema_at, shapes_at
from flowrun.checks.subject import Subject
from flowrun.core.texts import Text
from flowrun.errors import Issue, Path
from flowrun.spec.model import EndState, Route, Working
from flowrun.templates import TemplateError, parse_expression
from flowrun.templates.reads import Keys, keys_of

if TYPE_CHECKING:
    from jinja2 import nodes

_OPPOSITES: Final = (("eq", "ne"), ("lt", "gteq"), ("gt", "lteq"), ("in", "notin"))
_NEGATED: Final = {a: b for pair in _OPPOSITES for a, b in (pair, pair[::-1])}
_UNMATCHED: Final = frozenset({"route.unmatched", "route.*"})


def check_routes(subject: Subject) -> Iterator[Issue]:
    """Find routes that cannot be taken, and states that may have none to take."""
    for name, state in subject.spec.states.items():
        if isinstance(state, EndState):
            continue
        always = yield from _dead(subject, ("states", name), state.routes)
        if not always and not _caught(state) and not _complete(subject, name, state.routes):
            index = len(state.routes) - 1
            message = f"it may be that no route of state {name!r} matches: the last one has a condition too"
            remedy = "add a last route without when; a run that matches none fails with route.unmatched"
            path = ("states", name, "routes", index)
            yield subject.issue("FR305", path, message, remedy, severity="warning")


def _dead(subject: Subject, at: Path, routes: tuple[Route, ...]) -> Generator[Issue, None, bool]:
    """Find the routes that can never match; give whether one of the others always does."""
    seen: dict[int, nodes.Expr] = {}
    always = False
    for index, route in enumerate(routes):
        path = (*at, "routes", index)
        condition = None if route.when is None else _condition(route.when)
        constant = True if route.when is None else _constant(condition)
        if always:
            remedy = "put the route without when last" if routes[index - 1].when is None else "delete it"
            yield subject.issue("FR303", path, "this route can never match: the one before always does", remedy)
            break
        if constant is False:
            message = f"this route can never match: {route.when!r} is never true"
            yield subject.issue("FR303", (*path, "when"), message, "delete it, or give it a condition")
        elif constant is None and condition is not None:
            twin = next((earlier for earlier, other in seen.items() if other == condition), None)
            if twin is not None:
                message = f"this route can never match: route {twin + 1} has the same condition"
                yield subject.issue("FR303", (*path, "when"), message, "delete one of them, or change its condition")
            else:
                seen[index] = condition
        always = constant is True
    return always


def _caught(state: Working) -> bool:
    return any(not catch.errors or _UNMATCHED & set(catch.errors) for catch in state.catch)


def _complete(subject: Subject, name: str, routes: tuple[Route, ...]) -> bool:
    """Tell whether the conditions leave nothing out: one is another's negation, or they name all values there are."""
    conditions = [condition for route in routes if route.when is not None and (condition := _condition(route.when))]
    if len(conditions) < len(routes):
        return True  # one of them is no expression, and another check says so
    if any(_opposite(one) == other for one in conditions for other in conditions):
        return True
    named: dict[Keys, list[Any]] = {}
    for condition in conditions:
        if (pair := _equation(condition)) is not None:
            named.setdefault(pair[0], []).append(pair[1])
    text = Text(path=("states", name), text="", state=name, moment="left")
    shapes = shapes_at(subject, text) if named else {}
    return any(_all_values(shapes.get(str(path[0])), path, values) for path, values in named.items())


def _all_values(shape: Any, path: Keys, values: list[Any]) -> bool:
    schema = None if shape is None else schema_at(shape, path)
    allowed = None if schema is None else schema.get("enum")
    return isinstance(allowed, list) and all(value in values for value in allowed)


def _opposite(condition: "nodes.Expr") -> "nodes.Expr | None":
    from jinja2 import nodes

    if isinstance(condition, nodes.Not):
        return condition.node
    if isinstance(condition, nodes.Compare) and len(condition.ops) == 1:
        operand = condition.ops[0]
        return nodes.Compare(condition.expr, [nodes.Operand(_NEGATED[operand.op], operand.expr)])
    return None


def _equation(condition: "nodes.Expr") -> tuple[Keys, Any] | None:
    """Give the path and the constant of ``path == constant``."""
    from jinja2 import nodes

    if isinstance(condition, nodes.Compare) and len(condition.ops) == 1 and condition.ops[0].op == "eq":
        keys, other = keys_of(condition.expr), condition.ops[0].expr
        if keys is not None and isinstance(other, nodes.Const):
            return keys, other.value
    return None


def _constant(condition: "nodes.Expr | None") -> bool | None:
    """Tell what a condition always is, if that is written in so many words; None if it is not."""
    from jinja2 import nodes

    if isinstance(condition, nodes.Not):
        inner = _constant(condition.node)
        return None if inner is None else not inner
    if isinstance(condition, nodes.Const) and (condition.value is None or isinstance(condition.value, (bool, str))):
        return bool(condition.value)
    if isinstance(condition, (nodes.List, nodes.Tuple, nodes.Dict)) and not condition.items:
        return False
    return None


@lru_cache(maxsize=2048)
def _condition(when: str) -> "nodes.Expr | None":
    """Parse a condition; None if it is none."""
    try:
        return parse_expression(when)
    except TemplateError:
        return None
