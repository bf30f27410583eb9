"""The process that holds a warm engine: it answers any number of clients, one of which that dies harms no other.

It ends when nobody was connected for a while, when it is told to, or when its engine dies.
"""

import asyncio
import os
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from typing import Final, Protocol

from flowrun.backends.warm.locks import EngineLock
from flowrun.backends.warm.records import EngineRecord, HeldModel, delete_files, take_lock, vllm_version, write_record
from flowrun.backends.warm.wire import (
    Answer,
    Ask,
    Attach,
    Cancel,
    FromEngine,
    Health,
    Look,
    Measure,
    Piece,
    Ready,
    Refusal,
    Size,
    Stop,
    encode,
    from_wire,
    read_from_client,
)
from flowrun.backends.wrapper import ServesAdapters
from flowrun.core.ports import OnText
from flowrun.errors import BackendError, FlowrunError, ModelError
from flowrun.process_starts import started_at
from flowrun.version import __version__

MAX_UNREAD: Final = 64 * 2**20
"""The bytes that may wait for a client when another message is sent to it: one that does not read is disconnected."""

_LOOK_SECONDS: Final = 1.0
"""How often the engine is looked at."""


class HeldBackend(ServesAdapters, Protocol):
    """The backend of a warm engine: ``VllmBackend``, or a fake."""

    @property
    def failure(self) -> str | None:
        """Why the engine died; None while it lives."""


class Host:
    """Answers clients by one backend."""

    def __init__(
        self,
        backend: HeldBackend,
        model: HeldModel,
        *,
        idle: float,
        lock: EngineLock | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Bind a backend that has started.

        Args:
            idle: the seconds without a client after which ``run`` returns.
            lock: that of the engine; None: ``run`` takes it, and releases it.
        """
        self._backend = backend
        self._model = model
        self._idle = idle
        self._lock = lock
        self._now = now
        self._connections: set[asyncio.Task[None]] = set()
        self._clients: set[_Client] = set()
        self._live = 0
        self._served = 0
        self._last = now()
        self._stop = asyncio.Event()
        self._ready = Ready(
            concurrency=backend.concurrency,
            undecided=_fault(backend.check_decisions),
            tokenless=_fault(backend.check_tokens),
        )

    async def run(self, ready: Callable[[], None]) -> None:
        """Answer clients until the engine is to end.

        Args:
            ready: called once clients can connect.

        Raises:
            BackendError: another process holds an engine of this model.
        """
        if self._lock is not None:
            await self._run(ready)
        elif (lock := take_lock(self._model.digest)) is None:
            raise BackendError(f"an engine of {self._model.name} is warm already")
        else:
            try:
                await self._run(ready)
            finally:
                lock.release()

    async def _run(self, ready: Callable[[], None]) -> None:
        record = EngineRecord(
            pid=os.getpid(),
            ticks=started_at(os.getpid()),
            digest=self._model.digest,
            model=self._model,
            started=self._now(),
            idle=self._idle,
            flowrun=__version__,
            vllm=vllm_version(),
        )
        path = record.socket
        path.unlink(missing_ok=True)  # that of an engine which was killed: this process has the lock
        before = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(self._serve, str(path))
        finally:
            os.umask(before)
        try:
            write_record(record)
            ready()
            await self._until_over()
        finally:
            server.close()
            delete_files(self._model.digest)
            for connection in tuple(self._connections):
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            await server.wait_closed()  # waits for the connections too, since Python 3.12

    def stop(self) -> None:
        """End the engine."""
        self._stop.set()

    async def _until_over(self) -> None:
        while not self._stop.is_set():
            if self._clients:
                self._last = self._now()
            if self._backend.failure is not None or self._now() - self._last > self._idle:
                return
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._stop.wait()
            except TimeoutError:
                continue

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not _is_own(writer):
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        client = _Client(self, writer)
        try:
            client.send(self._ready)
            while (message := await read_from_client(reader)) is not None:
                if isinstance(message, Attach | Ask | Measure):
                    self._clients.add(client)  # who only looks keeps no engine warm
                match message:
                    case Attach():
                        pass
                    case Ask() | Measure():
                        client.begin(message)
                    case Cancel():
                        client.cancel(message.id)
                    case Look():
                        client.send(self._health())
                    case Stop(force=False) if self._clients:
                        client.send(self._health())
                    case Stop():
                        self._stop.set()
                        await asyncio.Event().wait()  # the end of this process is the answer
        except BackendError as exc:
            print(f"a client was disconnected: {exc}", file=sys.stderr)  # noqa: T201 - the process has a log
        except asyncio.CancelledError:
            pass  # the engine ends; asyncio of Python 3.11 would write a traceback
        finally:
            self._connections.discard(task)
            if client in self._clients:
                self._clients.remove(client)
                self._last = self._now()
            await client.close()

    def _health(self) -> Health:
        idle = 0.0 if self._clients else self._now() - self._last
        return Health(clients=len(self._clients), live=self._live, served=self._served, idle=idle)

    async def answer(self, asked: Ask | Measure, on_text: OnText) -> FromEngine:
        """Return what came of a request.

        Args:
            on_text: receives the text while it is written, if the client wants it.
        """
        self._live += 1
        try:
            request = from_wire(asked.request)
            if isinstance(asked, Measure):
                length, window = await self._backend.measure_prompt(request)
                return Size(id=asked.id, length=length, window=window)
            reply = await self._backend.reply(
                request,
                keeps_tokens=asked.keeps_tokens,
                on_text=on_text if asked.watched else None,
                adapter=asked.adapter,
            )
        except ModelError as exc:
            return Refusal(id=asked.id, name=exc.name, message=exc.message)
        except FlowrunError as exc:
            return Refusal(id=asked.id, name="backend.unavailable", message=str(exc))
        except Exception as exc:  # whoever asked must have an answer
            traceback.print_exception(exc)  # the process has a log
            why = f"a bug of flowrun in the process of the warm engine: {type(exc).__name__}: {exc}"
            return Refusal(id=asked.id, name="backend.unavailable", message=why)
        finally:
            self._live -= 1
            self._served += isinstance(asked, Ask)
        return Answer(id=asked.id, reply=reply)


class _Client:
    """A process that is connected, with its requests."""

    def __init__(self, host: Host, writer: asyncio.StreamWriter) -> None:
        self._host = host
        self._writer = writer
        self._requests: dict[int, asyncio.Task[None]] = {}

    def send(self, message: FromEngine) -> None:
        """Send a message; nothing happens if the client has gone.

        Raises:
            BackendError: it cannot be sent.
        """
        if self._writer.is_closing():
            return
        if self._writer.transport.get_write_buffer_size() > MAX_UNREAD:
            print("a client was disconnected: it does not read", file=sys.stderr)  # noqa: T201 - the process has a log
            self._writer.transport.abort()
            return
        self._writer.write(encode(message))

    def begin(self, asked: Ask | Measure) -> None:
        """Begin to answer a request."""
        task = self._requests[asked.id] = asyncio.create_task(self._answer(asked))
        task.add_done_callback(lambda _: self._requests.pop(asked.id, None))

    def cancel(self, id: int) -> None:
        """Free what a request holds of the engine."""
        if (task := self._requests.get(id)) is not None:
            task.cancel()

    async def _answer(self, asked: Ask | Measure) -> None:
        def on_text(text: str | None) -> None:
            self.send(Piece(id=asked.id, text=text))

        answer = await self._host.answer(asked, on_text)
        try:
            self.send(answer)
        except BackendError as exc:
            why = f"the warm engine cannot send the reply: {exc}"
            self.send(Refusal(id=asked.id, name="model.request_refused", message=why))

    async def close(self) -> None:
        """Give up all requests."""
        tasks = tuple(self._requests.values())
        for task in tasks:
            task.cancel()
        self._writer.close()
        await asyncio.gather(*tasks, return_exceptions=True)


def _fault(check: Callable[[], None]) -> str:
    try:
        check()
    except BackendError as exc:
        return str(exc)
    return ""


def _is_own(writer: asyncio.StreamWriter) -> bool:
    """Return whether the client is a process of this user (SO_PEERCRED, unix(7))."""
    peer: socket.socket = writer.get_extra_info("socket")
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return bool(uid == os.getuid())
