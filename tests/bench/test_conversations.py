"""Checks the benchmark: the spec and the program send the same messages, and the simulated engine keeps its limit."""

import asyncio

import pytest

from flowrun.backends.scripted import ScriptedBackend
from flowrun.core.messages import Reply
from flowrun.functions.python import PythonFunctions
from flowrun.runtime.project import Project
from flowrun.runtime.runner import Runner
from tests.bench.batch_simulated import ROUNDS_SPEC, StillLoop, flowrun_batch, lock_step, rounds_of
from tests.bench.engines import conversations as work
from tests.bench.simulated import PLACES, PREFILL, SEQUENCE, STEP, Engine, Round, least_seconds


def test_the_spec_holds_the_conversations_of_the_program() -> None:
    flow = Project(environ={"FLOWRUN_BENCH_MODEL": "none"}).compile(ROUNDS_SPEC)
    backend = ScriptedBackend.from_function(lambda request: Reply(content=f"Reply {len(request.messages)}"))
    runner = Runner(backends={"default": backend}, functions=PythonFunctions(flow.functions))
    with asyncio.Runner(loop_factory=StillLoop) as loop:
        result = loop.run(runner.run(flow.graph, {"conversation": 7}, run_id="7"))
        looked_up = [loop.run(work.look_up(7, turn)) for turn in range(1, work.ROUNDS)]
    expected = [*work.first_messages(7), {"role": "assistant", "content": "Reply 2"}]
    for number, found in enumerate(looked_up):
        expected += [work.next_message(found), {"role": "assistant", "content": f"Reply {2 * number + 4}"}]
    assert result.threads == {"main": expected}
    (model,) = (bound.model for bound in flow.models.values())
    assert model.engine == work.ENGINE
    bias = {str(token): value for token, value in work.BIAS.items()}
    assert backend.requests[0].sampling == {**work.SAMPLING, "logit_bias": bias}


@pytest.mark.parametrize(
    ("requests", "steps"),
    [
        pytest.param([Round(10, 3)], [(1, 10), (1, 0), (1, 0)], id="one"),
        pytest.param([Round(10, 1), Round(20, 2)], [(2, 30), (1, 0)], id="two begin together and end apart"),
        pytest.param([Round(1, 1)] * (PLACES + 1), [(PLACES, PLACES), (1, 1)], id="one more than there are places"),
    ],
)
def test_what_a_simulated_engine_takes(requests: list[Round], steps: list[tuple[int, int]]) -> None:
    async def seconds() -> float:
        engine = Engine()
        begun = asyncio.get_running_loop().time()
        await asyncio.gather(*(engine.generate(round) for round in requests))
        return asyncio.get_running_loop().time() - begun

    with asyncio.Runner(loop_factory=StillLoop) as loop:
        taken = loop.run(seconds())
    assert taken == pytest.approx(sum(STEP + SEQUENCE * running + PREFILL * read for running, read in steps))


def test_no_mode_beats_the_limit() -> None:
    numbers = range(1, 401)
    limit = least_seconds([rounds_of(n) for n in numbers], [work.tool_seconds(n) for n in numbers])
    assert limit < flowrun_batch(numbers, virtual=True)
    assert limit < lock_step(numbers)


def test_the_limit_of_one_conversation_is_what_it_takes() -> None:
    limit = least_seconds([rounds_of(1)], [work.tool_seconds(1)])
    assert flowrun_batch([1], virtual=True) == pytest.approx(limit)
    assert lock_step([1]) == pytest.approx(limit)
