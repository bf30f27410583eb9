"""Schemas are derived from signatures and docstrings, and compared with signatures."""

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired, Optional, TypedDict, Union

import pytest

from flowrun.spec import signatures
from flowrun.spec.entrypoints import EntrypointError
from flowrun.spec.model import JSON
from flowrun.spec.signatures import derive_parameters, signature_of


def check_signature(function: Callable[..., Any], schema: JSON) -> list[tuple[str, str]]:
    """Return the messages and remedies of the differences between a function and a declared schema."""
    return [(found.message, found.remedy) for found in signatures.check_signature(signature_of(function), schema)]


class Unit(enum.Enum):
    CELSIUS = "celsius"
    FAHRENHEIT = "fahrenheit"


@dataclasses.dataclass
class City:
    name: str
    state: str = "TX"


@dataclasses.dataclass
class Tree:
    value: int
    children: "list[Tree]" = dataclasses.field(default_factory=list)


class Options(TypedDict):
    a: int
    b: NotRequired[str]


class Opaque:
    def look(self) -> None:
        pass


def google(city: str, unit: Literal["celsius", "fahrenheit"] = "celsius") -> str:
    """Get the current weather
    in a given location.

    It is not a forecast.

    Args:
        city: The city,
            e.g. 'San Francisco'.
        unit (str): The unit.

    Returns:
        A sentence.
    """
    return city + unit


def rest(days: int) -> None:
    """Forecast the weather.

    :param days: How many days.
    """


def by_position(city: str, /, days: int) -> None:
    """Require a positional-only parameter."""


def numpy(city: str) -> None:
    """Look a city up.

    Parameters
    ----------
    city : str
        The city's name.
    """


CITY = {
    "type": "object",
    "title": "City",
    "properties": {"name": {"type": "string"}, "state": {"type": "string", "default": "TX"}},
    "required": ["name"],
}


def derived(kind: Any, default: Any = ...) -> JSON:
    """Derive the schema of the only parameter of a function, which has the type ``kind``."""

    def function(x):  # type: ignore[no-untyped-def]
        return x

    function.__annotations__["x"] = kind
    if default is not ...:
        function.__defaults__ = (default,)
    return derive_parameters(function)[1]["properties"]["x"]


def test_a_schema_is_derived_from_signature_and_docstring() -> None:
    assert derive_parameters(google) == (
        "Get the current weather in a given location.",
        {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "The city, e.g. 'San Francisco'."},
                "unit": {
                    "type": "string",
                    "enum": ["celsius", "fahrenheit"],
                    "description": "The unit.",
                    "default": "celsius",
                },
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    )


def test_the_styles_of_docstrings_are_read() -> None:
    city, days = (
        {"type": "string", "description": "The city's name."},
        {"type": "integer", "description": "How many days."},
    )
    assert derive_parameters(numpy)[1]["properties"] == {"city": city}
    assert derive_parameters(rest)[1]["properties"] == {"days": days}


def test_a_function_that_says_nothing_takes_anything() -> None:
    def function(a, b=None, *rest, **others):  # type: ignore[no-untyped-def]
        pass

    assert derive_parameters(function) == (
        "",
        {
            "type": "object",
            "properties": {"a": {}, "b": {"default": None}},
            "required": ["a"],
            "additionalProperties": True,
        },
    )


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (None, {"type": "null"}),
        (Any, {}),
        (list, {"type": "array"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (Sequence[str], {"type": "array", "items": {"type": "string"}}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (
            tuple[int, str],
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "minItems": 2,
                "maxItems": 2,
                "items": False,
            },
        ),
        (dict, {"type": "object"}),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (Mapping[str, Any], {"type": "object"}),
        (Optional[str], {"anyOf": [{"type": "string"}, {"type": "null"}]}),  # noqa: UP045
        (Union[int, str], {"anyOf": [{"type": "integer"}, {"type": "string"}]}),  # noqa: UP007
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Literal[1, 2], {"type": "integer", "enum": [1, 2]}),
        (Unit, {"type": "string", "title": "Unit", "enum": ["celsius", "fahrenheit"]}),
        (City, CITY),
        (list[City], {"type": "array", "items": CITY}),
        (
            Options,
            {
                "type": "object",
                "title": "Options",
                "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
                "required": ["a"],
            },
        ),
        (Annotated[int, "How many."], {"type": "integer", "description": "How many."}),
        (Annotated[City, 5, "Where."], {**CITY, "description": "Where."}),
    ],
    ids=str,
)
def test_a_type_has_a_schema(kind: Any, schema: JSON) -> None:
    assert derived(kind) == schema


def test_a_recursive_type_keeps_its_references() -> None:
    def function(tree: Tree) -> None:
        pass

    _, schema = derive_parameters(function)
    assert schema["properties"]["tree"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}
    assert schema["$defs"]["Tree"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}


@pytest.mark.parametrize(
    ("default", "written"),
    [
        (5, {"default": 5}),
        (None, {"default": None}),
        ((1, "a"), {"default": [1, "a"]}),
        (Unit.CELSIUS, {"default": "celsius"}),
        (City("Dallas"), {"default": {"name": "Dallas", "state": "TX"}}),
        (Opaque(), {}),
        (print, {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_default_is_shown_if_json_has_it(default: Any, written: JSON) -> None:
    assert derived(Any, default) == written


@pytest.mark.parametrize("function", [Opaque.__init__, Opaque.look, str.upper], ids=["C", "Python", "built in"])
def test_a_method_without_its_object_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(EntrypointError) as caught:
        derive_parameters(function)
    assert caught.value.message == f"{function.__qualname__} is a method, and has no object to be called on"
    assert check_signature(function, declared())[0][0] == caught.value.message


def test_a_parameter_that_is_given_by_position_is_offered_by_name() -> None:
    assert list(derive_parameters(by_position)[1]["properties"]) == ["city", "days"]


def test_a_type_without_a_json_schema_is_refused() -> None:
    with pytest.raises(EntrypointError) as caught:
        derived(Opaque)
    assert caught.value.message.startswith("no JSON Schema can be derived for the parameter 'x': type <class ")
    assert (
        caught.value.remedy == "declare the tool's 'parameters' in the spec, or annotate it with a type that JSON has"
    )


def test_annotations_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(EntrypointError, match="annotations cannot be read: NameError: name 'Nowhere' is not defined"):
        derived("Nowhere")


def declared(*required: str, **properties: JSON) -> JSON:
    return {"type": "object", "properties": properties, "required": list(required)}


def takes(city: str, count: int, unit: Literal["c", "f"] = "c", ratio: float = 1.0, note: str | None = None) -> None:
    """Serve as an example of a tool."""


TEXT, INTEGER = {"type": "string"}, {"type": "integer"}


@pytest.mark.parametrize(
    ("schema", "messages"),
    [
        pytest.param(declared("city", "count", city=TEXT, count=INTEGER), [], id="the least"),
        pytest.param(
            declared(
                "city",
                "count",
                city={"enum": ["Dallas", "Oslo"]},
                count={"const": 3},
                unit={"enum": ["f"]},
                ratio=INTEGER,
                note={"type": ["string", "null"]},
            ),
            [],
            id="narrower types",
        ),
        pytest.param(declared("city", "count", city={}, count={"$ref": "#/x"}), [], id="types that cannot be told"),
        pytest.param(
            declared("city", city=TEXT), ["the function needs 'count', which is not declared"], id="not declared"
        ),
        pytest.param(
            declared("city", city=TEXT, count=INTEGER),
            ["the function needs 'count', which is declared as optional"],
            id="not required",
        ),
        pytest.param(
            declared("city", "count", city=TEXT, count=INTEGER, wibble=TEXT, untis=TEXT),
            ["the function has no parameter 'wibble'", "the function has no parameter 'untis'"],
            id="unknown",
        ),
        pytest.param(
            declared("city", "count", city={"type": ["string", "null"]}, count={"type": "number"}),
            [
                "'city' may be of type null, and the function takes string",
                "'count' may be of type number, and the function takes integer",
            ],
            id="wider types",
        ),
        pytest.param(
            declared("city", "count", city={"anyOf": [TEXT, {"type": "array"}]}, count={"enum": [1, "many", None]}),
            [
                "'city' may be of type array, and the function takes string",
                "'count' may be of type null or string, and the function takes integer",
            ],
            id="one of several types",
        ),
        pytest.param(
            declared("city", "count", city=TEXT, count=INTEGER, unit={"enum": ["c", "k"]}),
            ["'unit' may be 'k', which the function does not take"],
            id="another value",
        ),
        pytest.param(
            {"type": "object"},
            ["the function needs 'city', which is not declared", "the function needs 'count', which is not declared"],
            id="nothing declared",
        ),
    ],
)
def test_a_schema_is_compared_with_a_signature(schema: JSON, messages: list[str]) -> None:
    assert [message for message, _ in check_signature(takes, schema)] == messages


def test_a_misspelt_name_is_reported_with_a_similar_one() -> None:
    assert check_signature(takes, declared("city", "count", city=TEXT, count=INTEGER, nots=TEXT)) == [
        ("the function has no parameter 'nots'", "did you mean 'note'?")
    ]


def test_a_function_with_any_names_takes_what_is_declared() -> None:
    def function(**options: str) -> None:
        pass

    assert check_signature(function, declared("a", a=INTEGER)) == []


def test_parameters_that_are_given_by_position_are_compared_too() -> None:
    assert check_signature(by_position, declared("city", "days", city=TEXT, days=INTEGER)) == []
    assert check_signature(by_position, declared("days", days=INTEGER)) == [
        (
            "the function needs 'city', which is not declared",
            "declare and require it, or give it a default in the function",
        )
    ]


def test_a_type_that_json_cannot_become_disagrees() -> None:
    def function(x: Opaque) -> None:
        pass

    ((message, _),) = check_signature(function, declared("x", x={"type": "object"}))
    assert message.startswith("'x' cannot be given: type <class ")


def test_a_callable_object_is_compared_too() -> None:
    class Tool:
        def __call__(self, city: str) -> str:
            return city

    assert derive_parameters(Tool())[1]["properties"] == {"city": {"type": "string"}}
    assert check_signature(Tool(), declared("city", city=INTEGER)) == [
        (
            "'city' may be of type integer, and the function takes string",
            "change the declared schema or the function's annotation",
        )
    ]
