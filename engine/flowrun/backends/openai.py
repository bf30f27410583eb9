"""A model behind an OpenAI-compatible server: vLLM's own, or any other. ``server_errors`` reads its errors.

The openai package is imported when a backend starts, never before. A spec's settings for vLLM in this process alone
(``engine``, the parsers, ``chat_template``) are those of the server itself, and are not sent.
"""

import base64
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

import msgspec

from flowrun.backends.chat_api import BrokenReply, Completion, parse_completion, reply_of, request_body, server_messages
from flowrun.backends.chat_stream import MEDIA_TYPE, STREAM, CompletionPieces, EventLines
from flowrun.backends.pressure import MAX_RETRIES, STALL_SECONDS, Pressure
from flowrun.backends.server_errors import BASE_URL_REMEDY, TOO_LONG, chain_of, meaning_of, refusal_of
from flowrun.backends.server_letters import decision_body, parse_decision
from flowrun.backends.text_pieces import TextPieces
from flowrun.backends.token_ids import pack_tokens
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply, Tokens
from flowrun.core.ports import OnText
from flowrun.core.trace_context import trace_headers
from flowrun.errors import BackendError, Bug, ModelError
from flowrun.excerpts import beginning
from flowrun.spec.model import Model
from flowrun.spec.suggestions import did_you_mean

if TYPE_CHECKING:
    import openai
    from openai._types import RequestOptions


CONNECT_SECONDS: Final = 60.0
"""Seconds that a connection may take: thousands that are opened at once wait for each other."""

CHECK_SECONDS: Final = 30.0
"""Seconds that the server may take to list its models."""

MAX_CONNECTIONS: Final = 1_000_000
"""No limit: each live run holds one connection, and the server decides how many requests run at once."""

NO_KEY: Final = "EMPTY"
"""Sent if there is no ``api_key``: the SDK requires one, and vLLM's documentation uses this value."""

FIRST_MODEL: Final = "default"
"""The ``name`` that stands for the first model that the server lists."""

MAX_EXCERPT: Final = 300
"""Characters of a server's answer that an error shows."""

MAX_LISTED: Final = 20
"""Models of a server that an error names."""


class OpenAIBackend:
    """The port ``ModelBackend`` over a server's chat completions.

    Args:
        model: with ``base_url``; its values are used as they are, and nothing is read from the environment.
        mask: removes secrets from a text; those of ``model`` itself are always removed.
        stall, max_retries: see ``Pressure``.
    """

    def __init__(
        self,
        model: Model,
        *,
        mask: Callable[[str], str] = str,
        stall: float = STALL_SECONDS,
        max_retries: int = MAX_RETRIES,
    ) -> None:
        self._model = model
        self._stall = stall
        self._max_retries = max_retries
        self._pressure = self._new_pressure()
        self._url = _parse_url(model.base_url or "")
        self._mask = mask
        self._secrets = sorted(_secrets(model, self._url), key=len, reverse=True)
        self._name = model.name
        self._client: openai.AsyncOpenAI | None = None
        self._streams = True  # until the server is seen to refuse it

    @property
    def concurrency(self) -> int | None:
        """Return what the server was seen to take at once; None until it refuses a request as too many."""
        return self._pressure.places

    async def start(self) -> None:
        """Check that the server answers and that it has the model.

        Raises:
            BackendError: the server does not answer, lacks the model, or the settings cannot be used.
        """
        if self._client is not None:
            return
        self._check_settings()
        self._pressure = self._new_pressure()  # its timers are those of an event loop
        self._client = self._connect()
        try:
            self._name = self._pick(await self._list_models(self._client))
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close all connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def reply(self, request: AskModel, *, keeps_tokens: bool = False, on_text: OnText | None = None) -> Reply:
        """Return the model's reply; see ``ports.ModelBackend``.

        Args:
            keeps_tokens: ask for the tokens of the prompt and the reply, with log-probabilities, as vLLM's server gives
                them.
        """
        client = self._client
        if client is None:
            raise Bug("the backend was asked for a reply before it was started")
        model = self._model if self._name == self._model.name else msgspec.structs.replace(self._model, name=self._name)
        body = body_of(model, request, keeps_tokens=keeps_tokens)
        pieces = None if on_text is None or request.labels else TextPieces(on_text)
        try:
            completion = await (self._ask(client, body) if pieces is None else self._watch(client, body, pieces))
        except ModelError:
            raise
        except Exception as exc:
            raise self._model_error(exc) from self._showable(exc)
        if request.labels:
            return parse_decision(completion, request.labels)
        reply = reply_of(completion)
        if keeps_tokens:
            reply = msgspec.structs.replace(reply, tokens=self._tokens(completion, request))
        return reply if pieces is None else pieces.finish(reply)

    async def _ask(self, client: "openai.AsyncOpenAI", body: Mapping[str, Any]) -> Completion:
        # not chat.completions.create: it walks every message for type unions, 10 ms for a thread of 30
        answer = await self._pressure.send(
            lambda: client.post("/chat/completions", cast_to=bytes, body=body, options=_options()),
            seconds=self._model.timeout,
        )
        try:
            return parse_completion(answer)
        except BrokenReply as exc:
            raise self._no_completion(f"{exc}; it begins: {self._excerpt(answer)}") from self._showable(exc)

    async def _watch(self, client: "openai.AsyncOpenAI", body: Mapping[str, Any], pieces: TextPieces) -> Completion:
        """Ask for an answer in pieces; without them if the server refuses that, but not the same request."""
        if self._streams:
            try:
                return await self._pressure.send(
                    lambda: self._receive(client, {**body, **STREAM}, pieces), seconds=self._model.timeout
                )
            except Exception as exc:
                if isinstance(exc, ModelError) or meaning_of(exc).name != "model.request_refused":
                    raise
        completion = await self._ask(client, body)
        self._streams = False
        return completion

    async def _receive(self, client: "openai.AsyncOpenAI", body: Mapping[str, Any], pieces: TextPieces) -> Completion:
        """Make one attempt to get an answer in pieces."""
        import openai

        pieces.restart()
        stream = await client.post(
            "/chat/completions",
            cast_to=object,
            body=body,
            options=_options(),
            stream=True,
            stream_cls=openai.AsyncStream[object],
        )
        response, data = stream.response, ""
        try:
            if MEDIA_TYPE not in response.headers.get("content-type", ""):
                answer = b"".join([part async for part in _received(response)])
                data = answer.decode(errors="replace")
                return parse_completion(answer)
            received = CompletionPieces()
            async for data in _events(response):
                pieces.write(received.add(data))
                if received.done:
                    break
            return received.completion()
        except BrokenReply as exc:
            raise self._no_completion(f"{exc}; it has: {self._excerpt(data)}") from self._showable(exc)
        finally:
            await stream.close()

    def check_tokens(self) -> None:
        """Do nothing: only its replies show whether a server gives tokens. See ``wrapper.KeepsTokens``."""

    def _tokens(self, completion: Completion, request: AskModel) -> Tokens:
        """Return the tokens of a reply.

        Raises:
            ModelError: the server gave none.
        """
        found = completion.choices[0].tokens_of(completion.prompt_token_ids)
        if found is None:
            raise ModelError(
                "model.request_refused",
                f"{self._server()} gives no token ids: --tokens needs vLLM in this process, or a server of vLLM",
            )
        return pack_tokens(
            found.ids,
            after=found.prompt,
            vocabulary=zlib.crc32(f"{self._shown_url()} {self._name}".encode()),
            thread=request.last_thread,
            logprobs=found.logprobs,
        )

    def _new_pressure(self) -> Pressure:
        per_minute = self._model.max_requests_per_minute
        return Pressure(refusal_of, stall=self._stall, per_minute=per_minute, max_retries=self._max_retries)

    # --- starting -----------------------------------------------------------------------------------------------------

    def _check_settings(self) -> None:
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            address = (self._model.base_url or "").rpartition("@")[2].partition("?")[0]
            shown = self._redact(repr(address)) if address else "missing"
            raise BackendError(f"model.base_url is {shown}; it must be like http://localhost:8000/v1")
        texts = {"api_key": self._model.api_key or "", **{f"headers.{k}": v for k, v in self._model.headers.items()}}
        for name, text in texts.items():
            if not (text.isascii() and text.isprintable()):
                raise BackendError(f"model.{name} holds a line break or a character that HTTP does not allow there")

    def _connect(self) -> "openai.AsyncOpenAI":
        import openai

        limits = type(openai.DEFAULT_CONNECTION_LIMITS)(
            max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS
        )
        try:  # its cost does not grow with the number of connections; openai[aiohttp] and vLLM install it
            http_client = openai.DefaultAioHttpClient(limits=limits)
        except (AttributeError, RuntimeError):
            http_client = openai.DefaultAsyncHttpxClient(limits=limits)
        client = openai.AsyncOpenAI(
            base_url=self._shown_url(),
            api_key=self._model.api_key or NO_KEY,
            default_headers=self._headers(),
            default_query=dict(parse_qsl(self._url.query)),
            timeout=openai.Timeout(self._model.timeout, connect=CONNECT_SECONDS),
            max_retries=0,  # ``Pressure`` retries
            http_client=http_client,
        )
        client.organization = client.project = client.admin_api_key = None  # the SDK reads them from the environment
        return client

    def _headers(self) -> dict[str, str]:
        """Return the headers of the spec, always with ``Authorization``, so that the SDK looks for no other."""
        headers = {"Authorization": _basic_auth(self._url) or f"Bearer {self._model.api_key or NO_KEY}"}
        for name, value in self._model.headers.items():
            headers["Authorization" if name.lower() == "authorization" else name] = value
        return headers

    async def _list_models(self, client: "openai.AsyncOpenAI") -> list[str]:
        try:
            answer = await self._pressure.send(
                lambda: client.get("/models", cast_to=bytes, options={"timeout": CHECK_SECONDS})
            )
        except Exception as exc:
            raise BackendError(self._model_error(exc).message) from self._showable(exc)
        try:
            return [model.id for model in _MODELS.decode(answer).data]
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            message = f"{self._server()} lists no models at /models: {exc}; its answer begins: {self._excerpt(answer)}"
            raise BackendError(self._redact(f"{message}; {BASE_URL_REMEDY}")) from self._showable(exc)

    def _pick(self, served: list[str]) -> str:
        """Return the model's name among those that the server lists.

        Raises:
            BackendError: the server does not list it.
        """
        name = self._model.name
        if name in served:
            return name
        if name == FIRST_MODEL and served:
            return served[0]
        listed = ", ".join(sorted(served)[:MAX_LISTED]) + (", ..." if len(served) > MAX_LISTED else "")
        message = f"the server {self._shown_url()} has no model {name!r}; it has: {listed or 'none at all'}"
        raise BackendError(self._redact(f"{message}; {did_you_mean(name, served)}".removesuffix("; ")))

    def _no_completion(self, why: str) -> ModelError:
        message = f"{self._server()} gave an answer that is no chat completion: {why}"
        return ModelError("backend.unavailable", self._redact(message))

    # --- errors -------------------------------------------------------------------------------------------------------

    def _model_error(self, exc: Exception) -> ModelError:
        name, what, remedy = meaning_of(exc)
        detail = self._detail(exc)
        if name == "model.request_refused" and TOO_LONG.search(f"{detail} {getattr(exc, 'code', None)}"):
            name, what, remedy = "model.context_overflow", "says that the prompt does not fit", ""
        message = f"{self._server()} {what}: {detail}"
        return ModelError(name, self._redact(f"{message}; {remedy}" if remedy else message))

    def _detail(self, exc: Exception) -> str:
        """Return the server's own message, or else that of the root cause."""
        body, status = getattr(exc, "body", None), getattr(exc, "status_code", None)
        if isinstance(body, dict):
            body = next((body[key] for key in ("message", "detail", "error") if body.get(key)), body)
        *_, root = chain_of(exc)
        text = self._excerpt(str(body)) if body else self._excerpt(str(root)) or type(root).__name__
        return text if status is None else f"{text} (HTTP {status})"

    def _excerpt(self, text: str | bytes) -> str:
        """Return the beginning of a text. Secrets are removed first: a secret that is cut would not be recognised."""
        shown = self._redact(text if isinstance(text, str) else text.decode(errors="replace"))
        return beginning(" ".join(shown.split()), MAX_EXCERPT)

    def _server(self) -> str:
        return f"the server {self._shown_url()} (model {self._name!r})"

    def _shown_url(self) -> str:
        """Return ``base_url`` without its credentials and query, which may be secret."""
        host = self._url.netloc.rpartition("@")[2]
        return urlunsplit((self._url.scheme, host, self._url.path, "", ""))

    def _redact(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return self._mask(text)

    def _showable(self, exc: Exception) -> Exception | None:
        """Return the error as a cause for the traceback, or None if it or a cause of it holds a secret."""
        return exc if all(self._redact(str(link)) == str(link) for link in chain_of(exc)) else None


def body_of(model: Model, request: AskModel, *, keeps_tokens: bool) -> dict[str, Any]:
    """Return the JSON body by which a server's model is asked.

    Args:
        keeps_tokens: ask for the tokens of the prompt and the reply, with log-probabilities.

    Raises:
        ModelError: ``model.request_refused``: the sampling sets a parameter that no state may set.
    """
    messages = server_messages(request.messages)
    body = request_body(request, messages, model=model.name, template_kwargs=model.chat_template_kwargs)
    if request.labels:
        return decision_body(body)
    return body | {"return_token_ids": True, "logprobs": True} if keeps_tokens else body


class _ServedModel(msgspec.Struct):
    id: str


class _ServedModels(msgspec.Struct):
    data: list[_ServedModel]


_MODELS: Final = msgspec.json.Decoder(_ServedModels)


async def _events(response: Any) -> AsyncIterator[str]:
    """Yield the data of the events of an answer."""
    events = EventLines()
    async for part in _received(response):
        for data in events.feed(part):
            yield data
    for data in events.end():
        yield data


async def _received(response: Any) -> AsyncIterator[bytes]:
    """Yield the bytes of an answer. Once it has begun, the SDK leaves the errors of its HTTP client as they are."""
    import openai

    try:
        async for part in response.aiter_bytes():
            yield part
    except Exception as exc:
        raise openai.APIConnectionError(request=response.request) from exc


def _parse_url(url: str) -> SplitResult:
    """Parse a URL; an invalid one becomes an empty URL."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises if the port is no number
    except ValueError:
        return urlsplit("")
    return parts


def _basic_auth(url: SplitResult) -> str:
    """Return the ``Authorization`` header (RFC 7617) for the credentials in a URL, or an empty text."""
    if not url.username:
        return ""
    pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _secrets(model: Model, url: SplitResult) -> set[str]:
    """Return the values that no message may show, except those below four characters, which hide nothing."""
    credentials = [url.username or "", url.password or ""]
    queries = [value for _, value in parse_qsl(url.query)]
    found = [
        model.api_key or "",
        _basic_auth(url),
        *model.headers.values(),
        *(token for value in model.headers.values() for token in value.split()[1:]),  # what stands behind a scheme
        *credentials,
        *map(unquote, credentials),
        *queries,
    ]
    return {secret for secret in found if len(secret) >= 4}


def _options() -> "RequestOptions":
    """Return the options of a request: the headers of the span that it is part of, if somebody traces."""
    headers = trace_headers()
    return {"headers": headers} if headers else {}
