"""A program for ``test_vllm_engine``: lives through what happens to engines, and tells of it in lines of JSON."""

import asyncio
import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from flowrun.backends.vllm.backend import VllmBackend
from flowrun.errors import ModelError
from flowrun.spec.model import Model
from tests.unit.backends.contract import ask

ENDLESS = {"max_tokens": 400, "ignore_eos": True}


def tell(**what: Any) -> None:
    print(json.dumps({name.replace("_", " "): value for name, value in what.items()}), flush=True)


def engines() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]


async def failure(backend: VllmBackend) -> str:
    try:
        await backend.reply(ask(sampling=ENDLESS))
    except ModelError as exc:
        return str(exc)
    return "none"


async def life(model: Model) -> None:
    """Kill the engine in the middle of a reply; stop; give a start up; start again, and wait for Ctrl-C."""
    backend = VllmBackend(model, base_dir=Path())
    await backend.start()
    pending = asyncio.create_task(failure(backend))
    await asyncio.sleep(0.2)
    os.kill(engines()[0], signal.SIGKILL)
    tell(pending=await pending, afterwards=await failure(backend))
    await backend.stop()
    tell(after_stop=engines(), later=await failure(backend))
    await give_up(model)
    await wait(model)


async def give_up(model: Model) -> None:
    stages: list[str] = []
    backend = VllmBackend(model, base_dir=Path(), progress=stages.append)
    start = asyncio.create_task(backend.start())
    while not engines():  # noqa: ASYNC110  # nothing tells of a process's birth
        await asyncio.sleep(0.05)
    start.cancel()
    await asyncio.wait([start])
    assert start.cancelled()
    tell(given_up_while=stages[-1], left=engines())


async def wait(model: Model) -> None:
    backend = VllmBackend(model, base_dir=Path())
    await backend.start()
    tell(running=engines()[0])
    try:
        while True:
            await backend.reply(ask(sampling=ENDLESS))
    finally:
        await backend.stop()


def main() -> int:
    mode, model = sys.argv[1:]
    try:
        asyncio.run({"life": life, "wait": wait}[mode](msgspec.json.decode(model, type=Model)))
    except KeyboardInterrupt:
        tell(interrupted=True, left=engines())
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
