"""flowrun's own processes skip what they have loaded when they look for garbage; other processes do not change."""

import gc
import sys
from pathlib import Path
from subprocess import run

ROOT = Path(__file__).parents[2]

_START = """
import asyncio, gc
import flowrun
from flowrun.collector import calm_collector
from flowrun.runtime import engines

loaded = []

class Backend:
    async def start(self):
        loaded.extend([{}] for _ in range(10_000))
    async def stop(self): ...
    async def reply(self, request): ...

async def main():
    CALM
    engines.make_backend = lambda *_: Backend()
    flow = flowrun.load("specs/weather.yaml")
    before = gc.get_freeze_count()
    async with flowrun.Session(settings=engines.BackendSettings(warm=False)) as session:
        await session.runs_of(flow)
    print(gc.get_freeze_count() - before >= 10_000, gc.get_threshold()[0])

asyncio.run(main())
"""


def _start(calm: str) -> str:
    program = _START.replace("CALM", calm)
    done = run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.stdout.strip()


def test_a_calm_process_skips_what_an_engine_loads() -> None:
    assert _start("calm_collector()") == "True 50000"


def test_a_host_keeps_its_collector() -> None:
    assert _start("pass") == f"False {gc.get_threshold()[0]}"


_AGAIN = """
import gc, weakref
from flowrun.collector import calm_collector, skip_loaded

class Engine:
    def __init__(self):
        self.itself = self

calm_collector()
first = Engine()
skip_loaded()
gone = weakref.ref(first)
del first
gc.collect()
print(gone() is None)
skip_loaded()
print(gone() is None)
"""


def test_what_an_engine_left_behind_goes_with_the_next_start() -> None:
    done = run([sys.executable, "-c", _AGAIN], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\nTrue\n", "")
