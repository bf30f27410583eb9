"""Functions that harm more than their own call, if nothing keeps them from it."""

import asyncio
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from flowrun.calling import current_call

STARTED_AT_IMPORT = os.environ.get("HARMFUL_STARTS_AT_IMPORT")
if STARTED_AT_IMPORT:
    subprocess.Popen(["sleep", STARTED_AT_IMPORT])


def add(a: int, b: int) -> int:
    return a + b


async def add_later(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


def leave(code: int = 0) -> None:
    os._exit(code)


def replace() -> None:
    os.execvp("true", ["true"])


def leave_in_c() -> None:
    ctypes.CDLL(None)._exit(0)


def crash() -> None:
    ctypes.string_at(0)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hold(seconds: float = 3600.0) -> str:
    """Keep Python's lock."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6)) if seconds < 1 else re.search("(a+)+$", "a" * 40 + "!")
    return "held"


async def block() -> None:
    """Keep the event loop."""
    time.sleep(3600)  # noqa: ASYNC251


def start_children(file: str, then: str) -> str:
    """Start a child, a grandchild with a session of its own and an orphan; write their process ids."""
    script = "sleep 600 & echo $!; setsid sleep 600 & echo $!; (setsid sleep 600 & echo $!)"
    child = subprocess.Popen(["sh", "-c", f"({script}) >{file}.new; mv {file}.new {file}; exec sleep 600"])
    while not Path(file).exists():
        time.sleep(0.01)
    with open(file, "a") as out:
        out.write(f"{child.pid}\n")
    if then == "hang":
        time.sleep(3600)
    if then == "leave":
        os._exit(3)
    return "left"


def fork() -> str:
    return "child" if os.fork() == 0 else "parent"


def close_streams() -> str:
    sys.stdout.close()
    sys.stderr.detach()  # type: ignore[union-attr]
    return "closed"


def wrap_stdout() -> str:
    import io

    io.TextIOWrapper(sys.stdout.buffer)
    return "wrapped"


def close_descriptors() -> str:
    os.closerange(0, 3)
    return "closed"


def close_all() -> str:
    os.closerange(0, 256)
    return "closed"


def replace_streams() -> str:
    sys.stdout = sys.stderr = None
    return "replaced"


def lose_json() -> str:
    json.dumps = json.loads = None  # type: ignore[assignment]
    return "lost"


def forge_json() -> str:
    def forged(*args: Any, **kwargs: Any) -> str:
        return '"forged"'

    json.dumps = forged
    return "forged"


def write_everywhere() -> str:
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, (3).to_bytes(8, "big") + b"abc" * 3)
        except OSError:
            pass
    return "written"


def read_stdin() -> str:
    return sys.stdin.read()


def say(text: str) -> str:
    print(text)
    os.write(1, f"{text} raw\n".encode())
    print(text, "err", file=sys.stderr)
    return "said"


def key() -> str:
    return current_call().key


async def key_later() -> str:
    await asyncio.sleep(0.001)
    return current_call().key


async def clean_up(file: str) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        Path(file).write_text("cleaned up")  # noqa: ASYNC240


def exit_() -> None:
    sys.exit(3)


def fail() -> None:
    raise ValueError("no")


def no_json() -> object:
    return object()


def echo(value: Any) -> Any:
    return value


def pid() -> int:
    return os.getpid()


def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def compute(n: int) -> int:
    return sum(i * i for i in range(n))


def memory() -> int:
    return len(bytearray(10**15))


def stay() -> str:
    """Leave a thread that keeps the process from ending."""
    threading.Thread(target=time.sleep, args=(3600,), daemon=False).start()
    return "left"


async def stay_async() -> str:
    """Leave a thread of the loop's own executor."""
    task = asyncio.ensure_future(asyncio.to_thread(time.sleep, 3600))
    await asyncio.wait((task,), timeout=0.1)
    return "left"


class Shop:
    @classmethod
    def price(cls) -> str:
        return cls.__name__

    def __init__(self, name: str) -> None:
        self.name = name

    def sell(self) -> str:
        return self.name


def hold_once(file: str) -> str:
    """Keep Python's lock at the first call."""
    if Path(file).exists():
        return "second"
    Path(file).touch()
    return hold()


def late(seconds: float) -> str:
    """Keep Python's lock after the time of the call is over."""
    time.sleep(seconds)
    return hold()


def hold_row(row: int) -> str:
    return hold() if row == 2 else f"row {row}"
