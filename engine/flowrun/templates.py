"""Templates and expressions: one language, Jinja2, in an immutable sandbox, with strict undefined and no autoescape.

What was rendered is never rendered again. A text that is exactly one ``{{ ... }}`` gives the expression's value
with its type; any other text gives text, in which lists, mappings and booleans are written as JSON and None as
nothing. A bare path such as ``reply.tool_calls`` is looked up without Jinja2, to the same effect: it is what most
routes are made of.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flowrun.errors import FlowrunError
from flowrun.spec import JSON, Template

if TYPE_CHECKING:
    from jinja2 import Environment, nodes

Scope = Mapping[str, Any]
"""The names that a template sees, with plain data as values."""

Evaluator = Callable[[Scope], Any]

_PATH: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_ONE_PATH: Final = re.compile(r"\{\{\s*(" + _PATH.pattern + r")\s*\}\}")
_WORDS: Final = frozenset(
    {"true", "false", "none", "True", "False", "None", "not", "and", "or", "in", "is", "if", "else"}
)
_MAX_REPEATED: Final = 1_000_000
_MAX_EXPONENT: Final = 1_000


class TemplateError(FlowrunError):
    """A template cannot be compiled or evaluated; the message says why and shows the template."""


def has_template(text: str) -> bool:
    """Tell whether Jinja2 would do anything to a text."""
    return "{{" in text or "{%" in text or "{#" in text


def compile_expression(text: str) -> Evaluator:
    """Compile a bare expression, such as ``reply.tool_calls | length > 1``; it gives a value with its type."""
    text = text.strip()
    if _PATH.fullmatch(text) and text not in _WORDS:
        return _lookup(text)
    return _jinja_expression(text)


class Names(NamedTuple):
    """The names that a template reads: roots, such as ``inputs``, and members, such as ``("inputs", "question")``."""

    roots: frozenset[str]
    members: frozenset[tuple[str, str]]


def names_in_expression(text: str) -> Names:
    """Give the names that a bare expression reads, without evaluating it.

    Raises:
        TemplateError: it is no expression.
    """
    if _PATH.fullmatch(text.strip()) and text.strip() not in _WORDS:
        root, *keys = text.strip().split(".")
        return Names(frozenset({root}), frozenset({(root, keys[0])} if keys else ()))
    return _names(text, _parse("{{ (" + text + ") }}", shown=text))


def names_in_template(text: str) -> Names:
    """Give the names that a template reads, without evaluating it.

    Raises:
        TemplateError: it is no template.
    """
    return _names(text, _parse(text)) if has_template(text) else Names(frozenset(), frozenset())


def _names(text: str, tree: "nodes.Template") -> Names:
    from jinja2 import nodes
    from jinja2.meta import TrackingCodeGenerator

    tracker = TrackingCodeGenerator(environment())
    tracker.optimizer = None  # what meta.find_undeclared_variables leaves on: it would evaluate constant filters
    _guarded(text, lambda: tracker.visit(tree))
    roots = tracker.undeclared_identifiers - set(environment().globals)
    reads: list[tuple[nodes.Expr, object]] = [(node.node, node.attr) for node in tree.find_all(nodes.Getattr)]
    reads += [(node.node, getattr(node.arg, "value", None)) for node in tree.find_all(nodes.Getitem)]
    members = {
        (owner.name, key)
        for owner, key in reads
        if isinstance(owner, nodes.Name) and owner.name in roots and isinstance(key, str)
    }
    return Names(frozenset(roots), frozenset(members))


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


def compile_text(template: str) -> Callable[[Scope], str]:
    """Compile a template that always gives text, such as a message's content."""
    return _compile_text(template, native=False)


def _compile_text(template: str, *, native: bool) -> Evaluator:
    if not has_template(template):
        return lambda scope: template
    if (path := _ONE_PATH.fullmatch(template)) and path[1] not in _WORDS:
        evaluate = _lookup(path[1])
        return evaluate if native else lambda scope: as_text(evaluate(scope))
    tree = _parse(template)
    if native and (expression := _only_expression(tree)) is not None:
        return _compiled(template, _result_template(expression))
    return _compiled_text(template)


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
        return value

    return evaluate


@cache
def _jinja_expression(text: str) -> Evaluator:
    tree = _parse("{{ (" + text + ") }}", shown=text)
    expression = _only_expression(tree)
    if expression is None:
        raise TemplateError(f"{text!r} is no single expression: write it without braces")
    return _compiled(text, _result_template(expression))


def _compiled(shown: str, tree: "nodes.Template") -> Evaluator:
    template = _guarded(shown, lambda: environment().from_string(tree))

    def evaluate(scope: Scope) -> Any:
        def run() -> Any:
            context = template.new_context(dict(scope))
            for _ in template.root_render_func(context):
                pass
            return _defined(context.vars["result"])

        return _guarded(shown, run)

    return evaluate


def _compiled_text(text: str) -> Callable[[Scope], str]:
    template = _guarded(text, lambda: environment().from_string(text))
    return lambda scope: _guarded(text, lambda: template.render(scope))


def _defined(value: Any) -> Any:
    from jinja2 import Undefined

    if isinstance(value, Undefined):
        str(value)  # a strict one raises an UndefinedError that names what is missing
    return value


def _guarded(shown: str, action: Callable[[], Any]) -> Any:
    """Do something with a template; whatever it raises becomes a TemplateError."""
    try:
        return action()
    except TemplateError:
        raise
    except RecursionError as exc:
        raise TemplateError(f"in {_excerpt(shown)}: nested too deeply") from exc
    except Exception as exc:
        said = getattr(exc, "message", None) or exc  # the text of Jinja2's own errors adds places of no use here
        raise TemplateError(f"in {_excerpt(shown)}: {said}") from exc


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _parse(text: str, *, shown: str | None = None) -> "nodes.Template":
    tree: nodes.Template = _guarded(shown or text, lambda: environment().parse(text))
    return tree


def _only_expression(tree: "nodes.Template") -> "nodes.Expr | None":
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
    tree = nodes.Template(body, lineno=1)
    tree.set_environment(environment())
    return tree


def as_text(value: JSON) -> str:
    """Write a value into a text: None as nothing, text as it is, numbers plainly, all else as JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, (bool, list, tuple, dict)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


@cache
def environment() -> "Environment":
    """Give the one Jinja2 environment in which all specs' templates live."""
    from jinja2 import StrictUndefined, Undefined, pass_context
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Missing(StrictUndefined):
        """Says what there is instead."""

        @property
        def _undefined_message(self) -> str:
            if isinstance(self._undefined_obj, Mapping):
                known = ", ".join(map(str, self._undefined_obj)) or "none"
                return f"there is no member {self._undefined_name!r}; there are: {known}"
            return str(super()._undefined_message)

    class SpecEnvironment(ImmutableSandboxedEnvironment):
        """Members of a mapping come before its methods, so an input named ``items`` can be read."""

        intercepted_binops = frozenset({"*", "**", "%"})

        def getattr(self, obj: Any, attribute: str) -> Any:
            if isinstance(obj, Mapping) and attribute in obj:
                return obj[attribute]
            return super().getattr(obj, attribute)

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _check_size(operator, left, right)
            return super().call_binop(context, operator, left, right)

    @pass_context  # with a context Jinja2 cannot fold constants while compiling, so compiling never evaluates
    def finalize(context: Any, value: Any) -> Any:
        return value if isinstance(value, Undefined) else as_text(value)

    env = SpecEnvironment(
        undefined=Missing, autoescape=False, optimized=False, finalize=finalize, keep_trailing_newline=True
    )
    env.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    for name in ("lipsum", "cycler", "joiner"):
        del env.globals[name]
    return env


def _check_size(operator: str, left: Any, right: Any) -> None:
    """Refuse the operators that make much out of little: powers, repetition, padded formatting."""
    if operator == "**" and (abs(right) > _MAX_EXPONENT or abs(left) > 10**_MAX_EXPONENT):
        raise TemplateError(f"the power {left!r} ** {right!r} is too large")
    if operator == "%" and isinstance(left, str):
        raise TemplateError("'%' does not format text here: use '~' to join, or the filter round")
    if operator == "*":
        for many, times in ((left, right), (right, left)):
            if isinstance(many, (str, list, tuple)) and len(many) * times > _MAX_REPEATED:
                raise TemplateError(f"repeating {_excerpt(str(many))} {times} times is too large")
