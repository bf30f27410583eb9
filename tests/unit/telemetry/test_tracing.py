"""The spans and metrics of runs, as the SDK's in-memory exporter and reader receive them."""

import asyncio
import gc
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")

from opentelemetry import trace
from opentelemetry.sdk.trace import Span, SpanProcessor
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as standard
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import error_attributes, server_attributes
from opentelemetry.trace import SpanKind, StatusCode
from starlette.types import ASGIApp, Message

import flowrun
from flowrun.calling import current_call
from flowrun.serving.completions import Completions
from flowrun.serving.served_flow import serve_flow
from flowrun.serving.served_runs import ServedRuns
from flowrun.serving.shown_flows import ShownFlows
from flowrun.telemetry import continued, conventions
from flowrun.telemetry.tracing import FlowTrace
from flowrun.testing import ScriptedModel
from tests.unit.api.api_flows import ASK_TO_ADD, agent, asks, calls, write
from tests.unit.telemetry.traces import Traces, own

QUESTION = {"question": "1 + 2?"}


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Traces:
    return Traces(monkeypatch)


def adds(folder: Path, **functions: Any) -> flowrun.Flow:
    return agent(folder, **functions).with_model("default", ScriptedModel([ASK_TO_ADD, {"content": "3"}]))


def started(flow: flowrun.Flow, inputs: Any = None, **more: Any) -> Callable[[flowrun.Session], Awaitable[Any]]:
    return lambda session: session.run(flow, QUESTION if inputs is None else inputs, run_id="r", **more)


# --- what a run looks like --------------------------------------------------------------------------------------------


def test_a_run_has_states_which_have_requests_and_calls(tmp_path: Path, traces: Traces) -> None:
    traces.run(started(adds(tmp_path)))
    assert traces.tree() == [
        "invoke_workflow agent",
        "  state ask",
        "    chat default",
        "  state act",
        "    execute_tool add",
        "  state ask",
        "    chat default",
        "  state done",
    ]
    assert {span.attributes and span.attributes["gen_ai.conversation.id"] for span in traces.spans} == {"r"}
    run, ask, chat, act, tool = traces.spans[:5]
    assert own(run) == {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": "agent",
        "gen_ai.agent.name": "agent",
        "gen_ai.agent.version": "1.0.0",
        "flowrun.run.status": "succeeded",
    }
    assert own(ask) == {
        "flowrun.state.name": "ask",
        "flowrun.state.kind": "chat",
        "flowrun.state.step": 1,
        "flowrun.state.exit": "route",
    }
    assert own(chat) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "custom",
        "gen_ai.request.model": "default",
        "gen_ai.response.finish_reasons": ("tool_calls",),
    }
    assert own(act)["flowrun.state.step"] == 2
    call_id = own(tool).pop("gen_ai.tool.call.id")
    assert own(tool) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "add",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": call_id,
    }
    assert (chat.kind, tool.kind, run.kind) == (SpanKind.CLIENT, SpanKind.INTERNAL, SpanKind.INTERNAL)
    assert {span.status.status_code for span in traces.spans} == {StatusCode.UNSET}
    scope = run.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.schema_url) == ("flowrun", "https://opentelemetry.io/schemas/1.41.0")


def test_an_agent_state_is_an_agent(tmp_path: Path, traces: Traces) -> None:
    text = """\
    name: helper
    model: {backend: scripted, name: replies.yaml}
    tools: {add: {entrypoint: "api_tools:add"}}
    messages: [{role: user, content: "1 + 2?"}]
    states:
      work: {type: agent, next: done}
      done: {type: end}
    """
    flow = flowrun.load(write(tmp_path, text), functions={"api_tools:add": lambda a, b: a + b})
    flow = flow.with_model("default", ScriptedModel([ASK_TO_ADD, {"content": "3"}]))
    traces.run(started(flow, {}))
    assert traces.tree() == [
        "invoke_workflow helper",
        "  invoke_agent work",
        "    chat default",
        "    execute_tool add",
        "    chat default",
        "  state done",
    ]
    assert own(traces.span("invoke_agent work"))["gen_ai.agent.name"] == "work"


NESTED = """\
name: outer
flows:
  twice:
    inputs: {n: {type: integer}}
    states:
      work: {type: call, entrypoint: "api_tools:work", with: {seconds: "{{ inputs.n }}"}, next: end}
      end: {type: end, output: "{{ outputs.work }}"}
states:
  each: {type: map, flow: "#twice", for_each: "[1, 2]", with: {n: "{{ item }}"}, next: end}
  end: {type: end, output: "{{ outputs.each }}"}
"""


def test_the_runs_of_sub_flows_are_below_the_state_that_starts_them(tmp_path: Path, traces: Traces) -> None:
    async def work(seconds: int) -> int:
        await asyncio.sleep(0)
        return seconds

    flow = flowrun.load(write(tmp_path, NESTED), functions={"api_tools:work": work})
    result = traces.run(started(flow, {}))
    assert result.output == [1, 2]
    child = ["    invoke_workflow twice", "      state work", "        execute_tool api_tools:work", "      state end"]
    assert traces.tree() == ["invoke_workflow outer", "  state each", *child, *child, "  state end"]
    children = [span for span in traces.spans if span.name == "invoke_workflow twice"]
    assert [own(span)["flowrun.run.id"] for span in children] == ["r.1.0", "r.1.1"]
    assert {span.attributes and span.attributes["gen_ai.conversation.id"] for span in traces.spans} == {"r"}


def test_the_settings_and_the_tokens_of_a_request(tmp_path: Path, traces: Traces) -> None:
    class Counted(ScriptedModel):
        async def reply(self, request: Any, *, on_text: Any = None) -> Any:
            from msgspec.structs import replace

            from flowrun.core.messages import Usage

            usage = Usage(prompt_tokens=20, completion_tokens=3, cached_tokens=16)
            return replace(await super().reply(request), usage=usage)

    text = """\
    name: settings
    model: {backend: openai, name: small, base_url: "http://user:pass-word@localhost:9/v1"}
    sampling: {temperature: 0.5, max_tokens: 20, seed: 7, stop: [END], top_p: 0.9}
    messages: [{role: user, content: hi}]
    states:
      ask: {type: chat, response_format: {type: json_object}, next: done}
      done: {type: end}
    """
    flow = flowrun.load(write(tmp_path, text)).with_model("default", Counted([{"content": "{}"}]))
    traces.run(started(flow, {}))
    assert own(traces.span("chat default")) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "custom",
        "gen_ai.request.model": "default",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 20,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.request.top_p": 0.9,
        "gen_ai.output.type": "json",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 16,
    }
    found = traces.metrics()
    common = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "custom", "gen_ai.request.model": "default"}
    tokens, duration = found["gen_ai.client.token.usage"], found["gen_ai.client.operation.duration"]
    assert (tokens.unit, duration.unit, len(found)) == ("{token}", "s", 2)
    assert {(point.attributes["gen_ai.token.type"], point.sum) for point in tokens.data.data_points} == {
        ("input", 20),
        ("output", 3),
    }
    (took,) = duration.data.data_points
    assert (took.attributes, took.count) == (common, 1)
    assert tuple(took.explicit_bounds) == (
        *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    )
    assert tuple(tokens.data.data_points[0].explicit_bounds) == (
        *(1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864),
    )


def test_tokens_that_a_backend_does_not_know_are_not_reported(tmp_path: Path, traces: Traces) -> None:
    traces.run(started(adds(tmp_path)))
    assert list(traces.metrics()) == ["gen_ai.client.operation.duration"]


def test_all_names_are_those_of_the_conventions() -> None:
    declared = {
        value
        for module in (standard, gen_ai_metrics, error_attributes, server_attributes)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    }
    ours = {value for name, value in vars(conventions).items() if name.isupper() and isinstance(value, str)}
    ours |= set(conventions.SAMPLING.values())
    foreign = {name for name in ours if name.startswith(("gen_ai.", "error.", "server."))}
    assert len(foreign) > 30
    assert foreign - declared == set()
    operations = {each.value for each in standard.GenAiOperationNameValues}
    ours = {conventions.CHAT, conventions.EXECUTE_TOOL, conventions.INVOKE_AGENT, conventions.INVOKE_WORKFLOW}
    assert ours <= operations


# --- what goes wrong --------------------------------------------------------------------------------------------------


FAILS = """\
name: fails
secrets: [TELEMETRY_KEY]
states:
  work: {type: call, entrypoint: "api_tools:work", next: done}
  done: {type: end}
"""


@pytest.mark.parametrize(
    ("captures", "message"), [(False, None), (True, "ValueError: the key is ${TELEMETRY_KEY}")], ids=["off", "content"]
)
def test_an_error_has_its_name_and_its_message_only_with_content(
    tmp_path: Path, traces: Traces, monkeypatch: pytest.MonkeyPatch, captures: bool, message: str | None
) -> None:
    monkeypatch.setenv("TELEMETRY_KEY", "s3cret-value")
    traces.capture(captures)

    def work() -> None:
        raise ValueError("the key is s3cret-value")

    flow = flowrun.load(write(tmp_path, FAILS), functions={"api_tools:work": work})
    assert traces.run(started(flow, {})).status == "failed"
    failed = {span.name: (own(span).get("error.type"), span.status.description) for span in traces.spans}
    places = "invoke_workflow fails", "state work", "execute_tool api_tools:work"
    assert failed == dict.fromkeys(places, ("tool.failed", message))
    assert {span.status.status_code for span in traces.spans} == {StatusCode.ERROR}
    assert not any(span.events for span in traces.spans)


def test_each_attempt_is_a_visit_of_its_state(tmp_path: Path, traces: Traces) -> None:
    attempts: list[int] = []

    def work(seconds: float) -> int:
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("not yet")
        return 5

    text = """\
    name: tries
    states:
      work:
        type: call
        entrypoint: "api_tools:work"
        with: {seconds: 0}
        retry: {max_attempts: 2, delay: 1ms}
        next: done
      done: {type: end}
    """
    flow = flowrun.load(write(tmp_path, text), functions={"api_tools:work": work})
    assert traces.run(started(flow, {})).status == "succeeded"
    assert traces.tree() == [
        "invoke_workflow tries",
        "  state work",
        "    execute_tool api_tools:work",
        "  state work",
        "    execute_tool api_tools:work",
        "  state done",
    ]
    first, second = (own(span) for span in traces.spans if span.name == "state work")
    assert (first["flowrun.state.exit"], first["error.type"]) == ("retry", "tool.failed")
    assert (second["flowrun.state.exit"], second.get("error.type")) == ("route", None)


def test_what_is_cancelled_ends_its_spans(tmp_path: Path, traces: Traces) -> None:
    open_spans: set[str] = set()

    class Open(SpanProcessor):
        def on_start(self, span: Span, parent_context: Any = None) -> None:
            open_spans.add(span.name)

        def on_end(self, span: Any) -> None:
            open_spans.discard(span.name)

    traces.provider.add_span_processor(Open())
    begun = asyncio.Event()

    async def work(seconds: float) -> None:
        begun.set()
        await asyncio.sleep(60)

    async def cancel(session: flowrun.Session) -> None:
        task = asyncio.create_task(session.run(calls(tmp_path, work), {}))
        await begun.wait()
        assert open_spans == {"invoke_workflow calls", "state work", "execute_tool api_tools:work"}
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    traces.run(cancel)
    assert open_spans == set()
    assert own(traces.span("execute_tool api_tools:work"))["error.type"] == "cancelled"
    assert own(traces.span("invoke_workflow calls"))["flowrun.run.status"] == "interrupted"


# --- content ----------------------------------------------------------------------------------------------------------


CONTENT = {"messages", "arguments", "result", "definitions", "instructions"}


def test_without_being_asked_no_span_has_content(tmp_path: Path, traces: Traces) -> None:
    traces.run(started(adds(tmp_path)))
    named = {name for span in traces.spans for name in span.attributes or {}}
    assert not [name for name in named if name.rpartition(".")[2] in CONTENT]
    assert "1 + 2" not in repr([span.to_json() for span in traces.spans])


def test_content_is_in_the_form_of_the_conventions(tmp_path: Path, traces: Traces) -> None:
    traces.capture(True)
    traces.run(started(adds(tmp_path)))
    first, second = (own(span) for span in traces.spans if span.name == "chat default")
    tool = own(traces.span("execute_tool add"))
    call = {"type": "tool_call", "id": tool["gen_ai.tool.call.id"], "name": "add", "arguments": '{"a":1,"b":2}'}
    asked = [{"role": "user", "parts": [{"type": "text", "content": "1 + 2?"}]}]
    assert json.loads(first["gen_ai.input.messages"]) == asked
    (reply,) = json.loads(first["gen_ai.output.messages"])
    assert (reply["role"], reply["finish_reason"], reply["parts"][0]["name"]) == ("assistant", "tool_calls", "add")
    (declared,) = json.loads(first["gen_ai.tool.definitions"])
    assert (declared["type"], declared["name"], declared["description"]) == ("function", "add", "Add two integers.")
    answered = {"type": "tool_call_response", "id": call["id"], "response": "3"}
    told = json.loads(second["gen_ai.input.messages"])
    assert told[0] == asked[0]
    assert [{**part, "arguments": part["arguments"].replace(" ", "")} for part in told[1]["parts"]] == [call]
    assert told[2] == {"role": "tool", "parts": [answered]}
    assert json.loads(second["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "3"}], "finish_reason": "stop"}
    ]
    assert json.loads(tool["gen_ai.tool.call.arguments"]) == {"a": 1, "b": 2}
    assert json.loads(tool["gen_ai.tool.call.result"]) == 3


def test_content_has_no_secrets(tmp_path: Path, traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEMETRY_KEY", "s3cret-value")
    traces.capture(True)
    text = FAILS.replace('work"', 'work", with: {key: a}')
    flow = flowrun.load(write(tmp_path, text), functions={"api_tools:work": lambda key: {"is": "s3cret-value"}})
    traces.run(started(flow, {}))
    assert own(traces.span("execute_tool api_tools:work"))["gen_ai.tool.call.result"] == '{"is":"${TELEMETRY_KEY}"}'
    assert "s3cret-value" not in repr([span.to_json() for span in traces.spans])


def test_an_idempotency_key_is_recorded_nowhere(tmp_path: Path, traces: Traces) -> None:
    traces.capture(True)
    keys: list[str] = []

    def add(a: int, b: int) -> int:
        keys.append(current_call().key)
        return a + b

    traces.run(started(adds(tmp_path, add=add)))
    (key,) = keys
    assert key not in repr([span.to_json() for span in traces.spans])


# --- runs that go on later --------------------------------------------------------------------------------------------


def test_what_is_replayed_is_not_reported_anew(tmp_path: Path, traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """\
    name: later
    states:
      work: {type: call, entrypoint: "later_tools:work", with: {seconds: 0}, next: ask}
      ask: {type: wait, prompt: "Go on?", schema: {type: boolean}, next: again}
      again: {type: call, entrypoint: "later_tools:work", with: {seconds: 1}, next: done}
      done: {type: end}
    """
    journal = tmp_path / "runs.sqlite"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "later_tools.py").write_text("def work(seconds: float) -> float:\n    return seconds\n")
    flow = flowrun.load(write(tmp_path, text))

    async def begin(session: flowrun.Session) -> str:
        (request,) = (await session.run(flow, {}, run_id="r")).pending
        return str(request.id)

    request = traces.run(begin, journal=journal)
    assert traces.tree() == [
        "invoke_workflow later",
        "  state work",
        "    execute_tool later_tools:work",
        "  state ask",
    ]
    assert own(traces.span("invoke_workflow later"))["flowrun.run.status"] == "waiting"
    assert own(traces.span("state ask")).get("flowrun.state.exit") is None
    traces.exporter.clear()

    async def go_on(session: flowrun.Session) -> None:
        await session.answer(request, True)
        assert (await session.resume("r")).status == "succeeded"

    traces.run(go_on, journal=journal)
    assert traces.tree() == [
        "invoke_workflow later",
        "  state ask",
        "  state again",
        "    execute_tool later_tools:work",
        "  state done",
    ]
    resumed = traces.span("invoke_workflow later")
    assert (own(resumed)["flowrun.run.status"], own(resumed)["flowrun.run.resumed"]) == ("succeeded", True)
    assert {span.attributes and span.attributes["gen_ai.conversation.id"] for span in traces.spans} == {"r"}


def test_a_resumed_run_ends_in_a_span_of_its_own(tmp_path: Path, traces: Traces) -> None:
    async def work(session: flowrun.Session) -> None:
        (request,) = (await session.run(asks(tmp_path), {}, run_id="r")).pending
        await session.answer(request.id, True)
        traces.exporter.clear()
        assert (await session.resume("r")).status == "succeeded"

    traces.run(work)
    assert traces.tree() == ["invoke_workflow asks", "  state approve", "  state paid"]


def test_what_a_resumed_run_finds_open_is_done_in_a_span(
    tmp_path: Path, traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """\
    name: stopped
    states:
      work: {type: call, entrypoint: "stopped_tools:work", idempotent: true, next: done}
      done: {type: end}
    """
    tool = "import asyncio\n\ncalls = []\n\n\nasync def work() -> None:\n    calls.append(1)\n"
    (tmp_path / "stopped_tools.py").write_text(tool + "    await asyncio.sleep(60 if len(calls) == 1 else 0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    flow = flowrun.load(write(tmp_path, text))

    async def stop_and_resume(session: flowrun.Session) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(session.run(flow, {}, run_id="r"), 0.2)
        traces.exporter.clear()
        assert (await session.resume("r")).status == "succeeded"

    traces.run(stop_and_resume, journal=tmp_path / "runs.sqlite")
    assert traces.tree() == [
        "invoke_workflow stopped",
        "  state work",
        "    execute_tool stopped_tools:work",
        "  state done",
    ]


# --- contexts ---------------------------------------------------------------------------------------------------------


def test_a_run_is_below_the_span_of_its_caller(tmp_path: Path, traces: Traces) -> None:
    headers = {"Host": "localhost", "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}

    async def work(session: flowrun.Session) -> None:
        with continued(headers):
            await session.run(adds(tmp_path), QUESTION)

    traces.run(work)
    run = traces.span("invoke_workflow agent")
    assert run.parent is not None
    assert (run.parent.trace_id, run.parent.span_id) == (0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)


def test_a_served_run_is_below_the_span_of_the_request(tmp_path: Path, traces: Traces) -> None:
    flow = adds(tmp_path)
    body = {"model": flow.spec.name, "messages": [{"role": "user", "content": "1 + 2?"}]}
    headers = {
        "content-type": "application/json",
        "host": "localhost",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }

    async def work(session: flowrun.Session) -> Any:
        app = Completions(
            {flow.spec.name: serve_flow(flow)},
            ServedRuns(session, ShownFlows(os.environ), max_live=1, outlives_requests=False),
            timeout=60.0,
        )
        return await post(app, json.dumps(body).encode(), headers)

    answered = traces.run(work, journal=tmp_path / "journal.sqlite")
    assert answered["choices"][0]["message"]["content"] == "3"
    run = traces.span("invoke_workflow agent")
    assert run.parent is not None
    assert (run.parent.trace_id, run.parent.span_id) == (0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)
    assert run.attributes is not None
    assert run.attributes["gen_ai.conversation.id"] == answered["flowrun"]["run"]


async def post(app: ASGIApp, body: bytes, headers: Mapping[str, str]) -> Any:
    """Return the JSON that an application answers to a body."""
    sent: list[Message] = []
    waiting = asyncio.get_running_loop().create_future()
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else await waiting

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await app(scope, receive, send)
    return json.loads(b"".join(message.get("body", b"") for message in sent))


def test_a_call_from_another_thread_is_below_the_span_of_that_thread(tmp_path: Path, traces: Traces) -> None:
    with traces.provider.get_tracer("caller").start_as_current_span("caller") as caller, adds(tmp_path) as flow:
        flow.run(QUESTION)
    run = traces.span("invoke_workflow agent")
    assert run.parent is not None
    assert run.parent.span_id == caller.get_span_context().span_id


def test_without_headers_nothing_is_continued() -> None:
    with continued({}):
        assert not trace.get_current_span().get_span_context().is_valid


def in_a_thread(a: int, b: int) -> int:
    return trace.get_current_span().get_span_context().span_id


async def in_a_task(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return trace.get_current_span().get_span_context().span_id


@pytest.mark.parametrize("function", [in_a_thread, in_a_task])
def test_the_span_of_a_call_is_the_current_one_in_it(tmp_path: Path, traces: Traces, function: Any) -> None:
    traces.capture(True)
    traces.run(started(adds(tmp_path, add=function)))
    span = traces.span("execute_tool add")
    assert span.context is not None
    assert own(span)["gen_ai.tool.call.result"] == str(span.context.span_id)


def test_rows_of_a_batch_are_traces_of_their_own(tmp_path: Path, traces: Traces) -> None:
    async def work(session: flowrun.Session) -> None:
        flow = calls(tmp_path, lambda seconds: seconds)
        results = [result async for result in session.batch(flow, [{"seconds": n} for n in range(50)])]
        assert len(results) == 50
        gc.collect()
        assert not [one for one in gc.get_objects() if isinstance(one, FlowTrace)]  # a run's trace is gone with it

    traces.run(work)
    runs = [span for span in traces.spans if span.name == "invoke_workflow calls"]
    assert len({span.context.trace_id for span in runs if span.context}) == 50
    assert len(traces.spans) == 50 * 4
