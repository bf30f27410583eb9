"""Templates and expressions: one language, Jinja2, in an immutable sandbox, with strict undefined and no autoescape.

Rendered text is never rendered again. A template that is exactly one ``{{ ... }}`` evaluates to the expression's
value with its type. Any other template evaluates to text, in which lists, mappings and booleans are written as JSON
and None as an empty text. A bare path such as ``reply.tool_calls``, the most frequent condition of a route, is looked
up without Jinja2, with the same result. The cost of an evaluation is bounded in time and in size (``limits``).
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from flowrun.excerpts import cut
from flowrun.spec.model import Template, has_template
from flowrun.templates.lazy import Lazy, LazyMapping, as_data, in_context
from flowrun.templates.limits import MAX_LENGTH, TemplateError, start_evaluation
from flowrun.templates.writing import as_native, as_text, as_well_formed

if TYPE_CHECKING:
    from jinja2 import nodes

Scope = Mapping[str, Any]
"""The names that a template can read, with their values as plain data."""

Evaluator = Callable[[Scope], Any]

PATH: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_ONE_PATH: Final = re.compile(r"\{\{\s*(" + PATH.pattern + r")\s*\}\}")
_WORD: Final = re.compile(r"\w+")
KEYWORDS: Final = frozenset(
    {"true", "false", "none", "True", "False", "None", "not", "and", "or", "in", "is", "if", "else"}
)


_WITH_EMPTINESS: Final = (Lazy, bool, list, str, Mapping, tuple)
"""The types whose empty values count as false in a condition."""


def is_path(text: str) -> bool:
    """Return whether an expression is a bare path, such as ``reply.tool_calls``, which needs no Jinja2."""
    return PATH.fullmatch(text) is not None and text not in KEYWORDS


def compile_expression(text: str) -> Evaluator:
    """Compile a bare expression, such as ``reply.tool_calls | length > 1``, to a function that returns its value.

    Raises:
        TemplateError: the text is not an expression.
    """
    evaluate = _compile_expression(text)
    return lambda scope: as_data(evaluate(scope))


def _compile_expression(text: str) -> Evaluator:
    text = text.strip()
    if is_path(text):
        return _lookup(text)
    return _cached_jinja_expression(text)


def compile_condition(text: str, *, what: str = "when") -> Callable[[Scope], bool]:
    """Compile a ``when``. Its value must be a boolean, None, a list, a mapping or a text; an empty one counts as false.

    Args:
        what: names the condition in messages.

    Raises:
        TemplateError: the text is not an expression; the returned function raises it for any other value.
    """
    evaluate = _compile_expression(text)
    return lambda scope: as_condition(evaluate(scope), text, what=what)


def as_condition(value: Any, text: str, *, what: str = "when") -> bool:
    """Return whether the value of a ``when`` counts as true. Raises as the functions of ``compile_condition`` do."""
    if value is None or isinstance(value, _WITH_EMPTINESS):
        return bool(value)
    raise TemplateError(f"{what}: {text!r} gave {value!r}, which is neither true nor false: compare it with something")


def compile_value(template: Template) -> Evaluator:
    """Compile a JSON value in which each text may be a template; keys are not evaluated.

    Raises:
        TemplateError: a text is not a template.
    """
    if isinstance(template, str):
        return _compile_text(template, native=True)
    if isinstance(template, Mapping):
        members = {key: compile_value(value) for key, value in template.items()}
        return lambda scope: {key: evaluate(scope) for key, evaluate in members.items()}
    if isinstance(template, list):
        items = [compile_value(value) for value in template]
        return lambda scope: [evaluate(scope) for evaluate in items]
    return lambda scope: template


def compile_assignments(templates: Mapping[str, Template]) -> tuple[tuple[str, Evaluator], ...]:
    """Compile the values of variables, in their order."""
    return tuple((name, compile_value(template)) for name, template in templates.items())


def compile_text(template: str) -> Callable[[Scope], str]:
    """Compile a template whose value is always text, such as a message's content.

    Raises:
        TemplateError: the text is not a template.
    """
    return _compile_text(template, native=False)


def _compile_text(template: str, *, native: bool) -> Evaluator:
    if not has_template(template):
        return lambda scope: template
    if (path := _ONE_PATH.fullmatch(template)) and path[1] not in KEYWORDS:
        evaluate = _lookup(path[1])
        return (lambda scope: as_data(evaluate(scope))) if native else _as_text_evaluator(template, evaluate)
    tree = parse_template(template)
    if native and (expression := only_expression(tree)) is not None:
        return _compile_jinja_expression(template, expression)
    return _compile_jinja_text(template, tree)


def _as_text_evaluator(source: str, evaluate: Evaluator) -> Callable[[Scope], str]:
    def write(scope: Scope) -> str:
        value = evaluate(scope)
        if isinstance(value, str):
            return value
        start_evaluation()
        text: str = wrap_errors(source, lambda: as_text(as_data(value)))
        return text

    return write


def _lookup(path: str) -> Evaluator:
    """Compile a bare path to a look-up in mappings; Jinja2 evaluates any other member, and reports the errors."""
    root, *keys = path.split(".")

    def evaluate(scope: Scope) -> Any:
        try:
            value = scope[root]
            for key in keys:
                value = value[key]
        except (KeyError, TypeError):  # there is no such member, or the value is no mapping
            return _cached_jinja_expression(path)(scope)
        return value

    return evaluate


def _as_context(scope: Scope, words: frozenset[str]) -> dict[str, Any]:
    """Return the names of a scope that a template may read as plain data: making that of a thread takes time.

    Args:
        words: the words of the template's text.
    """
    return {name: in_context(scope[name]) for name in scope if name in words}


def _words_of(source: str) -> frozenset[str]:
    return frozenset(_WORD.findall(source))


@cache
def _cached_jinja_expression(text: str) -> Evaluator:
    return _compile_jinja_expression(text, parse_expression(text))


def _compile_jinja_expression(source: str, expression: "nodes.Expr") -> Evaluator:
    from flowrun.templates.sandbox import add_metering, environment

    template = wrap_errors(source, lambda: environment().from_string(add_metering(_result_template(expression))))
    words = _words_of(source)

    def evaluate(scope: Scope) -> Any:
        def render() -> Any:
            context = template.new_context(_as_context(scope, words))
            for _ in template.root_render_func(context):
                pass
            return as_native(context.vars["result"])

        start_evaluation()
        return wrap_errors(source, render)

    return evaluate


def _compile_jinja_text(source: str, tree: "nodes.Template") -> Callable[[Scope], str]:
    from flowrun.templates.sandbox import add_metering, environment

    template = wrap_errors(source, lambda: environment().from_string(add_metering(tree)))
    words = _words_of(source)

    def evaluate(scope: Scope) -> str:
        def render() -> str:
            parts: list[str] = []
            length = 0
            for part in template.root_render_func(template.new_context(_as_context(scope, words))):
                length += len(part)
                if length > MAX_LENGTH:
                    raise TemplateError(f"the text is too large: {MAX_LENGTH:,} characters are the most")
                parts.append(part)
            return as_well_formed("".join(parts))

        start_evaluation()
        text: str = wrap_errors(source, render)
        return text

    return evaluate


def wrap_errors(source: str, action: Callable[[], Any]) -> Any:
    """Run an action on a template.

    Args:
        source: the text of the template, for the error message.

    Raises:
        TemplateError: the action raised an exception; the message shows the template.
    """
    try:
        return action()
    except RecursionError as exc:
        raise TemplateError(f"in {cut(source, 80)!r}: nested too deeply") from exc
    except Exception as exc:
        message = getattr(exc, "message", None) or exc  # str() of a Jinja2 error adds line numbers
        raise TemplateError(f"in {cut(source, 80)!r}: {message}") from exc


def parse_template(text: str) -> "nodes.Template":
    """Parse a template without evaluating it.

    Raises:
        TemplateError: the text is not a template, or uses a tag that specs do not have.
    """
    return _parse(text, source=text)


def parse_expression(text: str) -> "nodes.Expr":
    """Parse a bare expression without evaluating it.

    Raises:
        TemplateError: the text is not an expression.
    """
    expression = only_expression(_parse("{{ (" + text + ") }}", source=text))
    if expression is None:
        raise TemplateError(f"{text!r} is no single expression: write it without braces")
    return expression


def _parse(text: str, *, source: str) -> "nodes.Template":
    from flowrun.templates.sandbox import environment, refuse_tags

    def parse() -> "nodes.Template":
        tree = environment().parse(text)
        refuse_tags(tree)
        return tree

    tree: nodes.Template = wrap_errors(source, parse)
    return tree


def only_expression(tree: "nodes.Template") -> "nodes.Expr | None":
    """Return the expression if a template consists of exactly one, else None."""
    from jinja2 import nodes

    if len(tree.body) == 1 and isinstance(tree.body[0], nodes.Output):
        parts = tree.body[0].nodes
        if len(parts) == 1 and not isinstance(parts[0], nodes.TemplateData):
            return parts[0]
    return None


def _result_template(expression: "nodes.Expr") -> "nodes.Template":
    """Build a template that stores an expression's value in ``result``, as Jinja2's ``compile_expression`` does."""
    from jinja2 import nodes

    body: list[nodes.Node] = [nodes.Assign(nodes.Name("result", "store", lineno=1), expression, lineno=1)]
    return nodes.Template(body, lineno=1)


__all__ = [
    "KEYWORDS",
    "PATH",
    "Evaluator",
    "Lazy",
    "LazyMapping",
    "Scope",
    "TemplateError",
    "as_condition",
    "as_text",
    "compile_assignments",
    "compile_condition",
    "compile_expression",
    "compile_text",
    "compile_value",
    "has_template",
    "is_path",
    "only_expression",
    "parse_expression",
    "parse_template",
]
