"""``/mcp``: each flow is a tool of an MCP server (streamable HTTP). The client's user answers what a run asks.

The states that a run enters are its progress. A run that waits and whose question the client cannot show ends the call
with words that say how it is answered.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import mcp.types as types
import msgspec
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from pydantic import TypeAdapter, ValidationError
from starlette.routing import Route

from flowrun.errors import FlowrunError, UsageError
from flowrun.runtime.run_events import RunEvent, StateEntered
from flowrun.runtime.run_result import InputRequest, RunResult, answer_text
from flowrun.runtime.session import check_answer, new_run_id
from flowrun.serving.answers import mask_request
from flowrun.serving.asked_address import asked_address
from flowrun.serving.questions import answer_of_form, describe_questions, flat_form, question_text
from flowrun.serving.served_flow import ServedFlow
from flowrun.serving.served_runs import ServedRuns
from flowrun.spec import mask
from flowrun.spec.model import JSON
from flowrun.version import __version__

RUN: Final = "flowrun/run"
"""The member of ``_meta`` that has the id of the run."""

_SESSION: Final = "mcp-session-id"
_LEVELS: Final = ("debug", "info")
"""The levels of clients that want to know what a run does."""

_CLIENTS: Final = 10_000
"""The most clients whose level is remembered."""

_Parts: Final = TypeAdapter(list[types.ContentBlock])
"""An output that is the content of a tool's result."""


class McpEndpoint:
    """The server of tools. It works within ``manager.run()``."""

    def __init__(self, flows: Mapping[str, ServedFlow], runs: ServedRuns, *, timeout: float, max_body: int) -> None:
        self._flows = flows
        self._runs = runs
        self._timeout = timeout
        self._levels: OrderedDict[str, str] = OrderedDict()
        server: Server[Any] = Server(
            "flowrun", version=__version__, on_list_tools=self._list_tools, on_call_tool=self._call_tool
        )
        server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, self._set_level)
        self.manager = StreamableHTTPSessionManager(server, max_request_body_size=max_body)

    def route(self) -> Route:
        """Return the route of the endpoint."""
        return Route("/mcp", StreamableHTTPASGIApp(self.manager), methods=["GET", "POST", "DELETE"])

    async def _set_level(self, ctx: Any, params: types.SetLevelRequestParams) -> types.EmptyResult:
        self._levels[_client_of(ctx)] = params.level
        if len(self._levels) > _CLIENTS:
            self._levels.popitem(last=False)
        return types.EmptyResult()

    async def _list_tools(self, ctx: Any, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[_tool(served) for served in self._flows.values()])

    async def _call_tool(
        self, ctx: Any, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        served = self._flows.get(params.name)
        if served is None:
            raise MCPError(types.INVALID_PARAMS, f"there is no tool {params.name!r}")
        call = _Call(served, self._runs, ctx, address=_address_of(ctx), says=self._level_of(ctx) in _LEVELS)
        try:
            async with asyncio.timeout(self._timeout):
                return await (call.begin(params) if params.request_state is None else call.go_on(params))
        except TimeoutError:
            return _failed(f"the call took longer than --timeout, {self._timeout:g} s")
        except FlowrunError as exc:
            return _failed(served.masked(str(exc)))

    def _level_of(self, ctx: Any) -> str | None:
        """Return the level of what a client wants to know: it says so for one call (2026-07-28), or for all before."""
        level: str | None = (ctx.meta or {}).get(types.LOG_LEVEL_META_KEY)
        return self._levels.get(_client_of(ctx)) if level is None else level


class _Answer(NamedTuple):
    """An answer, which may be null."""

    value: JSON


class _Call:
    """One call of a flow, for a client."""

    def __init__(self, served: ServedFlow, runs: ServedRuns, ctx: Any, *, address: str, says: bool) -> None:
        self._served = served
        self._runs = runs
        self._ctx = ctx
        self._address = address
        self._says = says
        self._entered: asyncio.Queue[StateEntered | None] = asyncio.Queue()

    async def begin(self, params: types.CallToolRequestParams) -> types.CallToolResult | types.InputRequiredResult:
        """Run the flow, and return its result or what it waits for."""
        inputs = self._served.checked(params.arguments or {})
        run = asyncio.create_task(self._runs.run(self._served.flow, inputs, run_id=new_run_id(), listen=self._listen))
        run.add_done_callback(lambda _: self._entered.put_nowait(None))
        try:
            await self._report()
            return await self._conclude(await run)
        finally:
            run.cancel()

    def _listen(self, event: RunEvent) -> None:
        if isinstance(event, StateEntered) and "." not in event.run:
            self._entered.put_nowait(event)

    async def _report(self) -> None:
        """Tell the client each state that the run enters, until the run is over."""
        session = self._ctx.session
        number = 0
        while (event := await self._entered.get()) is not None:
            number += 1
            await session.report_progress(float(number), None, event.state)
            if self._says:
                said = types.LoggingMessageNotificationParams(
                    level="info", logger=self._served.name, data={"run": event.run, "state": event.state}
                )
                await session.send_notification(types.LoggingMessageNotification(params=said), self._ctx.request_id)

    async def _conclude(self, result: RunResult) -> types.CallToolResult | types.InputRequiredResult:
        """Ask the client's user as long as the run waits for something that the client can ask."""
        while result.pending:
            if not self._can_ask(result):
                return self._waiting(result)
            if not self._ctx.session.can_send_request:
                return _input_required(result, self._served, {})
            if not await self._ask_all(result) and self._runs.unanswered(now := self._runs.pending(result.run_id)):
                return self._waiting(now)
            result = await self._runs.go_on(result.run_id)
        if result.error is not None:
            return _failed(self._served.masked(f"{result.error.name}: {result.error.message}"), result.run_id)
        if result.run.outcome is None:
            return _failed(f"run {result.run_id} has not ended: it is {result.status}", result.run_id)
        return _result(self._served, *_content_of(mask(result.output, self._served.flow.secrets)), result.run_id)

    def _waiting(self, result: RunResult) -> types.CallToolResult:
        return _result(
            self._served, describe_questions(result, self._address, self._served.flow.secrets), None, result.run_id
        )

    def _can_ask(self, result: RunResult) -> bool:
        capabilities = self._ctx.session.client_capabilities
        asks = capabilities is not None and capabilities.elicitation is not None
        return asks and all(flat_form(ask) is not None for ask in result.pending)

    async def _ask_all(self, result: RunResult) -> bool:
        """Ask the client's user each question; return whether none was declined."""
        for ask in result.pending:
            if (answer := await self._ask(ask)) is None:
                return False
            await self._answer(ask.id, answer.value)
        return True

    async def _ask(self, ask: InputRequest) -> "_Answer | None":
        """Ask the client's user a question until the answer is one; None if it is declined."""
        wrong: str | None = None
        while True:
            message, form = _shown(ask, self._served, wrong)
            answer = await self._ctx.session.elicit_form(message, form, self._ctx.request_id)
            if answer.action != "accept":
                return None
            try:
                return _Answer(check_answer(ask, answer_of_form(ask, answer.content or {})))
            except UsageError as exc:
                wrong = str(exc)

    async def _answer(self, question: str, value: JSON) -> None:
        """Answer a question, unless somebody else has done so meanwhile: then the run goes on with that."""
        with suppress(UsageError):
            await self._runs.session.answer(question, value)

    async def go_on(self, params: types.CallToolRequestParams) -> types.CallToolResult | types.InputRequiredResult:
        """Go on with a run that waited, with the answers that the client brings."""
        run = str(params.request_state)
        if self._runs.find(run).flow != self._served.name:
            raise UsageError(f"no run {run} of {self._served.name} waits")
        result = self._runs.pending(run)
        responses = params.input_responses or {}
        answers: dict[str, JSON] = {}
        wrong: dict[str, str] = {}
        for ask in self._runs.unanswered(result):
            answer = responses.get(ask.id)
            if not isinstance(answer, types.ElicitResult) or answer.action != "accept":
                return self._waiting(result)
            try:
                answers[ask.id] = check_answer(ask, answer_of_form(ask, answer.content or {}))
            except UsageError as exc:
                wrong[ask.id] = str(exc)
        if wrong:
            return _input_required(result, self._served, wrong)
        for question, value in answers.items():
            await self._answer(question, value)
        return await self._conclude(await self._runs.go_on(run))


def _input_required(result: RunResult, served: ServedFlow, wrong: Mapping[str, str]) -> types.InputRequiredResult:
    """Return what a client of MCP 2026-07-28 asks its user, before it calls again.

    Args:
        wrong: by questions, what was wrong with the answers that the client brought.
    """
    requests: Any = {}
    for ask in result.pending:
        message, form = _shown(ask, served, wrong.get(ask.id))
        params = types.ElicitRequestFormParams(message=message, requested_schema=form)
        requests[ask.id] = types.ElicitRequest(params=params)
    return types.InputRequiredResult(input_requests=requests, request_state=result.run_id)


def _shown(ask: InputRequest, served: ServedFlow, wrong: str | None) -> tuple[str, dict[str, Any]]:
    """Return the text and the form of a question for the client's user, and what was ``wrong`` with an answer."""
    shown = mask_request(ask, served.flow.secrets)
    said, form = question_text(shown), flat_form(shown)
    assert form is not None, "_can_ask has seen that it has one"
    return (said if wrong is None else f"{said}\n\n({served.masked(wrong)})"), form


def _tool(served: ServedFlow) -> types.Tool:
    spec = served.flow.spec
    schema = {
        "type": "object",
        "properties": {name: _alone(name, schema) for name, schema in spec.inputs.items()},
        "required": [name for name, schema in spec.inputs.items() if "default" not in schema],
        "additionalProperties": False,
    }
    about = spec.description or f"Runs the flow {spec.name} {spec.version}."
    return types.Tool(name=served.name, description=about, input_schema=schema)


def _alone(name: str, schema: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return the schema of an input as a part of another one: its references lead into itself."""
    refers = "$ref" in msgspec.json.encode(schema).decode() and "$id" not in schema
    return {"$id": f"flowrun:inputs/{name}", **schema} if refers else dict(schema)


def _result(
    served: ServedFlow, content: str | list[types.ContentBlock], structured: dict[str, Any] | None, run: str
) -> types.CallToolResult:
    parts = [types.TextContent(text=served.masked(content))] if isinstance(content, str) else content
    return types.CallToolResult(content=list(parts), structured_content=structured, _meta={RUN: run})


def _failed(message: str, run: str | None = None) -> types.CallToolResult:
    about = {} if run is None else {RUN: run}
    return types.CallToolResult(content=[types.TextContent(text=message)], is_error=True, _meta=about)


def _content_of(output: JSON) -> tuple[str | list[types.ContentBlock], dict[str, Any] | None]:
    """Return an output as the content of a result: a list of MCP's parts as it is, all else as text and as data."""
    if isinstance(output, list) and output:
        try:
            return _Parts.validate_python(output), None
        except ValidationError:
            pass  # it is any other list
    return answer_text(output) or "", dict(output) if isinstance(output, Mapping) else None


def _client_of(ctx: Any) -> str:
    return "" if ctx.request is None else str(ctx.request.headers.get(_SESSION, ""))


def _address_of(ctx: Any) -> str:
    return "" if ctx.request is None else asked_address(ctx.request)
