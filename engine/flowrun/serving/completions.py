"""``POST /v1/chat/completions``: runs a flow for a request, and sends its answer whole or as it is written."""

import asyncio
import time
from collections.abc import Awaitable, Mapping
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from flowrun.errors import FlowrunError
from flowrun.runtime.run_events import RunEvent
from flowrun.runtime.run_result import RunResult
from flowrun.runtime.session import new_run_id
from flowrun.serving.api_errors import ApiError, as_api_error, error_of_run, json_response
from flowrun.serving.asked_address import asked_address
from flowrun.serving.chat_reply import AnswerText, Completion
from flowrun.serving.chat_request import ChatRequest, parse_request
from flowrun.serving.served_flow import ServedFlow
from flowrun.serving.served_runs import ServedRuns
from flowrun.serving.server import ABORT
from flowrun.spec.suggestions import suggest
from flowrun.telemetry import continued

_QUIET_SECONDS: Final = 10.0
"""After so long without text a stream begins anyway, and so often it says that it is alive: proxies end silent ones."""

_END_SECONDS: Final = 10.0
"""The least time that a client has to read the end of its answer, however late that comes."""

_ALIVE: Final = b": still running\n\n"
_DONE: Final = b"data: [DONE]\n\n"


class Completions:
    """Answers the requests of the chat API by runs of flows.

    Args:
        flows: by the names of their models.
        timeout: the seconds that a request may take.
    """

    def __init__(self, flows: Mapping[str, ServedFlow], runs: ServedRuns, *, timeout: float) -> None:
        self._flows = flows
        self._runs = runs
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        deadline = asyncio.get_running_loop().time() + self._timeout
        try:
            asked, served, inputs = await self._read(request)
        except ApiError as exc:
            await exc.response()(scope, receive, send)
            return
        completion = Completion(
            served=served, run_id=new_run_id(), created=int(time.time()), address=asked_address(request)
        )
        with continued(dict(request.headers)):
            answer = _Answer(self._runs, completion, asked, inputs, timeout=self._timeout, deadline=deadline)
            await answer.send(scope, receive, send)

    async def _read(self, request: Request) -> tuple[ChatRequest, ServedFlow, dict[str, Any]]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # a page of another site can send every other type without being asked first
            raise ApiError(f"the Content-Type must be application/json, and is {kind or 'missing'}", status=415)
        asked = parse_request(await request.body())
        served = find_flow(self._flows, asked.model)
        return asked, served, served.inputs_of(asked)


def find_flow(flows: Mapping[str, ServedFlow], name: str) -> ServedFlow:
    """Return the flow with a name.

    Raises:
        ApiError: there is none.
    """
    if name not in flows:
        what = f"there is no model {name!r}; {suggest(name, flows, 'models')}"
        raise ApiError(what, status=404, code="model_not_found", param="model")
    return flows[name]


class _Answer:
    """The answer to one request, while its run is in progress."""

    def __init__(
        self,
        runs: ServedRuns,
        completion: Completion,
        asked: ChatRequest,
        inputs: dict[str, Any],
        *,
        timeout: float,
        deadline: float,
    ) -> None:
        self._completion = completion
        self._asked = asked
        self._timeout = timeout
        self._deadline = deadline
        self._texts: asyncio.Queue[str | None] = asyncio.Queue()
        self._text = AnswerText(completion.run_id, completion.served.answering)
        listen = self._listen if asked.stream else None
        self._run = asyncio.create_task(
            runs.run(completion.served.flow, inputs, run_id=completion.run_id, listen=listen)
        )
        self._run.add_done_callback(lambda _: self._texts.put_nowait(None))

    def _listen(self, event: RunEvent) -> None:
        if text := self._text.of(event):
            self._texts.put_nowait(text)

    async def send(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer when it is there. If the client goes away, the run is cancelled or left to itself."""
        gone = asyncio.create_task(_until_gone(receive))
        sending = asyncio.create_task(self._send(scope, receive, send))
        tasks = {gone, sending, self._run}
        try:
            await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            if not self._run.cancelled():
                self._run.exception()  # it was sent
        if not sending.cancelled():
            sending.result()

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, or the error: as a response of its own, or where the stream has begun, within it."""
        body: _Stream | None = _Stream(send, self._headers()) if self._asked.stream else None
        try:
            async with asyncio.timeout_at(self._deadline):
                if body is not None:
                    await self._send_pieces(body)
                result = _ended(await asyncio.shield(self._run))
        except TimeoutError:
            error = self._too_late()
        except FlowrunError as exc:
            error = as_api_error(exc)
        else:
            end = self._end(body, result) if body is not None else self._whole(result)(scope, receive, send)
            await self._send_end(end, scope, receive)
            return
        error = error.mapped(self._completion.served.masked)
        if body is not None and body.has_begun:
            await self._send_end(body.fail(error), scope, receive)
        else:
            await self._send_end(error.response(self._headers())(scope, receive, send), scope, receive)

    async def _send_end(self, end: Awaitable[None], scope: Scope, receive: Receive) -> None:
        """Send the end of the answer. A client that does not read it in time loses its connection."""
        try:
            async with asyncio.timeout_at(max(self._deadline, asyncio.get_running_loop().time() + _END_SECONDS)):
                await end
        except TimeoutError:
            if (abort := scope.get("state", {}).get(ABORT)) is not None:
                abort()
                await _until_gone(receive)

    def _whole(self, result: RunResult) -> Response:
        return json_response(self._completion.whole(result), headers=self._headers())

    async def _send_pieces(self, body: "_Stream") -> None:
        """Send what is written, until the run is over."""
        while (text := await self._next_text()) is not None:
            if not body.has_begun:
                await body.send(self._completion.chunk({"role": "assistant", "content": ""}))
            await (body.send(self._completion.chunk({"content": text})) if text else body.keep_alive())

    async def _next_text(self) -> str | None:
        """Return all that was written since the last time; an empty text after a while without any; at the end None."""
        try:
            async with asyncio.timeout(_QUIET_SECONDS):
                text = await self._texts.get()
        except TimeoutError:
            return ""
        while text is not None and not self._texts.empty():
            more = self._texts.get_nowait()
            if more is None:
                self._texts.put_nowait(None)  # it is read the next time
                return text
            text += more
        return text

    async def _end(self, body: "_Stream", result: RunResult) -> None:
        if not body.has_begun:
            await body.send(self._completion.chunk({"role": "assistant", "content": ""}))
        if rest := self._text.rest(self._completion.text_of(result)):
            await body.send(self._completion.chunk({"content": rest}))
        await body.send(self._completion.chunk({}, result=result))
        if self._asked.include_usage:
            await body.send(self._completion.usage_chunk(result))
        await body.end()

    def _headers(self) -> dict[str, str]:
        return {"x-request-id": self._completion.run_id}

    def _too_late(self) -> ApiError:
        what = f"the run {self._completion.run_id} took longer than --timeout, {self._timeout:g} s"
        return ApiError(what, status=504, kind="server_error", code="request_timeout", run=self._completion.run_id)


class _Stream:
    """The body of a streamed response: server-sent events (HTML Living Standard, section 9.2)."""

    def __init__(self, send: Send, headers: Mapping[str, str]) -> None:
        self._send = send
        self._headers = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
            **headers,
        }
        self.has_begun = False

    async def send(self, value: object) -> None:
        """Send a value as an event."""
        await self._write(b"data: " + msgspec.json.encode(value) + b"\n\n")

    async def keep_alive(self) -> None:
        """Send a comment."""
        await self._write(_ALIVE)

    async def fail(self, error: ApiError) -> None:
        """Send an error, and end the response."""
        await self.send(error.body())
        await self.end()

    async def end(self) -> None:
        """Send the event that ends a stream of the chat API, and end the response."""
        await self._write(_DONE, more=False)

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        if not self.has_begun:
            headers = [(name.encode(), value.encode()) for name, value in self._headers.items()]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            self.has_begun = True
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


def _ended(result: RunResult) -> RunResult:
    """Return the result of a run that succeeded or waits.

    Raises:
        ApiError: it failed.
    """
    if result.error is not None:
        raise error_of_run(result.run_id, result.error)
    return result


async def _until_gone(receive: Receive) -> None:
    """Return when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
