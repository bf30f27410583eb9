"""Templates: native values, text, conditions, and what they refuse."""

from typing import Any

import pytest

from flowrun.templates import (
    Names,
    TemplateError,
    compile_condition,
    compile_expression,
    compile_text,
    compile_value,
    names_in_expression,
    names_in_template,
)

SCOPE: dict[str, Any] = {
    "inputs": {"n": 3, "items": [1, 2], "name": "Ann", "braces": "{{ inputs.n }}", "none": None, "yes": True},
    "reply": {"content": "hi", "tool_calls": []},
}


@pytest.mark.parametrize(
    ("template", "value"),
    [
        pytest.param("{{ inputs.n }}", 3, id="one path keeps its type"),
        pytest.param("{{ inputs.n + 1 }}", 4, id="one expression keeps its type"),
        pytest.param("{{ inputs.items }}", [1, 2], id="a member before a method"),
        pytest.param("{{ inputs.name.upper() }}", "ANN", id="a method"),
        pytest.param("n = {{ inputs.n }}", "n = 3", id="text"),
        pytest.param("{{ inputs.n }}\n", "3\n", id="a trailing newline makes text"),
        pytest.param("{{ inputs.items }} {{ inputs.none }}|{{ inputs.yes }}", "[1, 2] |true", id="JSON in text"),
        pytest.param("{{ inputs.braces }}", "{{ inputs.n }}", id="never rendered again"),
        pytest.param('{"a": {"b": 1}}', '{"a": {"b": 1}}', id="JSON with braces is no template"),
        pytest.param("{{ inputs.name }} & <b>", "Ann & <b>", id="no escaping"),
        pytest.param("{{ {'a': inputs.n} }}", {"a": 3}, id="a mapping"),
        pytest.param("{{ inputs | tojson }}{# gone #}", None, id="tojson"),
        pytest.param({"a": ["{{ inputs.n }}", 7]}, {"a": [3, 7]}, id="inside a structure"),
        pytest.param(None, None, id="no text"),
    ],
)
def test_values(template: Any, value: Any) -> None:
    if value is None and isinstance(template, str):
        value = '{"n": 3, "items": [1, 2], "name": "Ann", "braces": "{{ inputs.n }}", "none": null, "yes": true}'
    assert compile_value(template)(SCOPE) == value


def test_text_is_always_text() -> None:
    assert compile_text("{{ inputs.n }}")(SCOPE) == "3"
    assert compile_text("{{ inputs.items }}")(SCOPE) == "[1, 2]"


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        pytest.param("true", True, id="a constant"),
        pytest.param("reply.tool_calls", False, id="an empty list"),
        pytest.param("inputs.items", True, id="a list"),
        pytest.param("inputs.none", False, id="none"),
        pytest.param("inputs.n > 2 and not reply.tool_calls", True, id="an expression"),
        pytest.param("'a' in inputs.name | lower", True, id="a filter"),
    ],
)
def test_conditions(when: str, holds: bool) -> None:
    assert compile_condition(when)(SCOPE) is holds


@pytest.mark.parametrize(
    ("template", "message"),
    [
        pytest.param(
            "{{ inputs.x }}",
            "in 'inputs.x': there is no member 'x'; there are: n, items, name, braces, none, yes",
            id="no such member",
        ),
        pytest.param("{{ replies }}", "in 'replies': 'replies' is undefined", id="no such name"),
        pytest.param(
            "{{ reply.x.y }}", "in 'reply.x.y': there is no member 'x'; there are: content, tool_calls", id="beyond it"
        ),
        pytest.param("{{ 'a' * 10000000 }}", "repeating 'a' 10000000 times is too large", id="much out of little"),
        pytest.param("{{ 9 ** 9999999 }}", "the power 9 ** 9999999 is too large", id="a power"),
        pytest.param(
            "{{ '%99999999d' % 1 }}",
            "'%' does not format text here: use '~' to join, or the filter round",
            id="padding",
        ),
        pytest.param(
            "{{ ''.__class__.__mro__ }}",
            "in \"{{ ''.__class__.__mro__ }}\": access to attribute '__class__' of 'str' object is unsafe.",
            id="the way out of the sandbox",
        ),
        pytest.param(
            "{{ inputs.items.append(3) }}",
            "in '{{ inputs.items.append(3) }}': access to attribute 'append' of 'list' object is unsafe.",
            id="changing what is seen",
        ),
    ],
)
def test_failures(template: str, message: str) -> None:
    with pytest.raises(TemplateError) as raised:
        compile_value(template)(SCOPE)
    assert str(raised.value) == message


def test_a_condition_must_be_one() -> None:
    with pytest.raises(TemplateError, match="gave 3, which is neither true nor false"):
        compile_condition("inputs.n")(SCOPE)


@pytest.mark.parametrize("text", ["{{ a", "{% if %}", "{{ 1 2 }}", "{% for x in y %}"])
def test_no_jinja(text: str) -> None:
    with pytest.raises(TemplateError):
        compile_value(text)


def test_compiling_evaluates_nothing() -> None:
    endless = "{{ 'a' | center(10 ** 12) }}"
    compile_value(endless)
    names_in_template(endless)
    names_in_expression("'a' | center(1000000000000)")
    with pytest.raises(TemplateError):
        compile_expression("1, 2, }} {{ 3")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        pytest.param("reply.tool_calls", Names(frozenset({"reply"}), frozenset({("reply", "tool_calls")})), id="path"),
        pytest.param(
            "[x.a for x in y] if false else inputs['q']",
            None,
            id="no comprehension in Jinja2",
        ),
        pytest.param(
            "inputs['q'] and vars.a.b",
            Names(frozenset({"inputs", "vars"}), frozenset({("inputs", "q"), ("vars", "a")})),
            id="members",
        ),
    ],
)
def test_names_in_expressions(text: str, names: Names | None) -> None:
    if names is None:
        with pytest.raises(TemplateError):
            names_in_expression(text)
    else:
        assert names_in_expression(text) == names


def test_names_in_templates_leave_out_what_the_template_sets() -> None:
    text = "{% for x in inputs.items %}{{ x.y }}{{ range(3) }}{% set z = 1 %}{{ z }}{% endfor %}{{ loose }}"
    assert names_in_template(text).roots == {"inputs", "loose"}
