"""A model behind an OpenAI-compatible server: vLLM's own, or any other. Every error of the SDK is mapped here.

The openai package is imported when a backend starts, never before. A spec's settings for vLLM in this process alone
(``engine``, the parsers, ``chat_template``) are those of the server itself, and are not sent.
"""

import base64
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

import msgspec

from flowrun.backends.chat_api import BrokenReply, Completion, parse_completion, reply_of, request_body, server_messages
from flowrun.backends.pressure import MAX_RETRIES, STALL_SECONDS, Pressure, Refusal, read_status
from flowrun.backends.server_letters import decision_body, parse_decision
from flowrun.backends.token_ids import pack_tokens
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply, Tokens
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

_BASE_URL_REMEDY: Final = "model.base_url mostly ends in /v1"

MAX_EXCERPT: Final = 300
"""Characters of a server's answer that an error shows."""

MAX_LISTED: Final = 20
"""Models of a server that an error names."""


class _Meaning(NamedTuple):
    """The meaning of an exception of the SDK: the failure's name, what the server did, and the remedy."""

    name: str
    what: str
    remedy: str = ""


MEANINGS: Final[Mapping[str, _Meaning]] = {
    "APITimeoutError": _Meaning("backend.unavailable", "did not answer in time", "raise model.timeout, or ask less"),
    "TimeoutError": _Meaning("backend.unavailable", "did not answer in time", "raise model.timeout, or ask less"),
    "APIConnectionError": _Meaning(
        "backend.unavailable", "could not be reached", "is it running, and is model.base_url right?"
    ),
    "APIResponseValidationError": _Meaning("backend.unavailable", "gave an answer that cannot be read"),
    "AuthenticationError": _Meaning("backend.unavailable", "refused the credentials", "set model.api_key"),
    "PermissionDeniedError": _Meaning(
        "backend.unavailable", "denied access", "see what model.api_key is allowed to do"
    ),
    "RateLimitError": _Meaning("backend.unavailable", "is asked too much", "run fewer at once, or wait"),
    "ConflictError": _Meaning("backend.unavailable", "is busy with something that excludes this"),
    "InternalServerError": _Meaning("backend.unavailable", "failed", "see the server's log"),
    "NotFoundError": _Meaning("model.request_refused", "does not know the model or the address", _BASE_URL_REMEDY),
    "BadRequestError": _Meaning("model.request_refused", "refused the request"),
    "UnprocessableEntityError": _Meaning("model.request_refused", "refused the request"),
    "APIStatusError": _Meaning("model.request_refused", "refused the request"),
    "UnicodeEncodeError": _Meaning("model.request_refused", "cannot be sent a text that is no Unicode"),
    "Exception": _Meaning("backend.unavailable", "could not be talked to"),
}
"""Meanings by the name of the exception's class, or of its nearest base."""

TOO_LONG: Final = re.compile(
    r"context.?(?:length|window|size)|maximum (?:model|context) length|max_model_len|max_total_tokens"
    r"|prompt is too long|too many (?:input )?tokens|input is too long",
    re.IGNORECASE,
)
"""Words by which servers (vLLM, SGLang, llama.cpp, TGI, OpenAI) report that a prompt does not fit."""


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

    async def reply(self, request: AskModel, *, keeps_tokens: bool = False) -> Reply:
        """Return the model's reply; see ``ports.ModelBackend``.

        Args:
            keeps_tokens: ask for the tokens of the prompt and the reply, with log-probabilities, as vLLM's server gives
                them.
        """
        client = self._client
        if client is None:
            raise Bug("the backend was asked for a reply before it was started")
        messages = server_messages(request.messages)
        body = request_body(request, messages, model=self._name, template_kwargs=self._model.chat_template_kwargs)
        if request.labels:
            body = decision_body(body)
        elif keeps_tokens:
            body |= {"return_token_ids": True, "logprobs": True}
        options: RequestOptions = {"headers": headers} if (headers := trace_headers()) else {}
        try:
            # not chat.completions.create: it walks every message for type unions, 10 ms for a thread of 30
            answer = await self._pressure.send(
                lambda: client.post("/chat/completions", cast_to=bytes, body=body, options=options),
                seconds=self._model.timeout,
            )
        except Exception as exc:
            raise self._model_error(exc) from self._showable(exc)
        try:
            completion = parse_completion(answer)
            if request.labels:
                return parse_decision(completion, request.labels)
            reply = reply_of(completion)
            if not keeps_tokens:
                return reply
            return msgspec.structs.replace(reply, tokens=self._tokens(completion, request))
        except BrokenReply as exc:
            message = (
                f"{self._server()} gave an answer that is no chat completion: {exc}; it begins: {self._excerpt(answer)}"
            )
            raise ModelError("backend.unavailable", self._redact(message)) from self._showable(exc)

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
        return Pressure(_refusal, stall=self._stall, per_minute=per_minute, max_retries=self._max_retries)

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
            raise BackendError(self._redact(f"{message}; {_BASE_URL_REMEDY}")) from self._showable(exc)

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

    # --- errors -------------------------------------------------------------------------------------------------------

    def _model_error(self, exc: Exception) -> ModelError:
        name, what, remedy = _meaning(exc)
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
        *_, root = _chain(exc)
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
        return exc if all(self._redact(str(link)) == str(link) for link in _chain(exc)) else None


class _ServedModel(msgspec.Struct):
    id: str


class _ServedModels(msgspec.Struct):
    data: list[_ServedModel]


_MODELS: Final = msgspec.json.Decoder(_ServedModels)


def _meaning(exc: Exception) -> _Meaning:
    name = next(kind.__name__ for kind in type(exc).__mro__ if kind.__name__ in MEANINGS)
    *_, root = _chain(exc)
    if name == "APITimeoutError" and not (isinstance(root, TimeoutError) or "Timeout" in type(root).__name__):
        name = "APIConnectionError"  # the SDK over aiohttp calls every lost connection a timeout
    return MEANINGS[name]


def _refusal(exc: Exception) -> Refusal:
    """Return what the exception of an attempt says about the server."""
    import openai

    if isinstance(exc, openai.APIStatusError):
        return read_status(exc.status_code, exc.response.headers, exc.code)
    if isinstance(exc, openai.APIConnectionError):
        *_, root = _chain(exc)
        never_connected = "Connect" in type(root).__name__
        return Refusal("lost" if never_connected or _meaning(exc) is MEANINGS["APIConnectionError"] else "retry")
    return Refusal("final")


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, its cause, and so on to the root cause."""
    while exc is not None:
        yield exc
        exc = exc.__cause__


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
