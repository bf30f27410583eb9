"""The members of data are data; the methods of mappings, lists and texts are found only where they are called."""

from typing import Any

import pytest

from flowrun.templates import TemplateError, compile_condition, compile_value

SCOPE: dict[str, Any] = {
    "inputs": {"empty": {}, "full": {"items": [1], "keys": "k"}, "list": [3, 3], "text": "abc", "rows": [{"items": 1}]}
}

METHODS = ("items", "keys", "values", "get", "pop", "copy", "update")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("form", ["inputs.empty.{}", "inputs.empty['{}']", "(inputs.empty | attr('{}'))"])
def test_a_mapping_has_no_member_that_it_does_not_have(form: str, name: str) -> None:
    assert compile_condition(f"{form.format(name)} is defined")(SCOPE) is False


@pytest.mark.parametrize("path", ["inputs.list.count", "inputs.list.index", "inputs.text.title", "inputs.text.format"])
def test_lists_and_texts_have_no_members(path: str) -> None:
    assert compile_condition(f"{path} is defined")(SCOPE) is False
    with pytest.raises(TemplateError):
        compile_condition(path)(SCOPE)


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ inputs.full.items }}", [1]),
        ("{{ inputs.full['items'] }}", [1]),
        ("{{ inputs.full.keys }}", "k"),
        ("{{ inputs.full.items() | length }}", 2),
        ("{{ inputs.empty.get('a', 2) }}", 2),
        ("{{ inputs.list.count(3) }}", 2),
        ("{{ inputs.text.upper() }}", "ABC"),
        ("{{ inputs.rows | map(attribute='items') | list }}", [1]),
        ("{% for row in inputs.rows %}{{ loop.index }}{{ row.items }}{% endfor %}", "11"),
    ],
)
def test_members_and_methods(template: str, value: object) -> None:
    assert compile_value(template)(SCOPE) == value
