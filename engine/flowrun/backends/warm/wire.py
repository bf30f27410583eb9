"""What a warm engine and its clients say to each other: MessagePack, each frame after its length in 4 bytes. Pure.

Requests and replies are those of the port, with the tokens of the messages: what the engine reads is token by token
what it would read in the client's own process.
"""

import asyncio
from typing import Final, TypeVar

import msgspec

from flowrun.core.events import AskModel
from flowrun.core.messages import Log, Message, Reply
from flowrun.errors import BackendError

M = TypeVar("M")

MAX_FRAME: Final = 256 * 2**20
"""The most bytes of a frame."""

_LENGTH: Final = 4


class WireRequest(AskModel, frozen=True, kw_only=True, tag="request"):
    """A request whose threads are plain sequences."""

    messages: tuple[Message, ...]  # type: ignore[assignment]
    previous: tuple[Message, ...] | None = None  # type: ignore[assignment]


class Ask(msgspec.Struct, frozen=True, kw_only=True, tag="ask"):
    """A client asks for a reply.

    Attributes:
        id: names the request among those of the client.
        adapter: the LoRA adapter that it uses.
        watched: the client wants the text while it is written.
    """

    id: int
    request: WireRequest
    adapter: str | None = None
    keeps_tokens: bool = False
    watched: bool = False


class Measure(msgspec.Struct, frozen=True, kw_only=True, tag="measure"):
    """A client asks how long the prompt of a request is."""

    id: int
    request: WireRequest


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag="cancel"):
    """A client does not wait for a reply any more."""

    id: int


class Attach(msgspec.Struct, frozen=True, kw_only=True, tag="attach"):
    """A client is going to ask: the engine stays warm as long as it is connected, also while it asks nothing."""


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """The user ends the engine.

    Attributes:
        force: also if others are connected to ask; else the answer is how it is, and it goes on.
    """

    force: bool = False


class Look(msgspec.Struct, frozen=True, kw_only=True, tag="look"):
    """Somebody wants to know how the engine is."""


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The engine says to a new client what it is.

    Attributes:
        undecided: why decide states cannot be answered; empty: they can.
        tokenless: why tokens cannot be kept; empty: they can.
    """

    concurrency: int | None
    undecided: str = ""
    tokenless: str = ""


class Health(msgspec.Struct, frozen=True, kw_only=True, tag="health"):
    """How the engine is.

    Attributes:
        clients: the processes that are connected to ask something.
        live: the requests under way.
        served: the replies so far.
        idle: the seconds since any of them was connected.
    """

    clients: int
    live: int
    served: int
    idle: float


class Piece(msgspec.Struct, frozen=True, kw_only=True, tag="piece"):
    """A piece of a reply that is being written; see ``ports.OnText``."""

    id: int
    text: str | None


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag="answer"):
    """A reply."""

    id: int
    reply: Reply


class Size(msgspec.Struct, frozen=True, kw_only=True, tag="size"):
    """The tokens of a prompt, and of the context window; see ``wrapper.PromptSize``."""

    id: int
    length: int
    window: int


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag="refusal"):
    """A request failed, with the name of a failure and its message."""

    id: int
    name: str
    message: str


FromClient = Attach | Ask | Measure | Cancel | Stop | Look
FromEngine = Ready | Health | Piece | Answer | Size | Refusal

_ENCODE: Final = msgspec.msgpack.Encoder().encode
_FROM_CLIENT: Final = msgspec.msgpack.Decoder(FromClient)
_FROM_ENGINE: Final = msgspec.msgpack.Decoder(FromEngine)


def as_wire(request: AskModel) -> WireRequest:
    """Return a request as it is sent."""
    fields = msgspec.structs.asdict(request)
    fields["messages"] = tuple(request.messages)
    fields["previous"] = None if request.previous is None else tuple(request.previous)
    return WireRequest(**fields)


def from_wire(request: WireRequest) -> AskModel:
    """Return a request that was received."""
    fields = msgspec.structs.asdict(request)
    fields["messages"] = Log(request.messages)
    fields["previous"] = None if request.previous is None else Log(request.previous)
    return AskModel(**fields)


def encode(message: FromClient | FromEngine) -> bytes:
    """Return a message as a frame.

    Raises:
        BackendError: it has no form in MessagePack, or is longer than a frame may be.
    """
    try:
        body = _ENCODE(message)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:  # such as a number of 65 bits
        raise BackendError(f"it has no form in MessagePack: {exc}") from exc
    if len(body) > MAX_FRAME:
        raise BackendError(f"it has {len(body):,} bytes, and {MAX_FRAME:,} are the most at once")
    return len(body).to_bytes(_LENGTH, "big") + body


async def read_from_client(reader: asyncio.StreamReader) -> FromClient | None:
    """Return the next message of a client; None if it has gone.

    Raises:
        BackendError: it is no message.
    """
    body = await _read(reader)
    return None if body is None else _decoded(_FROM_CLIENT, body)


async def read_from_engine(reader: asyncio.StreamReader) -> FromEngine | None:
    """Return the next message of an engine; None if it has gone.

    Raises:
        BackendError: it is no message.
    """
    body = await _read(reader)
    return None if body is None else _decoded(_FROM_ENGINE, body)


async def _read(reader: asyncio.StreamReader) -> bytes | None:
    try:
        length = int.from_bytes(await reader.readexactly(_LENGTH), "big")
        if length > MAX_FRAME:
            raise BackendError(f"a frame of {length} bytes, and {MAX_FRAME} are the most")
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def _decoded(decoder: "msgspec.msgpack.Decoder[M]", body: bytes) -> M:
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as exc:
        raise BackendError(f"no message of a warm engine: {exc}") from exc
