"""Functions that a flow should survive, and some that it may enjoy."""

import os
import sys
import time


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


def odd() -> bytes:
    """Return what is no JSON."""
    return b"\xff"


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
