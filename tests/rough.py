"""Functions that a flow should survive, and some that it may enjoy."""

import datetime
import enum
import os
import sys
import time
from typing import Annotated


def prints(text: str) -> str:
    """Print everywhere that one can."""
    print(text)
    sys.stdout.write(text)
    os.write(1, text.encode())
    return "printed"


def hangs() -> None:
    """Never come back."""
    while True:
        time.sleep(3600)


def raises() -> None:
    """Raise."""
    raise ValueError("no such city")


def leaves() -> None:
    """Exit the program."""
    sys.exit("bye")


def odd() -> object:
    """Return what is no JSON."""
    return object()


async def double(number: int) -> dict[str, int]:
    """Double a number."""
    return {"doubled": number * 2}


PAID: list[int] = []
TRIES: list[int] = []


def pay(ticket: int) -> int:
    """Pay a ticket; give how often that was done."""
    PAID.append(ticket)
    return PAID.count(ticket)


def flaky() -> str:
    """Fail twice."""
    TRIES.append(1)
    if len(TRIES) < 3:
        raise ValueError("not yet")
    return "ok"


SEEN: list[str] = []


def second(name: str) -> str:
    """Fail the first time for each name."""
    SEEN.append(name)
    if SEEN.count(name) < 2:
        raise ValueError("not yet")
    return f"{name}, at last"


class Unit(enum.Enum):
    """A unit of temperature."""

    CELSIUS = "celsius"


def book(day: datetime.date, unit: Unit, /, count: Annotated[int, "How many."] = 1) -> dict[str, object]:
    """Book a day, and return what came."""
    return {"day": day, "units": {unit}, "year": day.year, "count": count}


def repeat(text: str, times: int) -> str:
    """Repeat a text."""
    return text * times
