"""Batches on a simulated engine, whose limit is known, and of scripted replies: by the function behind the command.

In virtual time, waiting costs nothing and neither does Python, so only the engine's model, the tools' latencies and the
order in which requests are made count. In real time our own work is in it too.
"""

import asyncio
import os
from collections.abc import Coroutine, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from flowrun.backends.scripted import ScriptedBackend
from flowrun.batch import Batch, Fingerprint, Meter, OneFile, Options, Results, Row, run_in_this_process
from flowrun.collector import calm_collector
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply, ToolCall
from flowrun.core.ports import ModelBackend
from flowrun.functions.python import PythonFunctions
from flowrun.runtime.flow_runs import FlowRuns
from flowrun.runtime.project import CompiledFlow, Project
from flowrun.runtime.runner import Runner
from flowrun.testing.clock import VirtualLoop
from tests.bench.engines import conversations as work
from tests.bench.simulated import Engine, Round, SimulatedBackend

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
ROUNDS_SPEC = Path(__file__).parent / "engines" / "rounds.yaml"
WEATHER_SPEC = ROOT / "specs" / "weather.yaml"
FIRST_READ, LATER_READ, WRITTEN = (60, 140), (20, 60), (16, 48)
"""The tokens of a round are drawn from these: of the first prompt, of a later one without the former, of a reply."""


def round_of(conversation: int, turn: int) -> Round:
    """Draw a round of a conversation; the same in every mode."""
    read = _between(FIRST_READ if turn == 1 else LATER_READ, "read", conversation, turn)
    return Round(read, _between(WRITTEN, "written", conversation, turn))


def rounds_of(conversation: int) -> list[Round]:
    """Draw the rounds of a conversation."""
    return [round_of(conversation, turn) for turn in range(1, work.ROUNDS + 1)]


def flowrun_batch(numbers: Sequence[int], *, virtual: bool) -> float:
    """Hold conversations by the function behind ``flowrun batch``, and return the seconds."""
    flow = Project(environ={"FLOWRUN_BENCH_MODEL": "simulated"}).compile(ROUNDS_SPEC)
    rows = (Row(number=number, id=number, inputs={"conversation": number}) for number in numbers)
    return _in_loop(_timed_batch(flow, SimulatedBackend(_round_asked), rows), virtual=virtual)


def lock_step(numbers: Sequence[int]) -> float:
    """Hold conversations in lock step: each round waits for the slowest tool of the last; return the seconds."""
    return _in_loop(_timed(_lock_step(numbers)), virtual=True)


def scripted_batch(count: int) -> float:
    """Run the weather flow for ``count`` rows with a scripted model: a call, the tool, a reply; return the seconds."""
    flow = Project(environ=os.environ).compile(WEATHER_SPEC)
    rows = (
        Row(number=number, id=number, inputs={"question": f"Is it hot? ({number})"}) for number in range(1, count + 1)
    )
    return _in_loop(_timed_batch(flow, ScriptedBackend.from_function(_say, record=False), rows), virtual=False)


def _round_asked(request: AskModel) -> Round:
    turn = 1 + sum(message.role == "assistant" for message in request.messages)
    return round_of(int(request.run), turn)


def _say(request: AskModel) -> Reply:
    last = request.messages[-1]
    if last.role == "tool":
        return Reply(content=last.content)
    arguments = '{"city": "Dallas", "state": "TX", "unit": "fahrenheit"}'
    call = ToolCall(id="", name="get_current_weather", arguments=arguments)
    return Reply(tool_calls=(call,), finish_reason="tool_calls")


def _between(limits: tuple[int, int], *what: object) -> int:
    least, most = limits
    return least + int((most - least + 1) * work.drawn(*what))


async def _timed_batch(flow: CompiledFlow, backend: ModelBackend, rows: Iterable[Row]) -> float:
    calm_collector()  # as the command does
    meter = Meter()
    backends = {name: meter.wrap(name, backend) for name in flow.models}
    runner = Runner(backends=backends, functions=PythonFunctions(flow.functions))
    with TemporaryDirectory() as folder:
        results = Results(OneFile(Path(folder) / "out.jsonl"), Fingerprint(spec="", input=""))
        batch = Batch(run_in_this_process(FlowRuns(runner, flow.graph), messages=False), results, meter, Options())
        try:
            seconds = await _timed(batch.run(rows))
        finally:
            results.close()
    assert batch.failed == 0, f"{batch.failed} rows failed"
    return seconds


async def _lock_step(numbers: Sequence[int]) -> None:
    engine = Engine()
    for turn in range(1, work.ROUNDS + 1):
        await asyncio.gather(*(engine.generate(round_of(number, turn)) for number in numbers))
        if turn < work.ROUNDS:
            await asyncio.gather(*(work.look_up(number, turn) for number in numbers))


async def _timed(work: Coroutine[Any, Any, None]) -> float:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await work
    return loop.time() - begun


class StillLoop(VirtualLoop):
    """Virtual time that excludes the work of Python itself."""

    def time(self) -> float:
        """Return the virtual seconds that were skipped so far."""
        return self._skipped


def _in_loop(work: Coroutine[Any, Any, T], *, virtual: bool) -> T:
    with asyncio.Runner(loop_factory=StillLoop if virtual else None) as runner:
        return runner.run(work)
