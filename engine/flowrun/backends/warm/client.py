"""The port ``ModelBackend`` over a warm engine: requests go to its process, and nothing of vLLM is loaded here."""

import asyncio
import contextlib
import itertools
import os
import signal
from typing import Any, Final

from flowrun.backends.warm.records import EngineRecord, delete_dead
from flowrun.backends.warm.wire import (
    Answer,
    Ask,
    Attach,
    Cancel,
    FromClient,
    FromEngine,
    Health,
    Look,
    Measure,
    Piece,
    Ready,
    Refusal,
    Size,
    Stop,
    as_wire,
    encode,
    read_from_engine,
)
from flowrun.backends.wrapper import AdaptedBackend, PromptSize, in_time
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply
from flowrun.core.ports import ModelBackend, OnText
from flowrun.errors import BackendError, ModelError

_ANSWER_SECONDS: Final = 5.0
"""The time in which an engine answers what costs it nothing; one that does not hangs."""
_LOOK_SECONDS: Final = 0.05
"""The time between two looks whether a process has ended."""
_END_SECONDS: Final = 20.0
"""The time in which a process ends that was told to, and then once more after each signal."""

_GONE: Final = "the warm engine has ended"
_CLOSED: Final = "the connection to the warm engine was closed"


class _Waiting:
    """A request without a reply."""

    __slots__ = ("on_text", "reply")

    def __init__(self, reply: "asyncio.Future[Any]", on_text: OnText | None = None) -> None:
        self.reply = reply
        self.on_text = on_text


class WarmBackend:
    """A model whose engine another process holds."""

    def __init__(self, record: EngineRecord, *, timeout: float | None) -> None:
        """Bind the engine; ``start`` connects to it.

        Args:
            timeout: ``model.timeout``.
        """
        self._record = record
        self._timeout = timeout
        self._ids = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._ready: Ready | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._failure: str | None = None

    @property
    def failure(self) -> str | None:
        """Return why the engine cannot be asked any more. See ``wrapper.Ends``."""
        return self._failure

    @property
    def concurrency(self) -> int | None:
        """Return the number of sequences in one step of the engine."""
        return None if self._ready is None else self._ready.concurrency

    async def start(self) -> None:
        """Connect to the engine.

        Raises:
            BackendError: it is not there, or hangs.
        """
        if self._writer is not None:
            return
        self._ready, reader, self._writer = await _connect(self._record)
        self._failure = None
        self._writer.write(encode(Attach()))
        self._reading = asyncio.create_task(self._read(reader))

    async def reply(
        self,
        request: AskModel,
        *,
        keeps_tokens: bool = False,
        on_text: OnText | None = None,
        adapter: str | None = None,
    ) -> Reply:
        """Return the engine's reply. See ``ports.ModelBackend.reply``."""
        return await in_time(self._ask(request, keeps_tokens, on_text, adapter), self._timeout)

    async def _ask(self, request: AskModel, keeps_tokens: bool, on_text: OnText | None, adapter: str | None) -> Reply:
        asked = Ask(
            id=next(self._ids),
            request=as_wire(request),
            adapter=adapter,
            keeps_tokens=keeps_tokens,
            watched=on_text is not None,
        )
        reply: Reply = await self._answer_to(asked, on_text)
        return reply

    async def measure_prompt(self, request: AskModel) -> PromptSize:
        """Return how long the prompt of a request is. See ``wrapper.MeasuresPrompts``."""
        size: Size = await self._answer_to(Measure(id=next(self._ids), request=as_wire(request)))
        return PromptSize(size.length, size.window)

    async def _answer_to(self, asked: Ask | Measure, on_text: OnText | None = None) -> Any:
        waiting = _Waiting(asyncio.get_running_loop().create_future(), on_text)
        self._send(asked)
        self._waiting[asked.id] = waiting
        try:
            return await waiting.reply
        except asyncio.CancelledError:
            self._give_up(asked.id)
            raise
        finally:
            self._waiting.pop(asked.id, None)

    def _give_up(self, id: int) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._send(Cancel(id=id))

    def with_adapter(self, name: str) -> ModelBackend:
        """Return this backend for requests that use an adapter. See ``wrapper.TakesAdapters``."""
        return AdaptedBackend(self, name)

    def check_decisions(self) -> None:
        """Check that decide states can be answered. See ``wrapper.Decides``."""
        if self._ready is not None and self._ready.undecided:
            raise BackendError(self._ready.undecided)

    def check_tokens(self) -> None:
        """Check that the tokens of replies can be kept. See ``wrapper.KeepsTokens``."""
        if self._ready is not None and self._ready.tokenless:
            raise BackendError(self._ready.tokenless)

    async def stop(self) -> None:
        """Close the connection. The engine stays."""
        reading, writer = self._reading, self._writer
        self._reading = self._writer = None
        if reading is not None and writer is not None:
            reading.cancel()
            writer.close()
            await asyncio.wait({reading})
        self._fail(_CLOSED)

    def _send(self, message: FromClient) -> None:
        if self._writer is None or self._writer.is_closing():
            raise ModelError("backend.unavailable", _GONE)
        try:
            frame = encode(message)
        except BackendError as exc:
            raise ModelError("model.request_refused", f"the warm engine cannot be asked: {exc}") from exc
        self._writer.write(frame)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Pass on what the engine says, until it has gone."""
        why = _GONE
        try:
            while (message := await read_from_engine(reader)) is not None:
                self._receive(message)
        except BackendError as exc:
            why = str(exc)
        except asyncio.CancelledError:
            why = _CLOSED
            raise
        finally:
            self._failure = why
            if self._writer is not None:
                self._writer.close()
            self._fail(why)

    def _receive(self, message: FromEngine) -> None:
        if isinstance(message, Ready | Health) or (waiting := self._waiting.get(message.id)) is None:
            return
        match message:
            case Piece():
                self._show(message, waiting)
            case Answer():
                if not waiting.reply.done():
                    waiting.reply.set_result(message.reply)
            case Size():
                if not waiting.reply.done():
                    waiting.reply.set_result(message)
            case Refusal():
                if not waiting.reply.done():
                    waiting.reply.set_exception(ModelError(message.name, message.message))

    def _show(self, piece: Piece, waiting: _Waiting) -> None:
        """Give a piece of a reply to who watches it; what fails there fails this request only."""
        if waiting.on_text is None or waiting.reply.done():
            return
        try:
            waiting.on_text(piece.text)
        except Exception as exc:
            waiting.reply.set_exception(exc)
            self._give_up(piece.id)

    def _fail(self, why: str) -> None:
        for waiting in self._waiting.values():
            if not waiting.reply.done():
                waiting.reply.set_exception(ModelError("backend.unavailable", why))


async def look_at(record: EngineRecord) -> Health:
    """Return how an engine is.

    Raises:
        BackendError: it is not there, or hangs.
    """
    message = await _tell(record, Look())
    if not isinstance(message, Health):
        raise BackendError(_GONE)
    return message


async def end(record: EngineRecord, *, force: bool = False) -> None:
    """Tell an engine to end, and wait until its process has; one that hangs or cannot be reached gets signals.

    Args:
        force: also if others are connected to ask it.

    Raises:
        BackendError: others are connected, or its process does not end.
    """
    try:
        told = await _tell(record, Stop(force=force))
        signals: tuple[signal.Signals | None, ...] = (None, signal.SIGTERM, signal.SIGKILL)
    except BackendError:
        told, signals = None, (signal.SIGTERM, signal.SIGKILL)
    if isinstance(told, Health):
        raise BackendError(
            f"{record.model.name}: process {record.pid} is in use (clients: {told.clients}, requests under way: "
            f"{told.live}): wait for them, or end it by flowrun engine down --force"
        )
    for one in signals:
        if one is not None and record.lives:
            with contextlib.suppress(ProcessLookupError):
                os.kill(record.pid, one)
        if await _has_ended(record):
            delete_dead(record)
            return
    raise BackendError(f"process {record.pid}, the warm engine of {record.model.name}, does not end")


async def _has_ended(record: EngineRecord) -> bool:
    """Return whether the process of an engine ends in time."""
    for _ in range(round(_END_SECONDS / _LOOK_SECONDS)):
        if not record.lives:
            return True
        await asyncio.sleep(_LOOK_SECONDS)
    return not record.lives


async def _tell(record: EngineRecord, message: FromClient) -> FromEngine | None:
    """Send a message, and return the answer; None once the engine has gone."""
    _, reader, writer = await _connect(record)
    try:
        writer.write(encode(message))
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await read_from_engine(reader)
    except TimeoutError:
        raise BackendError(_hangs(record)) from None
    finally:
        writer.close()


async def _connect(record: EngineRecord) -> tuple[Ready, asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to an engine, and return what it says of itself.

    Raises:
        BackendError: it is not there, hangs, or says something else.
    """
    writer: asyncio.StreamWriter | None = None
    ready: FromEngine | None = None
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            reader, writer = await asyncio.open_unix_connection(str(record.socket))
            ready = await read_from_engine(reader)
    except TimeoutError:
        raise BackendError(_hangs(record)) from None
    except OSError as exc:
        name = record.model.name
        raise BackendError(f"the warm engine of {name} cannot be reached: {type(exc).__name__}: {exc}") from exc
    finally:
        if writer is not None and not isinstance(ready, Ready):
            writer.close()
    if not isinstance(ready, Ready):
        raise BackendError(_GONE)
    return ready, reader, writer


def _hangs(record: EngineRecord) -> str:
    return f"process {record.pid} does not answer within {_ANSWER_SECONDS:g} s; flowrun engine down ends it"
