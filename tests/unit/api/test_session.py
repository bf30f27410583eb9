"""``Session``: many runs and flows on shared engines, answered, resumed and cancelled, in one event loop."""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flowrun
from flowrun.core.events import CallFunction, Notice
from flowrun.core.ports import OnText
from flowrun.journal import SqliteJournal
from flowrun.testing import ScriptedModel
from tests.unit.api.api_flows import AGENT, ASK_TO_ADD, ASKS, add, agent, asks, calls, write
from tests.unit.api.test_flow import CountedModel


def run(work: Callable[[flowrun.Session], Awaitable[Any]], **options: Any) -> Any:
    async def go() -> Any:
        async with flowrun.Session(**options) as session:
            return await work(session)

    return asyncio.run(go())


# --- engines ----------------------------------------------------------------------------------------------------------


def test_equal_models_share_one_engine_that_starts_once(tmp_path: Path) -> None:
    model = CountedModel()
    flows = [agent(tmp_path).with_model("default", model) for _ in range(3)]

    async def work(session: flowrun.Session) -> list[str]:
        results = await asyncio.gather(*(session.run(flow, {"question": "?"}) for flow in flows * 4))
        assert (model.starts, model.stops) == (1, 0)
        return [result.status for result in results]

    assert run(work) == ["succeeded"] * 12
    assert (model.starts, model.stops) == (1, 1)


DECIDES = """\
name: sorts
model: {backend: scripted, name: replies.yaml}
flows:
  sort:
    states:
      pick: {type: decide, prompt: Which?, choices: [left, right], next: e}
      e: {type: end, output: "{{ outputs.pick.choice }}"}
states:
  go: {type: flow, flow: "#sort", next: e}
  e: {type: end, output: "{{ outputs.go }}"}
"""


class Undecided(ScriptedModel):
    """A model that cannot answer decide states, as is known once it has started."""

    def check_decisions(self) -> None:
        raise flowrun.BackendError("its template opens a block of reasoning")


def test_a_flow_that_decides_needs_a_model_that_can(tmp_path: Path) -> None:
    (tmp_path / "replies.yaml").write_text("replies: []\n")
    sorts = flowrun.load(write(tmp_path, DECIDES))
    model = Undecided([{"probabilities": {"left": 0.25, "right": 0.75}}, "It is 85."])

    async def work(session: flowrun.Session) -> Any:
        with pytest.raises(flowrun.BackendError, match="opens a block of reasoning"):
            await session.run(sorts.with_model("default", model))
        return await session.run(agent(tmp_path).with_model("default", ScriptedModel(["It is 85."])), {"question": "?"})

    assert run(work).status == "succeeded"
    able = ScriptedModel([{"probabilities": {"left": 0.25, "right": 0.75}}])
    assert sorts.with_model("default", able).run().output == "right"


def test_models_of_specs_are_equal_by_their_settings(tmp_path: Path) -> None:
    (tmp_path / "replies.yaml").write_text("replies: [{content: one}, {content: two}]\n")
    flows = [
        flowrun.load(write(tmp_path, AGENT, name), functions={"api_tools:add": add}) for name in ("a.yaml", "b.yaml")
    ]

    async def work(session: flowrun.Session) -> list[Any]:
        return [(await session.run(flow, {"question": "?"})).output["answer"] for flow in flows]

    assert run(work) == ["one", "two"]


def test_two_sessions_in_one_process_have_engines_of_their_own(tmp_path: Path) -> None:
    model = CountedModel()
    flow = agent(tmp_path).with_model("default", model)

    async def go() -> None:
        async with flowrun.Session() as one, flowrun.Session() as two:
            results = await asyncio.gather(one.run(flow, {"question": "?"}), two.run(flow, {"question": "?"}))
            assert [result.status for result in results] == ["succeeded"] * 2
            assert model.starts == 2

    asyncio.run(go())
    assert model.stops == 2


# --- where it may be called -------------------------------------------------------------------------------------------


def test_a_call_from_another_loop_or_thread_is_refused_by_name(tmp_path: Path) -> None:
    flow = asks(tmp_path)
    messages: list[str] = []

    async def work(session: flowrun.Session) -> None:
        def elsewhere() -> None:
            try:
                asyncio.run(session.run(flow))
            except RuntimeError as exc:
                messages.append(str(exc))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await asyncio.to_thread(thread.join)

    run(work)
    assert messages == ["Session.run was called from another event loop or thread than the one that opened the session"]


def test_a_session_that_is_not_open_is_refused(tmp_path: Path) -> None:
    session = flowrun.Session()
    with pytest.raises(RuntimeError, match=r"Session.run: the session is not open: use it in `async with`"):
        asyncio.run(session.run(asks(tmp_path)))

    async def twice() -> None:
        async with flowrun.Session() as session:
            await session.__aenter__()

    with pytest.raises(RuntimeError, match=r"open already"):
        asyncio.run(twice())


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "journal"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Return the options of a session: without a journal, and with one."""
    return {} if request.param == "memory" else {"journal": tmp_path / "runs.sqlite"}


def test_a_run_that_waits_is_answered_and_resumed(tmp_path: Path, options: dict[str, Any]) -> None:
    flow = asks(tmp_path)

    async def work(session: flowrun.Session) -> None:
        first, second = await session.run(flow, {"amount": 7}), await session.run(flow)
        (ask,) = first.pending
        with pytest.raises(flowrun.UsageError, match=r'not what state approve asks for: "yes" is not of type'):
            await session.answer(ask.id, "yes")
        with pytest.raises(flowrun.UsageError, match=r"no JSON value"):
            await session.answer(ask.id, object())
        await session.answer(ask.id, True)
        done = await session.resume(first.run_id)
        assert (done.status, done.output, done.run_id) == ("succeeded", 7, first.run_id)
        with pytest.raises(flowrun.UsageError, match=r"has ended|no run .* waits"):
            await session.resume(first.run_id)
        with pytest.raises(flowrun.UsageError):
            await session.answer(ask.id, True)
        assert (await session.resume(second.run_id)).status == "waiting"
        await session.answer(second.pending[0].id, False)
        assert (await session.resume(second.run_id)).status == "failed"
        with pytest.raises(flowrun.UsageError):
            await session.answer("nothing/1/0", True)

    run(work, **options)


PARENT = """\
name: parent
flows:
  inner:
    states:
      approve: {type: wait, prompt: "Yes?", schema: {type: boolean}, next: done}
      done: {type: end, output: "{{ outputs.approve }}"}
states:
  both: {type: parallel, branches: {a: {flow: "#inner"}, b: {flow: "#inner"}}, next: done}
  done: {type: end, output: "{{ outputs.both }}"}
"""


def test_questions_of_children_are_answered_one_by_one(tmp_path: Path, options: dict[str, Any]) -> None:
    flow = flowrun.load(write(tmp_path, PARENT))

    async def work(session: flowrun.Session) -> None:
        result = await session.run(flow)
        a, b = result.pending
        assert {a.run, b.run} == {f"{result.run_id}.1.0", f"{result.run_id}.1.1"}
        await session.answer(b.id, False)
        result = await session.resume(result.run_id)
        assert [ask.id for ask in result.pending] == [a.id]
        await session.answer(a.id, True)
        assert (await session.resume(result.run_id)).output == {"a": True, "b": False}

    run(work, **options)


def test_a_question_of_a_run_in_progress_is_answered(tmp_path: Path, options: dict[str, Any]) -> None:
    text = PARENT.replace('b: {flow: "#inner"}', 'b: {flow: "#work"}').replace(
        "states:\n  both",
        '  work:\n    states:\n      work: {type: call, entrypoint: "api_tools:work", next: done}\n'
        '      done: {type: end, output: "{{ outputs.work }}"}\nstates:\n  both',
    )
    answered = asyncio.Event()

    async def slow() -> str:
        await answered.wait()
        return "worked"

    flow = flowrun.load(write(tmp_path, text), functions={"api_tools:work": slow})

    async def work(session: flowrun.Session) -> None:
        async with session.stream(flow) as stream:
            async for event in stream:
                if isinstance(event, flowrun.InputRequested):
                    await session.answer(event.request.id, True)
                    answered.set()
            assert stream.result.output == {"a": True, "b": "worked"}

    run(work, **options)


def test_human_input_answers_while_the_run_is_in_progress(tmp_path: Path) -> None:
    class Answers:
        async def answer(self, effect: Any) -> bool:
            return True

    assert run(lambda session: session.run(asks(tmp_path)), human_input=Answers()).output == 5


def test_a_question_has_one_answer(tmp_path: Path, options: dict[str, Any]) -> None:
    flow = asks(tmp_path)

    async def work(session: flowrun.Session) -> None:
        waiting = await session.run(flow)
        (ask,) = waiting.pending
        refused = f"the question {ask.id} was answered already, with false: that answer counts, and this one is refused"
        await session.answer(ask.id, False)
        for value in (True, False):
            with pytest.raises(flowrun.UsageError, match=refused):
                await session.answer(ask.id, value)
        assert (await session.resume(waiting.run_id)).output == "no"

        again = await session.run(flow)
        sent = [session.answer(again.pending[0].id, value) for value in (True, False)]
        first, second = await asyncio.gather(*sent, return_exceptions=True)
        assert (first, type(second), "with true" in str(second)) == (None, flowrun.UsageError, True)
        assert (await session.resume(again.run_id)).status == "succeeded"

    run(work, **options)


def test_an_answer_that_was_accepted_counts_before_a_timeout(tmp_path: Path, options: dict[str, Any]) -> None:
    flow = flowrun.load(write(tmp_path, ASKS.replace("type: wait", "type: wait\n    timeout: 0.2s")))

    async def work(session: flowrun.Session) -> None:
        waiting = await session.run(flow)
        await session.answer(waiting.pending[0].id, True)
        await asyncio.sleep(0.3)
        assert (await session.resume(waiting.run_id)).status == "succeeded"

    run(work, **options)


def test_what_a_person_types_does_not_replace_an_answer_of_another_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The other answer is accepted while the person types, and before it reaches this process."""
    journal = tmp_path / "runs.sqlite"

    class Types:
        async def answer(self, effect: Any) -> bool:
            async with flowrun.Session(journal=journal) as other:
                await other.answer(effect.id, False)
            return True

    result = run(lambda session: session.run(asks(tmp_path)), journal=journal, human_input=Types())
    assert (result.status, result.output) == ("failed", "no")
    assert "was answered already, with false: that answer counts, and this one is refused" in caplog.text


def test_what_a_person_has_typed_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other answer comes once the journal has accepted what was typed, before the run goes on with it."""
    journal = tmp_path / "runs.sqlite"
    late: list[str] = []
    closed = asyncio.Event()
    close = SqliteJournal.close_question

    async def close_and_tell(self: SqliteJournal, run_id: str, event: Any) -> Any:
        counted = await close(self, run_id, event)
        closed.set()
        return counted

    monkeypatch.setattr(SqliteJournal, "close_question", close_and_tell)

    class Types:
        async def answer(self, effect: Any) -> bool:
            tasks.append(asyncio.create_task(send(effect.id)))
            return True

    tasks: list[asyncio.Task[None]] = []

    async def send(question: str) -> None:
        await closed.wait()
        async with flowrun.Session(journal=journal) as other:
            try:
                await other.answer(question, False)
            except flowrun.UsageError as exc:
                late.append(str(exc))

    async def work(session: flowrun.Session) -> Any:
        result = await session.run(asks(tmp_path))
        await asyncio.gather(*tasks)
        return result

    assert run(work, journal=journal, human_input=Types()).status == "succeeded"
    assert len(late) == 1


# --- journals ---------------------------------------------------------------------------------------------------------


def test_another_session_resumes_a_run_with_the_spec_that_it_started_with(tmp_path: Path) -> None:
    journal = tmp_path / "runs.sqlite"
    waiting = run(lambda session: session.run(asks(tmp_path)), journal=journal)
    (tmp_path / "asks.yaml").write_text("no spec any more")

    async def work(session: flowrun.Session) -> Any:
        await session.answer(waiting.pending[0].id, True)
        return await session.resume(waiting.run_id)

    assert run(work, journal=str(journal)).output == 5


def test_a_fork_goes_on_from_a_step_and_repeats_nothing_before_it(tmp_path: Path) -> None:
    made: list[tuple[int, int]] = []

    def add_and_note(a: int, b: int) -> int:
        made.append((a, b))
        return a + b

    flow = agent(tmp_path, add=add_and_note)
    once = flow.with_model("default", ScriptedModel([ASK_TO_ADD, {"content": "3"}]))
    again = flow.with_model("default", ScriptedModel([{"content": "three"}]))
    options = {"journal": tmp_path / "runs.sqlite"}
    first = run(lambda session: session.run(once, {"question": "1 + 2?"}), **options)
    forked = run(lambda session: session.fork(first.run_id, at=3, flow=again, new_id="fork"), **options)
    assert (forked.run_id, forked.output, forked.path) == ("fork", {"answer": "three"}, first.path)
    assert forked.messages == [*first.messages[:-1], {"role": "assistant", "content": "three"}]
    assert made == [(1, 2)]
    anew = flow.with_model("default", ScriptedModel([{"content": "What?"}]))
    other = run(lambda session: session.fork(first.run_id, at=1, flow=anew, inputs={"question": "?"}), **options)
    assert (other.messages[0]["content"], other.path, made) == ("?", ["ask", "done"], [(1, 2)])


def test_a_fork_of_a_run_that_waits_asks_again_with_the_stored_spec(tmp_path: Path) -> None:
    options = {"journal": tmp_path / "runs.sqlite"}
    waiting = run(lambda session: session.run(asks(tmp_path)), **options)
    (tmp_path / "asks.yaml").write_text("no spec any more")
    forked = run(lambda session: session.fork(waiting.run_id, at=1, inputs={"amount": 7}), **options)
    (question,) = forked.pending
    assert (forked.status, question.prompt, question.id) == ("waiting", "Pay 7?", f"{forked.run_id}/1/0")
    assert forked.run_id != waiting.run_id


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"at": 2}, r"cannot be forked at step 2: it has no such step: its last one is 1, in state 'approve'"),
        ({"at": 1, "inputs": {"amount": "much"}}, "the inputs do not match"),
        ({"at": 1, "inputs": {"sum": 1}}, "the inputs do not match"),
        ({"at": 1, "new_id": "a.b"}, "run_id 'a.b'"),
    ],
)
def test_a_fork_that_is_refused_leaves_no_run(tmp_path: Path, changes: dict[str, Any], error: str) -> None:
    journal = tmp_path / "runs.sqlite"
    waiting = run(lambda session: session.run(asks(tmp_path)), journal=journal)

    async def work(session: flowrun.Session) -> list[str]:
        with pytest.raises(flowrun.UsageError, match=error):
            await session.fork(waiting.run_id, **changes)
        return [row.id for row in session.journal.history.runs()]

    assert run(work, journal=journal) == [waiting.run_id]


def test_a_call_in_doubt_is_resolved_by_the_caller(tmp_path: Path) -> None:
    made: list[float] = []
    began = asyncio.Event()

    async def hangs(seconds: float) -> str:
        made.append(seconds)
        began.set()
        await asyncio.sleep(60 if len(made) == 1 else 0)
        return "done"

    flow, journal = calls(tmp_path, hangs), tmp_path / "runs.sqlite"

    async def interrupted(session: flowrun.Session) -> None:
        task = asyncio.create_task(session.run(flow, run_id="mine"))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def resumed(session: flowrun.Session) -> None:
        await session.runs_of(flow)
        stopped = await session.resume("mine")
        assert (stopped.status, [call.key for call in stopped.in_doubt]) == ("needs_attention", ["mine/1/0"])
        with pytest.raises(flowrun.RunNotFinished, match=r"the call mine/1/0 is in doubt"):
            stopped.raise_for_status()

        def resolve(call: CallFunction) -> flowrun.CallAgain:
            return flowrun.CallAgain()

        assert (await session.resume("mine", resolve=resolve)).output == "done"

    run(interrupted, journal=journal, drain=0.0)
    run(resumed, journal=journal)
    assert len(made) == 2


# --- cancelling -------------------------------------------------------------------------------------------------------


def test_a_waiting_run_is_cancelled(tmp_path: Path, options: dict[str, Any]) -> None:
    async def work(session: flowrun.Session) -> None:
        waiting = await session.run(asks(tmp_path))
        result = await session.cancel(waiting.run_id, reason="enough")
        assert result is not None
        assert result.error is not None
        assert (result.status, result.error.message) == ("cancelled", "enough")
        with pytest.raises(flowrun.UsageError):
            await session.cancel(waiting.run_id)

    run(work, **options)


def test_a_run_in_progress_is_cancelled(tmp_path: Path, options: dict[str, Any]) -> None:
    began = asyncio.Event()

    async def forever(seconds: float) -> None:
        began.set()
        await asyncio.sleep(60)

    async def work(session: flowrun.Session) -> None:
        task = asyncio.create_task(session.run(calls(tmp_path, forever), run_id="mine"))
        await began.wait()
        assert await session.cancel("mine") is None
        assert (await task).status == "cancelled"

    run(work, **options)


class HangingModel(CountedModel):
    """A model that answers no request; ``freed`` counts the requests that were cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.began = asyncio.Event()
        self.freed = 0

    async def reply(self, request: Any, *, on_text: OnText | None = None) -> Any:
        self.began.set()
        try:
            await asyncio.sleep(60)
        finally:
            self.freed += 1


def test_cancelling_the_awaiting_task_frees_the_request(tmp_path: Path) -> None:
    model = HangingModel()
    flow = agent(tmp_path).with_model("default", model)

    async def expire(timeout: asyncio.Timeout) -> None:
        await model.began.wait()
        timeout.reschedule(0)

    async def work(session: flowrun.Session) -> None:
        task = asyncio.create_task(session.run(flow, {"question": "?"}))
        await model.began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert model.freed == 1
        model.began.clear()

        async def run_with_timeout() -> None:
            async with asyncio.timeout(None) as timeout, asyncio.TaskGroup() as group:
                group.create_task(expire(timeout))
                await session.run(flow, {"question": "?"})

        with pytest.raises(TimeoutError):
            await run_with_timeout()
        assert model.freed == 2

    run(work)


def test_leaving_the_block_of_a_stream_cancels_the_run(tmp_path: Path) -> None:
    model = HangingModel()
    flow = agent(tmp_path).with_model("default", model)

    async def work(session: flowrun.Session) -> None:
        async with session.stream(flow, {"question": "?"}) as stream:
            async for event in stream:
                assert isinstance(event, flowrun.StateEntered)
                await model.began.wait()
                break
            with pytest.raises(RuntimeError, match=r"is in progress"):
                _ = stream.result
        assert model.freed == 1

    run(work)


@pytest.mark.parametrize(("drain", "recorded"), [(20.0, True), (0.0, False)], ids=["drained", "cancelled"])
def test_closing_waits_for_functions_but_begins_no_others(tmp_path: Path, drain: float, recorded: bool) -> None:
    journal = tmp_path / "runs.sqlite"
    began = threading.Event()
    made: list[int] = []
    text = """\
    name: twice
    states:
      one: {type: call, entrypoint: "api_tools:work", next: two}
      two: {type: call, entrypoint: "api_tools:work", next: done}
      done: {type: end}
    """

    def work() -> int:
        began.set()
        made.append(1)
        threading.Event().wait(0.1)
        return 1

    flow = flowrun.load(write(tmp_path, text), functions={"api_tools:work": work})

    async def go() -> None:
        async with flowrun.Session(journal=journal, drain=drain) as session:
            task = asyncio.create_task(session.run(flow, run_id="mine"))
            await asyncio.to_thread(began.wait)
        with pytest.raises(RuntimeError, match=r"the session was closed while the run was in progress"):
            await task
        assert len(made) == 1
        async with flowrun.Session(journal=journal) as session:
            await session.runs_of(flow)
            result = await session.resume("mine")
        assert (result.status, result.path, len(made)) == (
            ("succeeded", ["one", "two", "done"], 2) if recorded else ("needs_attention", ["one"], 1)
        )

    asyncio.run(go())


# --- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream_yields_what_happens(tmp_path: Path) -> None:
    flow = agent(tmp_path).with_model("default", ScriptedModel([ASK_TO_ADD, "It is 3."]))

    async def work(session: flowrun.Session) -> tuple[list[Any], flowrun.RunResult]:
        async with session.stream(flow, {"question": "?"}, run_id="r") as stream:
            return [event async for event in stream], stream.result

    events, result = run(work)
    kinds = [(type(event).__name__, event.state, event.step) for event in events]
    assert kinds == [
        ("StateEntered", "ask", 1),
        ("StateLeft", "ask", 1),
        ("StateEntered", "act", 2),
        ("ToolCalled", "act", 2),
        ("ToolReturned", "act", 2),
        ("StateLeft", "act", 2),
        ("StateEntered", "ask", 3),
        *[("TextDelta", "ask", 3)] * 3,
        ("StateLeft", "ask", 3),
        ("StateEntered", "done", 4),
        ("StateLeft", "done", 4),
        ("RunEnded", "done", 4),
    ]
    called, returned = events[3], events[4]
    assert (called.id, called.name, called.arguments) == ("r/2/0", "add", {"a": 1, "b": 2})
    assert (returned.id, returned.name, returned.value, returned.error) == ("r/2/0", "add", 3, None)
    assert [event.text for event in events[7:10]] == ["It", " is", " 3."]
    assert (events[-1].status, events[-1].output) == ("succeeded", {"answer": "It is 3."})
    assert result.output == {"answer": "It is 3."}


RETRIES = """\
name: retries
inputs: {seconds: {type: number, default: 0}}
states:
  work:
    type: call
    entrypoint: "api_tools:work"
    with: {seconds: 0}
    retry: {max_attempts: 2, delay: 0s}
    catch: [{errors: [tool.failed], to: caught}]
    next: done
  done: {type: end}
  caught: {type: end, output: "{{ error.message }}"}
"""


def test_a_stream_shows_attempts_catches_and_failed_calls(tmp_path: Path) -> None:
    def fail(seconds: float) -> None:
        raise ValueError("no")

    flow = flowrun.load(write(tmp_path, RETRIES), functions={"api_tools:work": fail})

    async def work(session: flowrun.Session) -> list[Any]:
        async with session.stream(flow) as stream:
            return [event async for event in stream]

    events = run(work)
    shown = [
        (type(event).__name__, event.state, event.step, getattr(event, "how", None), getattr(event, "to", None))
        for event in events
    ]
    assert shown == [
        ("StateEntered", "work", 1, None, None),
        ("ToolCalled", "work", 1, None, None),
        ("ToolReturned", "work", 1, None, None),
        ("StateLeft", "work", 1, "retry", "work"),
        ("StateEntered", "work", 2, None, None),
        ("ToolCalled", "work", 2, None, None),
        ("ToolReturned", "work", 2, None, None),
        ("StateLeft", "work", 2, "catch", "caught"),
        ("StateEntered", "caught", 3, None, None),
        ("StateLeft", "caught", 3, "end", ""),
        ("RunEnded", "caught", 3, None, None),
    ]
    assert events[2].error.name == "tool.failed"
    assert next(event.id for event in events if isinstance(event, flowrun.ToolCalled)) == events[2].id


def test_a_stream_raises_what_is_no_failure_of_the_run(tmp_path: Path) -> None:
    class Broken(CountedModel):
        async def start(self) -> None:
            raise flowrun.BackendError("no such model")

    flow = agent(tmp_path).with_model("default", Broken())

    async def work(session: flowrun.Session) -> None:
        async with session.stream(flow, {"question": "?"}) as stream:
            with pytest.raises(flowrun.BackendError, match=r"no such model"):
                _ = [event async for event in stream]
            with pytest.raises(flowrun.BackendError, match=r"no such model"):
                _ = stream.result
        with pytest.raises(flowrun.UsageError):
            session.stream(flow, {"q": "?"})

    run(work)


def test_observers_see_all_runs(tmp_path: Path) -> None:
    class Seen:
        def __init__(self) -> None:
            self.runs: set[str] = set()

        def notify(self, notice: Notice) -> None:
            self.runs.add(notice.run)

    seen = Seen()

    async def work(session: flowrun.Session) -> set[str]:
        return {(await session.run(asks(tmp_path))).run_id for _ in range(2)}

    assert run(work, observers=[seen]) == seen.runs


# --- batches ----------------------------------------------------------------------------------------------------------


def test_a_batch_yields_results_as_they_end(tmp_path: Path) -> None:
    model = ScriptedModel([{"content": "fine", "repeat": True}])
    flow = agent(tmp_path).with_model("default", model)

    async def work(session: flowrun.Session) -> list[Any]:
        rows = [{"question": str(number)} for number in range(50)]
        return [(result.row, result.inputs) async for result in session.batch(flow, rows)]

    assert sorted(run(work)) == [(number, {"question": str(number)}) for number in range(50)]
    assert len(model.requests) == 50


def test_a_wrong_row_fails_alone(tmp_path: Path) -> None:
    flow = agent(tmp_path).with_model("default", CountedModel())
    rows: list[Any] = [{"question": "?"}, {"question": 3}, {"question": object()}, 7, {"question": "!"}]

    async def work(session: flowrun.Session) -> dict[int | None, str]:
        found = [result async for result in session.batch(flow, rows)]
        return {result.row: result.status if result.error is None else result.error.name for result in found}

    expected = {0: "succeeded", 1: "input.invalid", 2: "input.invalid", 3: "input.invalid", 4: "succeeded"}
    assert run(work) == expected


def test_a_batch_holds_no_more_results_than_may_be_live(tmp_path: Path) -> None:
    flow = agent(tmp_path).with_model("default", CountedModel())
    taken: list[int] = []

    def rows() -> Iterator[dict[str, str]]:
        for number in range(1000):
            taken.append(number)
            yield {"question": str(number)}

    async def work(session: flowrun.Session) -> None:
        results = session.batch(flow, rows(), max_live=4)
        async for _ in results:
            for _ in range(200):
                await asyncio.sleep(0)
            break
        await results.aclose()

    run(work)
    assert len(taken) < 20


def test_leaving_a_batch_cancels_its_runs(tmp_path: Path) -> None:
    model = HangingModel()
    flow = agent(tmp_path).with_model("default", model)

    async def work(session: flowrun.Session) -> None:
        results = session.batch(flow, [{"question": "?"}] * 3)
        task = asyncio.ensure_future(anext(results))
        await model.began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert model.freed >= 1

    run(work)


# --- what two callers do at once --------------------------------------------------------------------------------------


def test_a_run_is_resumed_once(tmp_path: Path, options: dict[str, Any]) -> None:
    async def work(session: flowrun.Session) -> None:
        waiting = await session.run(asks(tmp_path))
        await session.answer(waiting.pending[0].id, True)
        one, two = await asyncio.gather(
            session.resume(waiting.run_id), session.resume(waiting.run_id), return_exceptions=True
        )
        assert isinstance(one, flowrun.RunResult)
        assert (one.status, str(two)) == ("succeeded", f"run {waiting.run_id} is in progress in this session")

    run(work, **options)


def test_an_id_names_one_run(tmp_path: Path) -> None:
    async def work(session: flowrun.Session) -> None:
        flow = asks(tmp_path)
        waiting = await session.run(flow, run_id="mine")
        with pytest.raises(flowrun.UsageError, match=r"there is a run mine in this session already"):
            await session.run(flow, run_id="mine")
        for wrong in ("a.b", "", "a/b", "\x00", "x" * 101):
            with pytest.raises(flowrun.UsageError, match=r"an id has up to 100 letters"):
                await session.run(flow, run_id=wrong)
        await session.answer(waiting.pending[0].id, True)
        assert (await session.resume("mine")).status == "succeeded"

    run(work)


class SlowStart(CountedModel):
    """A model that starts when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def start(self) -> None:
        await super().start()
        await self.go.wait()


def test_a_start_belongs_to_all_that_wait_for_it(tmp_path: Path) -> None:
    model = SlowStart()
    flow = agent(tmp_path).with_model("default", model)

    async def work(session: flowrun.Session) -> None:
        first, second = (asyncio.create_task(session.run(flow, {"question": "?"})) for _ in range(2))
        while not model.starts:  # noqa: ASYNC110 - counted, not signalled
            await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        model.go.set()
        assert ((await second).status, model.starts) == ("succeeded", 1)

    run(work)


def test_a_run_is_cancelled_while_its_engine_starts(tmp_path: Path) -> None:
    model = SlowStart()
    flow = agent(tmp_path).with_model("default", model)

    async def work(session: flowrun.Session) -> None:
        task = asyncio.create_task(session.run(flow, {"question": "?"}, run_id="mine"))
        while not model.starts:  # noqa: ASYNC110 - counted, not signalled
            await asyncio.sleep(0)
        assert await session.cancel("mine", reason="enough") is None
        model.go.set()
        result = await task
        assert (result.status, result.error and result.error.message) == ("cancelled", "enough")

    run(work)


def test_an_engine_that_does_not_stop_keeps_no_other_from_stopping(tmp_path: Path) -> None:
    class Stuck(CountedModel):
        async def stop(self) -> None:
            raise OSError("stuck")

    models = [Stuck(), CountedModel(), CountedModel()]
    flow = agent(tmp_path)

    async def work(session: flowrun.Session) -> None:
        for model in models:
            await session.run(flow.with_model("default", model), {"question": "?"})

    with pytest.raises(OSError, match=r"stuck"):
        run(work)
    assert [model.stops for model in models] == [0, 1, 1]


def test_a_run_resumes_with_the_model_that_it_started_with(tmp_path: Path, options: dict[str, Any]) -> None:
    text = """\
    name: talk
    model: {backend: scripted, name: replies.yaml}
    states:
      sure: {type: wait, prompt: "Sure?", schema: {type: boolean}, next: ask}
      ask: {type: chat, messages: [{role: user, content: Hi.}], next: done}
      done: {type: end, output: "{{ reply.content }}"}
    """
    flow = flowrun.load(write(tmp_path, text))

    async def work(session: flowrun.Session) -> list[Any]:
        waiting = [await session.run(flow.with_model("default", ScriptedModel([name]))) for name in "AB"]
        for result in waiting:
            await session.answer(result.pending[0].id, True)
        return [(await session.resume(result.run_id)).output for result in waiting]

    assert run(work, **options) == ["A", "B"]


def test_closing_that_is_cancelled_cancels_the_runs(tmp_path: Path) -> None:
    ended: list[str] = []
    began = threading.Event()

    def work_long(seconds: float) -> None:
        began.set()
        threading.Event().wait(0.5)

    async def go() -> None:
        session = await flowrun.Session(drain=30.0).__aenter__()
        task = asyncio.create_task(session.run(calls(tmp_path, work_long)))
        await asyncio.to_thread(began.wait)
        closing = asyncio.create_task(session.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(RuntimeError, match=r"the session was closed"):
            await task
        ended.append("cancelled")

    asyncio.run(go())
    assert ended == ["cancelled"]


def test_a_stream_that_was_left_says_so_and_one_that_ended_can_be_read_again(tmp_path: Path) -> None:
    model = HangingModel()
    flow = agent(tmp_path).with_model("default", model)

    async def work(session: flowrun.Session) -> None:
        async with session.stream(flow, {"question": "?"}, run_id="left") as stream:
            await model.began.wait()
        with pytest.raises(RuntimeError, match=r"run left was cancelled when its block was left"):
            _ = stream.result
        async with session.stream(calls(tmp_path, lambda seconds: 1)) as stream:
            assert len([event async for event in stream]) == 7
            assert [event async for event in stream] == []
        assert stream.result.output == 1

    run(work)


# --- what is left -----------------------------------------------------------------------------------------------------


def test_runs_that_ended_or_were_cancelled_leave_nothing(tmp_path: Path) -> None:
    async def work(session: flowrun.Session) -> None:
        flow = asks(tmp_path)
        for number in range(20):
            waiting = await session.run(flow)
            if number % 2:
                await session.cancel(waiting.run_id)
            else:
                await session.answer(waiting.pending[0].id, True)
                await session.resume(waiting.run_id)
        opened = session._open
        assert opened is not None
        memory = opened.memory
        assert (memory.records, memory.parents, memory.statuses, memory._families, memory._signals) == (
            {},
            {},
            {},
            {},
            [],
        )
        assert (opened.owners, opened.driven, opened.tasks) == ({}, set(), set())

    run(work)


# --- what callers give ------------------------------------------------------------------------------------------------


def test_wrong_bounds_and_inputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(flowrun.UsageError, match=r"max_tools is 0"):
        flowrun.Session(max_tools=0)

    async def work(session: flowrun.Session) -> None:
        with pytest.raises(flowrun.UsageError, match=r"max_live is 0"):
            _ = [result async for result in session.batch(asks(tmp_path), [{}], max_live=0)]
        with pytest.raises(flowrun.UsageError, match=r"the inputs must be a mapping"):
            await session.run(asks(tmp_path), "abc")  # type: ignore[arg-type]

    run(work)


def test_the_answers_of_a_responder_are_checked(tmp_path: Path) -> None:
    class Wrong:
        async def answer(self, request: flowrun.InputRequest, /) -> Any:
            assert (request.prompt, request.call) == ("Pay 5?", None)
            return "yes"

    with pytest.raises(flowrun.UsageError, match=r"is not what state approve asks for"):
        run(lambda session: session.run(asks(tmp_path)), human_input=Wrong())


def test_signatures_show_no_environment() -> None:
    shown = "".join(str(inspect.signature(one)) for one in (flowrun.Session, flowrun.load, flowrun.check))
    assert "environ" in shown
    assert "PATH" not in shown
