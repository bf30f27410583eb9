"""The tools of the project. Each writes what it really does into a file outside of flowrun, which no kill takes back.

A line is appended by one write before the work (``begin``) and, if it succeeded, one after it (``end``), in the form of
``world.Line``. The pauses in between depend on the call and on the number of the command line that makes it.
"""

import asyncio
import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flowrun.calling import current_call


def pay(n: int) -> int:
    """Pay: a call that must be made once."""
    with work("pay", 3 * n + 1) as (value, pause):
        time.sleep(pause)
    return value


async def stamp(n: int) -> int:
    """Stamp, in the event loop: a call that must be made once."""
    with work("stamp", 7 * n + 3) as (value, pause):
        await asyncio.sleep(pause)
    return value


def note(n: int) -> int:
    """Note: a call that may be repeated."""
    with work("note", 5 * n + 2) as (value, pause):
        time.sleep(pause)
    return value


def forge(n: int) -> int:
    """Forge, in a worker process: a call that must be made once."""
    with work("forge", 11 * n + 1) as (value, pause):
        time.sleep(pause)
    return value


def settle(n: int) -> int:
    """Settle at the second attempt."""
    with work("settle", 13 * n + 2) as (value, pause):
        time.sleep(pause)
        if current_call().attempt == 1:
            raise ValueError(f"not yet: {n}")
    return value


def spoil(n: int) -> int:
    """Fail, always, and say a secret."""
    with work("spoil", n):
        raise ValueError(f"{n} is spoiled, {os.environ['SHOP_TOKEN']}")


def tell(n: int) -> str:
    """Say one secret; know another one, and keep it."""
    with work("tell", n) as (value, pause):
        assert os.environ["QUIET_TOKEN"]
        time.sleep(pause)
    return f"{value}: {os.environ['SHOP_TOKEN']}"


@contextmanager
def work(tool: str, value: int) -> Iterator[tuple[int, float]]:
    """Write the begin and the end of a call; yield its value, and the seconds that it takes."""
    call, life = current_call(), int(os.environ["FLOWRUN_TORTURE_LIFE"])
    step = int(call.key.split("/")[1]) + call.attempt - 1
    ledger = os.open(os.environ["FLOWRUN_TORTURE_LEDGER"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(what: str, value: int | None = None) -> None:
        line: list[Any] = [life, os.getpid(), what, call.run, step, call.key, call.attempt, tool, value]
        os.write(ledger, json.dumps(line).encode() + b"\n")

    try:
        write("begin")
        yield value, random.Random(f"{life} {call.key}").random() ** 3 * 0.15
        write("end", value)
    finally:
        os.close(ledger)
