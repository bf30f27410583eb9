"""Arguments become the types of the signature, values leave by the same table, and what does not fit is refused."""

import asyncio
import dataclasses
import datetime
import enum
import functools
import inspect
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, LiteralString, NamedTuple, NewType, NotRequired, Optional, TypedDict

import msgspec
import pydantic
import pytest

from flowrun.core.events import CallFunction
from flowrun.core.json_schema import compile_schema
from flowrun.errors import ToolError
from flowrun.functions.arguments import BoundFunction, accept_json
from flowrun.functions.json_values import to_json
from flowrun.functions.outcomes import call_outcome
from flowrun.functions.python import PythonFunctions
from flowrun.spec.entrypoints import EntrypointError
from flowrun.spec.model import JSON
from flowrun.spec.signatures import derive_parameters


class Unit(enum.Enum):
    CELSIUS = "celsius"
    KELVIN = "kelvin"


class Level(enum.IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: int
    y: float = 0.5


class Options(TypedDict):
    unit: Unit
    day: NotRequired[datetime.date]


@dataclasses.dataclass
class City:
    name: str
    founded: datetime.date
    where: Point | None = None
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Tree:
    value: Decimal
    children: "list[Tree]" = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Cat:
    meow: int


@dataclasses.dataclass
class Dog:
    bark: int


class Station(msgspec.Struct):
    id: uuid.UUID
    unit: Unit = Unit.CELSIUS


class Guest(pydantic.BaseModel):
    name: str
    since: datetime.date
    friends: "list[Guest]" = []


@dataclasses.dataclass
class Booking:
    guest: Guest
    nights: Annotated[int, pydantic.Field(le=7)]


Name = NewType("Name", str)
ID = uuid.UUID(int=7)
DAY = datetime.date(2026, 3, 1)
ADA = Guest(name="Ada", since=DAY)
ADA_JSON = {"name": "Ada", "since": "2026-03-01", "friends": []}


def taking(kind: Any) -> Callable[..., Any]:
    """Return a function that returns its only argument, which has a type."""

    def function(x):  # type: ignore[no-untyped-def]
        return x

    function.__annotations__["x"] = kind
    return function


@pytest.mark.parametrize(
    ("kind", "given", "value", "left"),
    [
        (int, 3, 3, 3),
        (int, 3.0, 3, 3),
        (float, 3, 3.0, 3.0),
        (Any, 3.0, 3.0, 3.0),
        (object, [3.0], [3.0], [3.0]),
        (list[int], [1.0, 2], [1, 2], [1, 2]),
        (dict[str, list[int]], {"a": [1.0]}, {"a": [1]}, {"a": [1]}),
        (dict[int, str], {"1": "a"}, {1: "a"}, {"1": "a"}),
        (dict[Unit, int], {"kelvin": 1}, {Unit.KELVIN: 1}, {"kelvin": 1}),
        (Sequence[str], ["a"], ["a"], ["a"]),
        (Iterable[datetime.date], ["2026-03-01"], [DAY], ["2026-03-01"]),
        (Mapping[str, Decimal], {"a": 1.5}, {"a": Decimal("1.5")}, {"a": "1.5"}),
        (set[int], [2, 1], {1, 2}, [1, 2]),
        (frozenset[Unit], ["kelvin"], frozenset({Unit.KELVIN}), ["kelvin"]),
        (tuple[int, str], [1, "a"], (1, "a"), [1, "a"]),
        (tuple[float, ...], [1, 2.5], (1.0, 2.5), [1.0, 2.5]),
        (bytes, "aGk=", b"hi", "aGk="),
        (Unit, "celsius", Unit.CELSIUS, "celsius"),
        (Level, 1.0, Level.LOW, 1),
        (Literal["a", 1], 1.0, 1, 1),
        (datetime.date, "2026-03-01", DAY, "2026-03-01"),
        (datetime.datetime, "2026-03-01T10:00:00", datetime.datetime(2026, 3, 1, 10), "2026-03-01T10:00:00"),
        (datetime.time, "10:30:00", datetime.time(10, 30), "10:30:00"),
        (datetime.timedelta, "PT90S", datetime.timedelta(seconds=90), "PT90S"),
        (uuid.UUID, str(ID), ID, str(ID)),
        (Decimal, "1.50", Decimal("1.50"), "1.50"),
        (Decimal, 1.1, Decimal("1.1"), "1.1"),
        (Path, "/tmp/a", Path("/tmp/a"), "/tmp/a"),
        (Name, "a", "a", "a"),
        (LiteralString, "a", "a", "a"),
        (pydantic.HttpUrl, "http://a.b/", pydantic.HttpUrl("http://a.b/"), "http://a.b/"),
        (Optional[datetime.date], None, None, None),  # noqa: UP045
        (datetime.date | None, "2026-03-01", DAY, "2026-03-01"),
        (datetime.date | str, "soon", "soon", "soon"),
        (datetime.date | str, "2026-03-01", DAY, "2026-03-01"),
        (Unit | int, 2.0, 2, 2),
        (Cat | Dog, {"bark": 1.0}, Dog(1), {"bark": 1}),
        (list[Cat | Dog], [{"meow": 1}], [Cat(1)], [{"meow": 1}]),
        (Point, {"x": 1}, Point(1), {"x": 1, "y": 0.5}),
        (list[Point], [{"x": 1.0, "y": 2}], [Point(1, 2.0)], [{"x": 1, "y": 2.0}]),
        (Options, {"unit": "kelvin"}, {"unit": Unit.KELVIN}, {"unit": "kelvin"}),
        (
            City,
            {"name": "a", "founded": "2026-03-01", "where": {"x": 1}},
            City("a", DAY, Point(1)),
            {"name": "a", "founded": "2026-03-01", "where": {"x": 1, "y": 0.5}, "tags": []},
        ),
        (
            Tree,
            {"value": 1, "children": [{"value": "2.0"}]},
            Tree(Decimal(1), [Tree(Decimal("2.0"))]),
            {"value": "1", "children": [{"value": "2.0", "children": []}]},
        ),
        (Station, {"id": str(ID)}, Station(ID), {"id": str(ID), "unit": "celsius"}),
        (Guest, ADA_JSON, ADA, ADA_JSON),
        (list[Guest] | None, [ADA_JSON], [ADA], [ADA_JSON]),
        (Booking, {"guest": ADA_JSON, "nights": 2.0}, Booking(ADA, 2), {"guest": ADA_JSON, "nights": 2}),
        (Annotated[int, pydantic.Field(le=7)], 7.0, 7, 7),
        (Annotated[int, msgspec.Meta(ge=1)], 1.0, 1, 1),
        (Annotated[datetime.date, "When."], "2026-03-01", DAY, "2026-03-01"),
    ],
    ids=str,
)
def test_a_value_arrives_as_its_type_and_leaves_by_the_same_table(
    kind: Any, given: JSON, value: Any, left: JSON
) -> None:
    function = taking(kind)
    _, schema = derive_parameters(function)
    assert compile_schema(schema)({"x": given}) is None
    bound = BoundFunction(function)
    arrived = bound.call(**bound.prepare({"x": given}))
    assert (arrived, type(arrived)) == (value, type(value))
    assert repr(arrived) == repr(value)  # 3 == 3.0
    assert repr(to_json(arrived)) == repr(left)
    assert compile_schema(schema)({"x": left}) is None


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (int, 2.5, "x: Expected int, got float"),
        (int, True, "x: Expected int, got bool"),
        (str, None, "x: Expected str, got null"),
        (list[int], [1, "a"], "x: Expected int, got str, at [1]"),
        (datetime.date, "soon", "x: Invalid RFC3339 encoded date"),
        (datetime.date | Unit, "soon", "x: Invalid RFC3339 encoded date, or Invalid enum value 'soon'"),
        (list[datetime.date | Unit], ["soon"], "x: Invalid RFC3339 encoded date, or Invalid enum value 'soon', at [0]"),
        (Decimal, "much", "x: Invalid decimal string"),
        (Unit, "rankine", "x: Invalid enum value 'rankine'"),
        (Point, {"y": 1}, "x: Object missing required field x"),
        (Path, 1, "x: Expected str, got int"),
        (set[Any], [[1]], "x: unhashable type: 'list'"),
        (City, {"name": "a", "founded": 1}, "x: Expected date, got int, at founded"),
        (Annotated[int, msgspec.Meta(le=7)], 8, "x: Expected int <= 7"),
        (Annotated[int, pydantic.Field(le=7)], 8, "x: Input should be less than or equal to 7"),
        (
            list[Guest],
            [{"since": "soon"}],
            "x: Field required, at 0.name; Input should be a valid date or datetime, input is too short, at 0.since",
        ),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_is_refused_before_the_function_runs(kind: Any, given: JSON, message: str) -> None:
    ran = []

    def function(x):  # type: ignore[no-untyped-def]
        ran.append(x)

    function.__annotations__["x"] = kind
    with pytest.raises(ToolError) as caught:
        call(function, x=given)
    assert (caught.value.name, caught.value.message) == ("tool.invalid_arguments", message)
    assert ran == []


def call(function: Callable[..., Any], **arguments: JSON) -> JSON:
    effect = CallFunction(step=1, state="s", run="r", entrypoint="m:f", arguments=arguments)
    return asyncio.run(PythonFunctions({"m:f": function}).call(effect))


def book(day: datetime.date, /, unit: Unit = Unit.CELSIUS, *, count: int = 1, **others: datetime.date) -> JSON:
    """Book a day."""
    return [day.isoformat(), unit.name, count, {name: other.year for name, other in others.items()}]


async def book_later(day: datetime.date, /, unit: Unit = Unit.CELSIUS, *, count: int = 1) -> JSON:
    await asyncio.sleep(0)
    return book(day, unit, count=count)


class Desk:
    """A desk."""

    def __init__(self, unit: Unit = Unit.CELSIUS) -> None:
        self.unit = unit

    def look(self, day: datetime.date) -> str:
        """Look a day up."""
        return f"{day:%d} {self.unit.name}"

    def __call__(self, day: datetime.date) -> str:
        return self.look(day)

    @classmethod
    def named(cls, unit: Unit) -> str:
        return f"{cls.__name__} {unit.name}"

    @staticmethod
    def free(unit: Unit) -> str:
        return unit.name


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def by_places(a: int, b: int = 2, c: int = 3, /) -> list[int]:
    return [a, b, c]


@pytest.mark.parametrize(
    ("function", "offered", "arguments", "value"),
    [
        (book, ["day", "unit", "count"], {"day": "2026-03-01", "count": 2.0}, ["2026-03-01", "CELSIUS", 2, {}]),
        (
            book,
            ["day", "unit", "count"],
            {"day": "2026-03-01", "x": "2025-01-01"},
            ["2026-03-01", "CELSIUS", 1, {"x": 2025}],
        ),
        (book_later, ["day", "unit", "count"], {"day": "2026-03-01"}, ["2026-03-01", "CELSIUS", 1, {}]),
        (by_places, ["a", "b", "c"], {"a": 1, "c": 4.0}, [1, 2, 4]),
        (decorated(book), ["day", "unit", "count"], {"day": "2026-03-01"}, ["2026-03-01", "CELSIUS", 1, {}]),
        (Desk().look, ["day"], {"day": "2026-03-01"}, "01 CELSIUS"),
        (Desk(), ["day"], {"day": "2026-03-01"}, "01 CELSIUS"),
        (Desk.named, ["unit"], {"unit": "kelvin"}, "Desk KELVIN"),
        (Desk.free, ["unit"], {"unit": "kelvin"}, "KELVIN"),
        (functools.partial(Desk.look, Desk(Unit.KELVIN)), ["day"], {"day": "2026-03-01"}, "01 KELVIN"),
        (
            functools.partial(book, unit=Unit.KELVIN),
            ["day", "count"],
            {"day": "2026-03-01"},
            ["2026-03-01", "KELVIN", 1, {}],
        ),
        (
            City,
            ["name", "founded", "where", "tags"],
            {"name": "a", "founded": "2026-03-01"},
            {"name": "a", "founded": "2026-03-01", "where": None, "tags": []},
        ),
        (Point, ["x", "y"], {"x": 1.0}, {"x": 1, "y": 0.5}),
        (Guest, ["name", "since", "friends"], {"name": "Ada", "since": "2026-03-01"}, ADA_JSON),
    ],
    ids=lambda value: getattr(value, "__qualname__", "partial" if callable(value) else ""),
)
def test_every_callable_gets_what_it_offers(
    function: Callable[..., Any], offered: list[str], arguments: dict[str, JSON], value: JSON
) -> None:
    assert list(derive_parameters(function)[1]["properties"]) == offered
    assert call(function, **arguments) == value


def test_a_method_without_its_object_is_refused() -> None:
    with pytest.raises(EntrypointError, match=r"Desk\.look is a method, and has no object to be called on"):
        derive_parameters(Desk.look)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "'day' is missing"),
        ({"day": "2026-03-01", "unti": 1}, "there is no parameter 'unti'; there are: day, unit, count"),
        ({"unit": 1}, "'day' is missing; unit: Expected str, got int"),
    ],
)
def test_all_that_is_wrong_is_said(arguments: dict[str, JSON], message: str) -> None:
    with pytest.raises(ToolError) as caught:
        call(book_later, **arguments)
    assert (caught.value.name, caught.value.message) == ("tool.invalid_arguments", message)


def test_what_a_partial_fixes_cannot_be_given() -> None:
    with pytest.raises(ToolError, match="there is no parameter 'count'"):
        call(functools.partial(book_later, count=1), day="2026-03-01", count=2)


def test_descriptions_and_bounds_of_annotations_are_declared() -> None:
    class Doc:
        documentation = "Which unit."

    def function(
        days: Annotated[int, pydantic.Field(description="How many.", le=7)],
        hours: Annotated[int, msgspec.Meta(description="How long.", ge=1)],
        unit: Annotated[str, Doc()],
        worst: float = float("nan"),
        best: float = float("inf"),
    ) -> None:
        pass

    assert derive_parameters(function)[1] == {
        "type": "object",
        "properties": {
            "days": {"type": "integer", "maximum": 7, "description": "How many."},
            "hours": {"type": "integer", "minimum": 1, "description": "How long."},
            "unit": {"type": "string", "description": "Which unit."},
            "worst": {"type": "number"},
            "best": {"type": "number"},
        },
        "required": ["days", "hours", "unit"],
        "additionalProperties": False,
    }


def test_what_the_result_is_annotated_with_is_not_read() -> None:
    def function(day: datetime.date) -> "OnlyForTheTypeChecker":  # type: ignore[name-defined]  # noqa: F821
        return day.year

    assert call(function, day="2026-03-01") == 2026


def test_the_functions_changes_reach_nothing_else() -> None:
    def function(plain: dict, typed: dict[str, list[int]]) -> None:  # type: ignore[type-arg]
        plain["a"].append(1)
        typed["a"].append(1)

    arguments: dict[str, JSON] = {"plain": {"a": []}, "typed": {"a": []}}
    call(function, **arguments)
    assert arguments == {"plain": {"a": []}, "typed": {"a": []}}


@pytest.mark.parametrize("function", [book, book_later])
def test_a_worker_calls_with_json_and_gets_json_or_the_failure(function: Callable[..., Any]) -> None:
    accepting = accept_json(function)

    def outcome(**arguments: JSON) -> JSON | ToolError:
        if not inspect.iscoroutinefunction(accepting):
            return call_outcome(accepting, arguments)
        return call_outcome(lambda **given: asyncio.run(accepting(**given)), arguments)

    assert outcome(day="2026-03-01") == ["2026-03-01", "CELSIUS", 1, {}]
    failure = outcome(day=1)
    assert isinstance(failure, ToolError)
    assert (failure.name, failure.message) == ("tool.invalid_arguments", "day: Expected date, got int")
