"""Return values as JSON: types with a defined JSON form are converted, all others are refused."""

import collections
import dataclasses
import datetime
import decimal
import enum
import pathlib
import types
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun.functions.json_values import MAX_DEPTH, NotJSON, copy_json, to_json

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_json_stays_unchanged(value: Any) -> None:
    assert to_json(value) == value
    assert copy_json(value) == value


@given(JSON_VALUES)
def test_the_result_survives_the_codec(value: Any) -> None:
    assert msgspec.json.decode(msgspec.json.encode(to_json(value))) == value


@pytest.mark.parametrize("copy", [to_json, copy_json])
def test_the_copy_shares_nothing(copy: Any) -> None:
    original: dict[str, Any] = {"rows": [{"a": 1}]}
    copied = copy(original)
    original["rows"][0]["a"] = 2
    original["rows"].append("more")
    assert copied == {"rows": [{"a": 1}]}


class Colour(enum.Enum):
    RED = "red"
    BOTH = ("red", 1)


class Level(enum.IntEnum):
    HIGH = 3


class Name(enum.StrEnum):
    ADA = "ada"


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class Place(NamedTuple):
    city: str
    state: str


@dataclasses.dataclass
class Reading:
    place: Place
    degrees: decimal.Decimal
    parts: "list[Reading]"


class Station(msgspec.Struct, rename="camel"):
    station_id: uuid.UUID
    colour: Colour


class Weather(pydantic.BaseModel):
    at: datetime.datetime
    where: pathlib.Path


@dataclasses.dataclass
class Blob:
    content: bytes


class Array:
    """A class like numpy's arrays and scalars."""

    def tolist(self) -> list[Any]:
        return [1, 2.5]


WHEN = datetime.datetime(2024, 5, 17, 12, 30, tzinfo=datetime.UTC)
ID = uuid.UUID(int=7)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param((1, (2, 3)), [1, [2, 3]], id="tuples"),
        pytest.param(Place("Dallas", "TX"), {"city": "Dallas", "state": "TX"}, id="named tuple"),
        pytest.param(collections.OrderedDict(a=1), {"a": 1}, id="ordered dict"),
        pytest.param(collections.defaultdict(int, a=1), {"a": 1}, id="defaultdict"),
        pytest.param(types.MappingProxyType({"a": [1]}), {"a": [1]}, id="mapping"),
        pytest.param([Colour.RED, Colour.BOTH, Level.HIGH, Name.ADA], ["red", ["red", 1], 3, "ada"], id="enums"),
        pytest.param({Name.ADA: 1, Text("t"): 2}, {"ada": 1, "t": 2}, id="keys of kinds of text"),
        pytest.param(Text("itself"), "itself", id="kind of text"),
        pytest.param([WHEN, WHEN.date(), WHEN.time()], ["2024-05-17T12:30:00Z", "2024-05-17", "12:30:00"], id="times"),
        pytest.param(datetime.timedelta(hours=1), "PT3600S", id="duration"),
        pytest.param([decimal.Decimal("1.50"), ID], ["1.50", str(ID)], id="decimal and uuid"),
        pytest.param(pathlib.PurePosixPath("/tmp/a"), "/tmp/a", id="path"),
        pytest.param(
            Reading(Place("Dallas", "TX"), decimal.Decimal("85.5"), [Reading(Place("a", "b"), decimal.Decimal(1), [])]),
            {
                "place": {"city": "Dallas", "state": "TX"},
                "degrees": "85.5",
                "parts": [{"place": {"city": "a", "state": "b"}, "degrees": "1", "parts": []}],
            },
            id="dataclass",
        ),
        pytest.param(Station(ID, Colour.RED), {"stationId": str(ID), "colour": "red"}, id="struct"),
        pytest.param(
            Weather(at=WHEN, where=pathlib.Path("/a")), {"at": "2024-05-17T12:30:00Z", "where": "/a"}, id="pydantic"
        ),
        pytest.param({"a": Array()}, {"a": [1, 2.5]}, id="array"),
        pytest.param([b"hi", bytearray(b"hi"), memoryview(b"hi")], ["aGk="] * 3, id="bytes"),
        pytest.param([Blob(b"hi")], [{"content": "aGk="}], id="bytes in a dataclass"),
        pytest.param({"a": [{"b", "c", "a"}, frozenset({3})]}, {"a": [["a", "b", "c"], [3]]}, id="sets, in order"),
        pytest.param({"b": 1, "a": 2}.keys(), ["b", "a"], id="keys"),
        pytest.param(
            {1: "a", Colour.RED: "b", WHEN.date(): "c", ID: "d"},
            {"1": "a", "red": "b", "2024-05-17": "c", str(ID): "d"},
            id="keys that have a text",
        ),
    ],
)
def test_types_with_a_json_form(value: Any, expected: Any) -> None:
    converted = to_json(value)
    assert converted == expected
    assert msgspec.json.decode(msgspec.json.encode(converted)) == expected
    keys = converted if isinstance(converted, Mapping) else ()
    assert [key for key in keys if type(key) is not str] == []


class Thing:
    pass


@dataclasses.dataclass
class Holder:
    thing: Thing


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def holding_itself() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


FLATTER = "return a flatter one that does not hold itself"
TOO_DEEP = (
    f"a value nested more than {MAX_DEPTH} levels deep, which is no JSON value, at path {'[0]' * MAX_DEPTH}: {FLATTER}"
)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param(iter([1]), "an iterator, which is no JSON value: return a list of what it yields", id="iterator"),
        pytest.param(
            {"a": {(1, 2): 2}},
            "a mapping with a key of type tuple, which is no JSON value, at path a: make every key a text",
            id="key",
        ),
        pytest.param(
            {1: "a", "1": "b"},
            "a mapping with two keys that have the same text, which is no JSON value: make every key a text of its own",
            id="two keys, one text",
        ),
        pytest.param(
            [float("nan")], "nan, which is no JSON value, at path [0]: return None or a text in its place", id="nan"
        ),
        pytest.param(-float("inf"), "-inf, which is no JSON value: return None or a text in its place", id="infinity"),
        pytest.param(
            2**64, "a whole number of more than 64 bits, which is no JSON value: return it as text", id="large"
        ),
        pytest.param(
            -(10**5000), "a whole number of more than 64 bits, which is no JSON value: return it as text", id="huge"
        ),
        pytest.param(
            "\ud83d",
            "text with half a surrogate pair, which is no JSON value: decode it with errors='replace'",
            id="surrogate",
        ),
        pytest.param(
            {"\udc00": 1},
            "text with half a surrogate pair, which is no JSON value: decode it with errors='replace'",
            id="surrogate in a key",
        ),
        pytest.param(
            Thing(),
            "an object of type Thing, which is no JSON value: return text, numbers, lists or dicts in its place",
            id="object",
        ),
        pytest.param(
            [Holder(Thing())],
            "an object of type Thing, which is no JSON value, at path [0].thing: "
            "return text, numbers, lists or dicts in its place",
            id="dataclass",
        ),
        pytest.param(nested(MAX_DEPTH + 1), TOO_DEEP, id="deep"),
        pytest.param(holding_itself(), TOO_DEEP, id="holds itself"),
    ],
)
def test_values_without_a_json_form_are_refused(value: Any, message: str) -> None:
    with pytest.raises(NotJSON) as caught:
        to_json(value)
    assert str(caught.value) == message


def test_the_deepest_that_is_allowed() -> None:
    assert to_json(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
