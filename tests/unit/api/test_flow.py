"""``Flow``: blocking runs, also where a loop runs, on one engine until it is closed."""

import asyncio
import gc
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import flowrun
from flowrun.core.ports import OnText
from flowrun.errors import UsageError
from flowrun.testing import ScriptedModel
from tests import harmful
from tests.processes import alive
from tests.unit.api.api_flows import AGENT, ASK_TO_ADD, add, agent, asks, calls, write


class CountedModel(ScriptedModel):
    """A model that always says the same, and counts how often it is started and stopped."""

    def __init__(self) -> None:
        super().__init__([{"content": "fine", "repeat": True}])
        self.starts = 0
        self.stops = 0

    async def start(self) -> None:
        self.starts += 1

    async def stop(self) -> None:
        self.stops += 1


def test_a_run_returns_a_result(tmp_path: Path) -> None:
    model = ScriptedModel([ASK_TO_ADD, "It is 3."])
    result = agent(tmp_path).with_model("default", model).run(question="1 + 2?")
    assert (result.status, result.output, result.error, result.pending) == (
        "succeeded",
        {"answer": "It is 3."},
        None,
        (),
    )
    assert result.path == ["ask", "act", "ask", "done"]
    assert [message["role"] for message in result.messages] == ["user", "assistant", "tool", "assistant"]
    assert result.threads == {"main": result.messages}
    assert (result.inputs, result.rounds, result.row) == ({"question": "1 + 2?"}, 2, None)
    assert result.raise_for_status() is result
    assert result.to_dict()["run"] == result.run_id
    assert [request.state for request in model.requests] == ["ask", "ask"]


def test_inputs_are_merged_and_checked(tmp_path: Path) -> None:
    flow = asks(tmp_path)
    assert flow.run().inputs == {"amount": 5}
    assert flow.run({"amount": 7}).inputs == {"amount": 7}
    assert flow.run({"amount": 7}, amount=8).inputs == {"amount": 8}
    with pytest.raises(flowrun.UsageError, match=r'amount: "many" is not of type'):
        flow.run(amount="many")
    with pytest.raises(flowrun.UsageError, match=r"'self' was unexpected"):
        flow.run({"self": 1})
    with pytest.raises(flowrun.UsageError, match=r"the inputs: .*object.*no JSON value"):
        flow.run(amount=object())


def test_results_that_are_no_success_are_raised_on_request(tmp_path: Path) -> None:
    waiting = asks(tmp_path).run()
    assert waiting.status == "waiting"
    assert [(ask.state, ask.prompt, ask.schema, ask.call) for ask in waiting.pending] == [
        ("approve", "Pay 5?", {"type": "boolean"}, None)
    ]
    with pytest.raises(flowrun.RunNotFinished, match=r"has not ended: state approve asks: Pay 5\?") as not_finished:
        waiting.raise_for_status()
    assert not_finished.value.result is waiting

    def fail(seconds: float) -> None:
        raise ValueError("no")

    failed = calls(tmp_path, fail).run()
    assert failed.error is not None
    assert (failed.status, failed.error.name, failed.error.state) == ("failed", "tool.failed", "work")
    with pytest.raises(flowrun.RunFailed, match=r"tool.failed in state work: ValueError: no"):
        failed.raise_for_status()


def test_a_spec_with_errors_is_not_loaded(tmp_path: Path) -> None:
    file = write(tmp_path, "name: t\nstates: {a: {type: end, output: '{{ x'}, b: {type: nothing}}\n")
    with pytest.raises(flowrun.SpecError) as error:
        flowrun.load(file)
    assert [issue.code for issue in error.value.issues] == [issue.code for issue in flowrun.check(file)]
    with pytest.raises(flowrun.UsageError, match=r"there is no file"):
        flowrun.load(tmp_path / "none.yaml")


def test_warnings_are_issues_of_the_flow(tmp_path: Path) -> None:
    routes = "routes: [{when: reply.content, to: done}, {to: act}]"
    file = write(tmp_path, AGENT.replace("routes: [{when: reply.tool_calls, to: act}, {to: done}]", routes))
    (tmp_path / "replies.yaml").write_text("replies: []")
    flow = flowrun.load(file, functions={"api_tools:add": add})
    (tmp_path / "replies.yaml").write_text("replies: []\n")
    assert list(flow.issues) == flowrun.check(file, imports=False)
    assert {issue.severity for issue in flow.issues} == {"warning"}


def test_functions_and_models_are_replaced_by_name(tmp_path: Path) -> None:
    flow = agent(tmp_path, add=lambda a, b: 100)
    model = ScriptedModel([ASK_TO_ADD, "ok"])
    result = flow.with_model("default", model).run(question="?")
    assert result.messages[2]["content"] == "100"
    with pytest.raises(flowrun.UsageError, match=r"has no model 'defualt'.*default"):
        flow.with_model("defualt", model)
    with pytest.raises(flowrun.UsageError, match=r"entrypoint 'api_tools:sub'; did you mean 'api_tools:add'"):
        flowrun.load(
            tmp_path / "spec.yaml", functions={"api_tools:add": lambda a, b: 1, "api_tools:sub": lambda a, b: 1}
        )


def test_functions_that_replace_others_are_checked_as_the_real_ones_are(tmp_path: Path) -> None:
    declared = '"api_tools:add", parameters: {type: object, properties: {a: {type: integer}}}}'
    file = write(tmp_path, AGENT.replace('"api_tools:add"}', declared))
    with pytest.raises(flowrun.SpecError) as error:
        flowrun.load(file, functions={"api_tools:add": lambda x: 3})
    assert {issue.code for issue in error.value.issues} == {"FR503"}
    with pytest.raises(flowrun.UsageError, match=r"api_tools:add: 3 is no function"):
        flowrun.load(file, functions={"api_tools:add": 3})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("reply", "wrong"),
    [({"contents": "x"}, "reply 2: .*contents"), ({"error": "none"}, "reply 2: error 'none'"), (3, "reply 2")],
    ids=["key", "error", "type"],
)
def test_a_wrong_scripted_reply_is_refused(reply: Any, wrong: str) -> None:
    with pytest.raises(flowrun.UsageError, match=wrong):
        ScriptedModel(["fine", reply])


def test_an_engine_is_started_once_and_stopped_by_close(tmp_path: Path) -> None:
    model = CountedModel()
    with agent(tmp_path).with_model("default", model) as flow:
        threads = [threading.Thread(target=flow.run, args=({"question": str(number)},)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [flow.run(question="?").status for _ in range(3)] == ["succeeded"] * 3
        assert (model.starts, model.stops) == (1, 0)
    assert (model.starts, model.stops) == (1, 1)
    flow.close()
    assert flow.run(question="?").status == "succeeded"
    assert (model.starts, model.stops) == (2, 1)
    flow.close()


def test_the_engine_of_a_forgotten_flow_is_stopped(tmp_path: Path) -> None:
    model = CountedModel()
    agent(tmp_path).with_model("default", model).run(question="?")
    gc.collect()
    deadline = time.monotonic() + 20
    while not model.stops and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (model.starts, model.stops) == (1, 1)


def test_an_engine_that_does_not_start_raises_its_error_each_time(tmp_path: Path) -> None:
    class Broken(CountedModel):
        async def start(self) -> None:
            await super().start()
            raise flowrun.BackendError("no such model")

    model = Broken()
    flow = agent(tmp_path).with_model("default", model)
    for _ in range(2):
        with pytest.raises(flowrun.BackendError, match=r"^no such model$"):
            flow.run(question="?")
    assert model.starts == 2
    flow.close()


def test_it_works_where_a_loop_runs(tmp_path: Path) -> None:
    flow = agent(tmp_path).with_model("default", CountedModel())

    async def main() -> str:
        return flow.run(question="?").status

    assert asyncio.run(main()) == "succeeded"


def test_a_blocking_tool_may_run_a_flow(tmp_path: Path) -> None:
    inner = agent(tmp_path).with_model("default", CountedModel())

    def work(seconds: float) -> Any:
        return inner.run(question="?").output

    assert calls(tmp_path, work).run().output == {"answer": "fine"}


def test_an_async_tool_that_blocks_the_loop_is_told_what_to_use(tmp_path: Path) -> None:
    inner = agent(tmp_path).with_model("default", CountedModel())

    async def wrong(seconds: float) -> Any:
        return inner.run(question="?").output

    async def right(seconds: float) -> Any:
        async with flowrun.Session() as session:
            return (await session.run(inner, {"question": "?"})).output

    error = calls(tmp_path, wrong).run().error
    assert error is not None
    assert "await session.run(flow)" in error.message
    assert calls(tmp_path, right).run().output == {"answer": "fine"}


def test_context_variables_of_the_caller_reach_the_functions(tmp_path: Path) -> None:
    import contextvars

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    flow = calls(tmp_path, lambda seconds: variable.get())
    variable.set("mine")
    assert flow.run().output == "mine"


SCRIPT = """
import sys, time
import flowrun
from tests.unit.api.api_flows import agent, calls
from tests.unit.api.test_flow import CountedModel
from pathlib import Path
folder = Path(sys.argv[1])
"""


def python(code: str, folder: Path) -> subprocess.Popen[str]:
    code = SCRIPT + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_ctrl_c_cancels_the_run_waits_and_is_raised(tmp_path: Path) -> None:
    process = python(
        """
        import asyncio
        async def work(seconds):
            print("began", flush=True)
            try:
                await asyncio.sleep(60)
            finally:
                print("cancelled", flush=True)
        flow = calls(folder, work)
        try:
            flow.run()
        except KeyboardInterrupt:
            print("raised", flush=True)
        print(calls(folder, lambda seconds: 3).run().output)
        """,
        tmp_path,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "began\n"
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.splitlines(), err) == (0, ["cancelled", "raised", "3"], "")


def test_engines_are_stopped_at_exit(tmp_path: Path) -> None:
    process = python(
        """
        import asyncio
        class Slow(CountedModel):
            async def stop(self):
                await asyncio.to_thread(time.sleep, 0.01)
                print("stopped", flush=True)
        flow = agent(folder).with_model("default", Slow())
        print(flow.run(question="?").status)
        """,
        tmp_path,
    )
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.splitlines(), err) == (0, ["succeeded", "stopped"], "")


def test_the_exit_waits_for_the_engine_of_a_flow_that_was_forgotten_just_before(tmp_path: Path) -> None:
    process = python(
        """
        import asyncio
        class Slow(CountedModel):
            async def stop(self):
                await asyncio.sleep(0.2)
                await asyncio.to_thread(time.sleep, 0.1)
                print("stopped", flush=True)
        print(agent(folder).with_model("default", Slow()).run(question="?").status)
        """,
        tmp_path,
    )
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.splitlines(), err) == (0, ["succeeded", "stopped"], "")


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_starts_its_own_loop(tmp_path: Path) -> None:
    process = python(
        """
        import os
        flow = agent(folder).with_model("default", CountedModel())
        flow.run(question="?")
        child = os.fork()
        if child == 0:
            print(flow.run(question="?").status, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print(flow.run(question="?").status)
        """,
        tmp_path,
    )
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out.splitlines()) == (0, ["succeeded", "succeeded"])


def test_an_exit_of_a_backend_reaches_its_caller_and_no_other(tmp_path: Path) -> None:
    class Exits(CountedModel):
        async def reply(self, request: flowrun.AskModel, *, on_text: OnText | None = None) -> flowrun.Reply:
            raise SystemExit(3)

    with pytest.raises(SystemExit):
        agent(tmp_path).with_model("default", Exits()).run(question="?")
    with agent(tmp_path).with_model("default", CountedModel()) as flow:
        assert flow.run(question="?").status == "succeeded"


def test_errors_survive_pickling(tmp_path: Path) -> None:
    waiting = asks(tmp_path).run()
    for error in (flowrun.RunNotFinished(waiting), flowrun.RunFailed(waiting)):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.result.run_id) == (type(error), str(error), waiting.run_id)
    with pytest.raises(flowrun.SpecError) as caught:
        flowrun.load(write(tmp_path, "name: t\nstates: {a: {type: nothing}}\n"))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert "spec.yaml:4:" in str(caught.value)


def test_no_secret_is_in_a_repr(tmp_path: Path) -> None:
    model = "{backend: openai, name: m, base_url: 'http://x', api_key: '${KEY}', headers: {x-key: '${KEY}'}}"
    file = write(tmp_path, AGENT.replace("{backend: scripted, name: replies.yaml}", model))
    flow = flowrun.load(file, functions={"api_tools:add": add}, environ={"KEY": "sk-very-secret"})
    assert "sk-very-secret" not in repr((flow, flow.models, flow.spec, flow.graph, flow.issues))


def test_no_run_begins_while_the_process_exits(tmp_path: Path) -> None:
    process = python(
        """
        import threading
        flow = agent(folder).with_model("default", CountedModel())
        def late():
            threading.main_thread().join()
            time.sleep(0.5)
            try:
                flow.run(question="?")
            except RuntimeError as error:
                print(error, flush=True)
        threading.Thread(target=late).start()
        print(flow.run(question="?").status, flush=True)
        """,
        tmp_path,
    )
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.splitlines(), err) == (0, ["succeeded", "Flow.run: the process is exiting"], "")


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(flowrun.UsageError, match=r"'gpt-4' is no model"):
        agent(tmp_path).with_model("default", "gpt-4")  # type: ignore[arg-type]
    with pytest.raises(flowrun.UsageError, match=r"write \[text\]"):
        ScriptedModel("hello")


def test_a_worker_process_must_be_able_to_import_a_given_function(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(
        "flowrun: v1\nname: f\nversion: 1.0.0\nisolation: process\nflows:\n"
        "  inner:\n    states:\n      go: {type: call, entrypoint: 'tools.a:go', next: done}\n"
        "      done: {type: end, output: '{{ outputs.go }}'}\n"
        "states: {in: {type: flow, flow: '#inner', next: done}, done: {type: end, output: '{{ outputs[\"in\"] }}'}}\n"
    )
    with pytest.raises(UsageError, match=r"tools\.a:go has isolation: process, but a worker process cannot import it"):
        flowrun.load(file, functions={"tools.a:go": lambda: 1})
    with flowrun.load(file, functions={"tools.a:go": harmful.pid}) as flow:
        first, second = flow.run().output, flow.run().output
    assert first == second != os.getpid()
    assert not alive(first)
