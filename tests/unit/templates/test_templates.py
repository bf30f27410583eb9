"""Templates: native values, text, conditions and errors."""

from typing import Any

import pytest

from flowrun.templates import (
    TemplateError,
    compile_condition,
    compile_expression,
    compile_text,
    compile_value,
)

SCOPE: dict[str, Any] = {
    "inputs": {"n": 3, "items": [1, 2], "name": "Ann", "braces": "{{ inputs.n }}", "none": None, "yes": True},
    "reply": {"content": "hi", "tool_calls": []},
}


@pytest.mark.parametrize(
    ("template", "value"),
    [
        pytest.param("{{ inputs.n }}", 3, id="type of a single path"),
        pytest.param("{{ inputs.n + 1 }}", 4, id="type of a single expression"),
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
            "{{ reply.x.y }}",
            "in 'reply.x.y': there is no member 'x'; there are: content, tool_calls",
            id="nested",
        ),
        pytest.param(
            "{{ 'a' * 10000000 }}",
            "in \"{{ 'a' * 10000000 }}\": repeating 'a' 10000000 times is too large",
            id="repetition",
        ),
        pytest.param(
            "{{ 9 ** 9999999 }}", "in '{{ 9 ** 9999999 }}': the power 9 ** 9999999 is too large", id="a power"
        ),
        pytest.param(
            "{{ '%99999999d' % 1 }}",
            "in \"{{ '%99999999d' % 1 }}\": "
            "'%' does not format text here: use '~' to join, or the filters format and round",
            id="padding",
        ),
        pytest.param(
            "{{ ''.__class__.__mro__ }}",
            "in \"{{ ''.__class__.__mro__ }}\": access to attribute '__class__' of 'str' object is unsafe.",
            id="escape from the sandbox",
        ),
        pytest.param(
            "{{ inputs.items.append(3) }}",
            "in '{{ inputs.items.append(3) }}': access to attribute 'append' of 'list' object is unsafe.",
            id="change of an input",
        ),
    ],
)
def test_failures(template: str, message: str) -> None:
    with pytest.raises(TemplateError) as raised:
        compile_value(template)(SCOPE)
    assert str(raised.value) == message


METHODS = {
    "mapping": ("items", "values", "keys", "get", "pop", "copy", "update"),
    "sequence": ("count", "index", "copy", "append"),
    "text": ("title", "format", "count", "upper"),
    "number": ("real", "numerator", "bit_length"),
}


@pytest.mark.parametrize(("value", "name"), [(value, name) for value, names in METHODS.items() for name in names])
def test_a_method_is_no_member(value: str, name: str) -> None:
    scope = {"mapping": {}, "sequence": [], "text": "x", "number": 7}
    for reads in (f"{value}.{name}", f"{value}['{name}']", f"[{value}] | map(attribute='{name}') | first"):
        assert compile_expression(f"{reads} is defined")(scope) is False
        with pytest.raises(TemplateError):
            compile_value("{{ " + reads + " }}")(scope)


@pytest.mark.parametrize("name", METHODS["mapping"])
def test_a_member_with_the_name_of_a_method_is_data(name: str) -> None:
    scope = {"mapping": {name: [1, 2]}}
    for reads in (f"mapping.{name}", f"mapping['{name}']", f"[mapping] | map(attribute='{name}') | first"):
        assert compile_expression(reads)(scope) == [1, 2]
        assert compile_expression(f"{reads} | length")(scope) == 2
    assert compile_text(f"{{% for one in mapping.{name} %}}{{{{ one }}}}{{% endfor %}}")(scope) == "12"


def test_methods_can_be_called() -> None:
    template = "{% for key, one in a.items() %}{{ key.upper() }}{{ one.get('b', 2) }}{{ loop.index }}{% endfor %}"
    assert compile_text(template)({"a": {"x": {"b": 1}, "y": {}}}) == "X11Y22"


def test_a_condition_must_be_true_or_false() -> None:
    with pytest.raises(TemplateError, match="gave 3, which is neither true nor false"):
        compile_condition("inputs.n")(SCOPE)


@pytest.mark.parametrize("text", ["{{ a", "{% if %}", "{{ 1 2 }}", "{% for x in y %}"])
def test_invalid_jinja(text: str) -> None:
    with pytest.raises(TemplateError):
        compile_value(text)


def test_compiling_evaluates_nothing() -> None:
    compile_value("{{ 'a' | center(10 ** 12) }}")
    with pytest.raises(TemplateError):
        compile_expression("1, 2, }} {{ 3")


@pytest.mark.parametrize(
    ("template", "value"),
    [
        pytest.param("{{ inputs.items | map('string') }}", ["1", "2"], id="an iterator becomes a list"),
        pytest.param("{{ range(3) }}", [0, 1, 2], id="a range"),
        pytest.param("{{ inputs.name | escape }}", "Ann", id="Markup becomes text"),
        pytest.param("{{ inputs.items ~ true ~ none ~ 1.5 }}", "[1, 2]true1.5", id="joined by an operator"),
        pytest.param("{{ [[1], none, 'a'] | join('-') }}", "[1]--a", id="joined by a filter"),
        pytest.param("{{ [[1], [2]] | sum(start=[]) }}", [1, 2], id="lists added up"),
        pytest.param("{{ '%.2f' | format(2.5) }} {{ '{:>4}'.format('x') }}", "2.50    x", id="formats"),
        pytest.param(
            "{% for x in inputs.items %}{{ loop.index }}/{{ loop.length }} {% endfor %}", "1/2 2/2 ", id="loop"
        ),
        pytest.param(
            "{% for x in [[1, [2]]] recursive %}{{ loop(x) if x is iterable else x }},{% endfor %}",
            "1,2,,,",
            id="a recursive loop",
        ),
        pytest.param("{{ inputs | tojson(indent=1) | length > 20 }}", True, id="indented JSON"),
    ],
)
def test_more_values(template: str, value: Any) -> None:
    assert compile_value(template)(SCOPE) == value


TOO_EXPENSIVE = [
    "{{ 'a' | center(10 ** 10) }}",
    "{{ 'a'.ljust(10 ** 9) }}",
    "{{ 'a'.zfill(10 ** 9) }}",
    "{{ ('a\n' * 400000) | indent(1000) }}",
    "{{ ('a' * 900000).replace('a', 'b' * 1000) }}",
    "{{ ('a' * 900000) | replace('', 'b' * 1000) }}",
    "{{ '{:>999999999}'.format(1) }}",
    "{{ '{:{w}}'.format(1, w=10 ** 9) }}",
    "{{ '{a:>999999999}'.format_map({'a': 1}) }}",
    "{{ '%999999999d' | format(1) }}",
    "{{ '%*d' | format(10 ** 9, 1) }}",
    "{{ ('9' * 900000) | int }}",
    "{{ ('9' * 900000) | int(0, 16) }}",
    "{{ 2.5 | round(10 ** 9, 'ceil') }}",
    "{{ inputs | tojson(indent=10 ** 9) }}",
    "{{ ('<!---->' * 100000) | striptags }}",
    "{{ ('a ' * 450000) | wordwrap(1) }}",
    "{{ (['a' * 900000] * 10) | join }}",
    "{{ (['a' * 900000] * 10) | tojson }}",
    "{{ [1] | batch(10 ** 9, 'x') | list }}",
    "{{ [1] | slice(10 ** 9) | list }}",
    "{{ [[1] * 99999] * 9999 }}",
    "{{ ([[1] * 9999] * 999) | sum(start=[]) }}",
    "{{ range(10 ** 9) }}",
    "{{ range(99999) | map('center', 9999) | list }}",
    "{{ range(90000) | select('in', range(90000) | list) | list }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(9999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
    "{% for i in range(9) recursive %}{% if loop.depth < 9 %}{{ loop(range(99999)) }}{% endif %}{% endfor %}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(50) }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{% set ns = namespace(s=9) %}{% for i in range(99) %}{% set ns.s = ns.s * ns.s %}{% endfor %}",
    "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = {'a': ns.s, 'b': ns.s} %}{% endfor %}",
    "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = dict(a=ns.s, b=ns.s) %}{% endfor %}",
    "{% for i in range(99999) %}{{ inputs.name in ['x'] * 999 }}{% endfor %}",
    "{% for i in range(99999) %}{% set x = ('x' * 900000)[1:] %}{% endfor %}",
    "{% for i in range(99999) %}" + "y" * 999 + "{% endfor %}",
    "{% for i in range(99999) %}{% set x = ('x' * 900000).split('x') %}{% endfor %}",
]


@pytest.mark.parametrize("template", TOO_EXPENSIVE)
def test_an_evaluation_is_bounded_in_time_and_size(template: str) -> None:
    with pytest.raises(TemplateError):
        compile_value(template)({**SCOPE, "inputs": {**SCOPE["inputs"], "items": None}})


def test_an_exceeded_budget_is_reported() -> None:
    template = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(TemplateError) as raised:
        compile_text(template)(SCOPE)
    assert str(raised.value) == (
        f"in {template!r}: it takes more than 1,000,000 steps: loop over less, or do it in a Python function"
    )


def test_ordinary_templates_are_within_the_budget() -> None:
    rows = [{"name": f"n{i}", "value": i} for i in range(2000)]
    template = "{% for r in rows %}{% if r.value > 3 %}{{ loop.index }}. {{ r.name | upper }}\n{% endif %}{% endfor %}"
    assert compile_text(template)({"rows": rows}).count("\n") == 1996
    growing = "{% set ns = namespace(l=[]) %}{% for r in rows %}{% set ns.l = ns.l + [r.name] %}{% endfor %}"
    collected = growing + "{{ ns.l | length }}"
    assert compile_text(collected)({"rows": rows}) == "2000"
    assert compile_value("{{ rows | selectattr('value', 'gt', 1990) | map(attribute='name') | list }}")(
        {"rows": rows}
    ) == [f"n{i}" for i in range(1991, 2000)]


ESCAPES = [
    "{{ ''.__class__ }}",
    "{{ ''['__class__'] }}",
    "{{ '' | attr('__class__') }}",
    "{{ [''] | map(attribute='__class__') | list }}",
    "{{ [''] | map('attr', '__class__') | list }}",
    "{{ [''] | groupby('__class__') }}",
    "{{ [''] | sort(attribute='__class__.__name__') }}",
    "{{ '{0.__class__}'.format('') }}",
    "{{ '{x.__class__}'.format_map({'x': ''}) }}",
    "{% set f = '{0.__class__}'.format %}{{ f('') }}",
    "{{ ['{0.__class__}'] | map(attribute='format') | map('list') }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ namespace()['__class__'] }}",
    "{{ self.__init__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ cycler.__init__ }}",
    "{{ joiner }}",
    "{{ lipsum() }}",
    "{{ range.__self__ }}",
    "{{ dict.mro() }}",
    "{% for x in [1] %}{{ loop.__class__ }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "{{ inputs.__class__ }}",
    "{{ inputs.update({'a': 1}) }}",
    "{{ inputs['items'].append(1) }}",
    "{{ (1).to_bytes(10 ** 9, 'big') }}",
    "{{ 'a'.encode() }}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% from 'x' import y %}",
    "{% extends 'x' %}",
    "{% block a %}{% endblock %}",
    "{% autoescape true %}{% endautoescape %}",
    "{{ [1, 2] | random }}",
    "{{ x | pprint }}",
]


@pytest.mark.parametrize("template", ESCAPES)
def test_the_sandbox_cannot_be_escaped(template: str) -> None:
    with pytest.raises(TemplateError):
        compile_value(template)(SCOPE)
