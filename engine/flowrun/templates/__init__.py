"""Templates and expressions: one language, Jinja2, in an immutable sandbox, with strict undefined and no autoescape.

What was rendered is never rendered again. A text that is exactly one ``{{ ... }}`` gives the expression's value
with its type; any other text gives text, in which lists, mappings and booleans are written as JSON and None as
nothing. A bare path such as ``reply.tool_calls`` is looked up without Jinja2, to the same effect: it is what most
routes are made of. What an evaluation may cost is bounded, in time and in size (``limits``).
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from flowrun.spec.model import Template
from flowrun.templates.lazy import LazyMapping, as_data
from flowrun.templates.limits import MAX_LENGTH, TemplateError, begin
from flowrun.templates.writing import as_native, as_text, as_well_formed

if TYPE_CHECKING:
    from jinja2 import nodes

Scope = Mapping[str, Any]
"""The names that a template sees, with plain data as values."""

Evaluator = Callable[[Scope], Any]

_PATH: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_ONE_PATH: Final = re.compile(r"\{\{\s*(" + _PATH.pattern + r")\s*\}\}")
_WORDS: Final = frozenset(
    {"true", "false", "none", "True", "False", "None", "not", "and", "or", "in", "is", "if", "else"}
)


def has_template(text: str) -> bool:
    """Tell whether Jinja2 would do anything to a text."""
    return "{{" in text or "{%" in text or "{#" in text


def compile_expression(text: str) -> Evaluator:
    """Compile a bare expression, such as ``reply.tool_calls | length > 1``; it gives a value with its type."""
    text = text.strip()
    if _PATH.fullmatch(text) and text not in _WORDS:
        return _lookup(text)
    return _jinja_expression(text)


def compile_condition(text: str) -> Callable[[Scope], bool]:
    """Compile a ``when``: it must give a boolean, or something whose emptiness is plain (None, list, mapping, text)."""
    evaluate = compile_expression(text)

    def holds(scope: Scope) -> bool:
        value = evaluate(scope)
        if value is None or isinstance(value, (bool, list, str, dict, tuple, Mapping)):
            return bool(value)
        raise TemplateError(
            f"when: {text!r} gave {value!r}, which is neither true nor false: compare it with something"
        )

    return holds


def compile_value(template: Template) -> Evaluator:
    """Compile a JSON value in which any text may be a template; keys are left as they are."""
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
    """Compile a template that always gives text, such as a message's content."""
    return _compile_text(template, native=False)


def _compile_text(template: str, *, native: bool) -> Evaluator:
    if not has_template(template):
        return lambda scope: template
    if (path := _ONE_PATH.fullmatch(template)) and path[1] not in _WORDS:
        evaluate = _lookup(path[1])
        return evaluate if native else _written(template, evaluate)
    tree = parse_template(template)
    if native and (expression := only_expression(tree)) is not None:
        return _compiled(template, expression)
    return _compiled_text(template, tree)


def _written(shown: str, evaluate: Evaluator) -> Callable[[Scope], str]:
    def write(scope: Scope) -> str:
        value = evaluate(scope)
        if isinstance(value, str):
            return value
        begin()
        text: str = guarded(shown, lambda: as_text(value))
        return text

    return write


def _lookup(path: str) -> Evaluator:
    """Walk mappings along a path; whatever is no member of a mapping is left to Jinja2, and so are the errors."""
    root, *keys = path.split(".")

    def evaluate(scope: Scope) -> Any:
        try:
            value = scope[root]
            for key in keys:
                if not isinstance(value, (dict, Mapping)):
                    return _jinja_expression(path)(scope)
                value = value[key]
        except KeyError:
            return _jinja_expression(path)(scope)
        return as_data(value)

    return evaluate


def _as_context(scope: Scope) -> dict[str, Any]:
    return {name: as_data(value) for name, value in scope.items()}


@cache
def _jinja_expression(text: str) -> Evaluator:
    return _compiled(text, parse_expression(text))


def _compiled(shown: str, expression: "nodes.Expr") -> Evaluator:
    from flowrun.templates.sandbox import bound, environment

    template = guarded(shown, lambda: environment().from_string(bound(_result_template(expression))))

    def evaluate(scope: Scope) -> Any:
        def run() -> Any:
            context = template.new_context(_as_context(scope))
            for _ in template.root_render_func(context):
                pass
            return as_native(context.vars["result"])

        begin()
        return guarded(shown, run)

    return evaluate


def _compiled_text(shown: str, tree: "nodes.Template") -> Callable[[Scope], str]:
    from flowrun.templates.sandbox import bound, environment

    template = guarded(shown, lambda: environment().from_string(bound(tree)))

    def evaluate(scope: Scope) -> str:
        def run() -> str:
            parts: list[str] = []
            length = 0
            for part in template.root_render_func(template.new_context(_as_context(scope))):
                length += len(part)
                if length > MAX_LENGTH:
                    raise TemplateError(f"the text is too large: {MAX_LENGTH:,} characters are the most")
                parts.append(part)
            return as_well_formed("".join(parts))

        begin()
        text: str = guarded(shown, run)
        return text

    return evaluate


def guarded(shown: str, action: Callable[[], Any]) -> Any:
    """Do something with a template; whatever it raises becomes a TemplateError that shows the template."""
    try:
        return action()
    except RecursionError as exc:
        raise TemplateError(f"in {_excerpt(shown)}: nested too deeply") from exc
    except Exception as exc:
        said = getattr(exc, "message", None) or exc  # the text of Jinja2's own errors adds places of no use here
        raise TemplateError(f"in {_excerpt(shown)}: {said}") from exc


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def parse_template(text: str) -> "nodes.Template":
    """Parse a template, and evaluate nothing.

    Raises:
        TemplateError: it is none, or uses a tag that is not available here.
    """
    return _parse(text, shown=text)


def parse_expression(text: str) -> "nodes.Expr":
    """Parse a bare expression, and evaluate nothing.

    Raises:
        TemplateError: it is no expression.
    """
    expression = only_expression(_parse("{{ (" + text + ") }}", shown=text))
    if expression is None:
        raise TemplateError(f"{text!r} is no single expression: write it without braces")
    return expression


def _parse(text: str, *, shown: str) -> "nodes.Template":
    from flowrun.templates.sandbox import environment, refuse_tags

    def parse() -> "nodes.Template":
        tree = environment().parse(text)
        refuse_tags(tree)
        return tree

    tree: nodes.Template = guarded(shown, parse)
    return tree


def only_expression(tree: "nodes.Template") -> "nodes.Expr | None":
    """Give the expression that a template consists of, if it consists of one."""
    from jinja2 import nodes

    if len(tree.body) == 1 and isinstance(tree.body[0], nodes.Output):
        parts = tree.body[0].nodes
        if len(parts) == 1 and not isinstance(parts[0], nodes.TemplateData):
            return parts[0]
    return None


def _result_template(expression: "nodes.Expr") -> "nodes.Template":
    """Make the template that stores an expression's value: what Jinja2's own compile_expression does with a text."""
    from jinja2 import nodes

    body: list[nodes.Node] = [nodes.Assign(nodes.Name("result", "store", lineno=1), expression, lineno=1)]
    return nodes.Template(body, lineno=1)


__all__ = [
    "Evaluator",
    "LazyMapping",
    "Scope",
    "TemplateError",
    "as_text",
    "compile_assignments",
    "compile_condition",
    "compile_expression",
    "compile_text",
    "compile_value",
    "has_template",
    "only_expression",
    "parse_expression",
    "parse_template",
]
