"""A program for ``test_engine``: kills, stops and cancels engines, and reports the results in lines of JSON."""

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
from flowrun.backends.vllm.engine_process import LOADING
from flowrun.errors import ModelError
from flowrun.spec.model import Model
from tests.unit.backends.contract import ask

ENDLESS = {"max_tokens": 400, "ignore_eos": True}


def report(**facts: Any) -> None:
    print(json.dumps({name.replace("_", " "): value for name, value in facts.items()}), flush=True)


def engines() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]


async def failure(backend: VllmBackend) -> str:
    try:
        await backend.reply(ask(sampling=ENDLESS))
    except ModelError as exc:
        return str(exc)
    return "none"


async def life(model: Model) -> None:
    """Kill the engine during a reply; stop it; cancel a start; start again, and wait for Ctrl-C."""
    backend = VllmBackend(model, base_dir=Path())
    await backend.start()
    pending = asyncio.create_task(failure(backend))
    await asyncio.sleep(0.2)
    os.kill(engines()[0], signal.SIGKILL)
    report(pending=await pending, afterwards=await failure(backend))
    await backend.stop()
    report(after_stop=engines(), later=await failure(backend))
    await cancel_start(model)
    await wait(model)


async def cancel_start(model: Model) -> None:
    stages: list[str] = []
    backend = VllmBackend(model, base_dir=Path(), progress=stages.append)
    start = asyncio.create_task(backend.start())
    while LOADING not in stages:  # noqa: ASYNC110  # there is no event for a stage
        await asyncio.sleep(0.05)
    start.cancel()
    await asyncio.wait([start])
    assert start.cancelled()
    report(given_up_while=stages[-1], left=engines())


async def wait(model: Model) -> None:
    stages: list[str] = []
    backend = VllmBackend(model, base_dir=Path(), progress=stages.append)
    await backend.start()
    report(running=engines()[0], stages=stages)
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
        report(interrupted=True, left=engines())
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
