"""A model behind an OpenAI-compatible server: vLLM's own, or any other. Every error of the SDK gets its name here.

The openai package is imported when a backend starts, never before. What a spec says for vLLM in this process alone
(``engine``, the parsers, ``chat_template``) is the server's business and not sent.
"""

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

import msgspec

from flowrun.adapters.chat_api import BrokenReply, parse_reply, request_body
from flowrun.errors import BackendError, Bug, ModelError
from flowrun.events import AskModel
from flowrun.loading.suggestions import did_you_mean
from flowrun.messages import Reply
from flowrun.spec import Model

if TYPE_CHECKING:
    import openai

MAX_RETRIES: Final = 2
"""The SDK tries again so often after a lost connection, a timeout, 408, 409, 429 or 5xx, with growing pauses."""

REPLY_SECONDS: Final = 600.0
"""How long a reply may take unless ``model.timeout`` says otherwise; each attempt by itself."""

CONNECT_SECONDS: Final = 60.0
"""How long a connection may take: thousands that are opened at once wait for each other."""

CHECK_SECONDS: Final = 30.0
"""How long the server may take to list its models."""

MAX_CONNECTIONS: Final = 1_000_000
"""No bound: each live run holds one, and the server is what decides how many requests run at once."""

NO_KEY: Final = "EMPTY"
"""Sent where no ``api_key`` is given: the SDK wants one, and vLLM's documentation uses this one."""

FIRST_MODEL: Final = "default"
"""The ``name`` that means: whichever model the server lists first."""

_BASE_URL_REMEDY: Final = "model.base_url mostly ends in /v1"

MAX_EXCERPT: Final = 300
"""Of a server's answer, so many characters are shown in an error."""


MAX_LISTED: Final = 20
"""Of a server's models, so many are named in an error."""


class _Meaning(NamedTuple):
    """What an exception of the SDK means: the failure's name, what the server did, and what to do about it."""

    name: str
    what: str
    remedy: str = ""


MEANINGS: Final[Mapping[str, _Meaning]] = {
    "APITimeoutError": _Meaning("backend.unavailable", "did not answer in time", "raise model.timeout, or ask less"),
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
"""By the exception's class, else by the nearest of its bases."""

TOO_LONG: Final = re.compile(
    r"context.?(?:length|window|size)|maximum (?:model|context) length|max_model_len|max_total_tokens"
    r"|prompt is too long|too many (?:input )?tokens|input is too long",
    re.IGNORECASE,
)
"""How servers say (vLLM, SGLang, llama.cpp, TGI, OpenAI) that a prompt does not fit."""


class OpenAIBackend:
    """The port ``ModelBackend`` over a server's chat completions.

    Args:
        model: with ``base_url``; its values are used as they are, nothing is taken from the environment.
        mask: takes secrets out of a text; those in ``model`` itself are always taken out.
    """

    def __init__(self, model: Model, *, mask: Callable[[str], str] = str, max_retries: int = MAX_RETRIES) -> None:
        self._model = model
        self._max_retries = max_retries
        self._url = _split(model.base_url or "")
        self._mask = mask
        self._secrets = sorted(_secrets(model, self._url), key=len, reverse=True)
        self._name = model.name
        self._client: openai.AsyncOpenAI | None = None

    @property
    def concurrency(self) -> int | None:
        """None: the server decides, and does not say."""
        return None

    async def start(self) -> None:
        """Check that the server answers and that it has the model.

        Raises:
            BackendError: it does not, or the settings cannot be used.
        """
        if self._client is not None:
            return
        self._check_settings()
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

    async def reply(self, request: AskModel) -> Reply:
        """Ask for one reply; see ``ports.ModelBackend``."""
        if self._client is None:
            raise Bug("the backend was asked for a reply before it was started")
        body = request_body(request, model=self._name, template_kwargs=self._model.chat_template_kwargs)
        try:
            # not chat.completions.create: it walks every message for type unions, 10 ms for a thread of 30
            answer = await self._client.post("/chat/completions", cast_to=bytes, body=body)
        except Exception as exc:
            raise self._model_error(exc) from self._showable(exc)
        try:
            return parse_reply(answer)
        except BrokenReply as exc:
            message = (
                f"{self._server()} gave an answer that is no chat completion: {exc}; it begins: {self._excerpt(answer)}"
            )
            raise ModelError("backend.unavailable", self._clean(message)) from self._showable(exc)

    # --- starting -----------------------------------------------------------------------------------------------------

    def _check_settings(self) -> None:
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            written = (self._model.base_url or "").rpartition("@")[2].partition("?")[0]
            shown = self._clean(repr(written)) if written else "missing"
            raise BackendError(f"model.base_url is {shown}; it must be like http://localhost:8000/v1")
        texts = {"api_key": self._model.api_key or "", **{f"headers.{k}": v for k, v in self._model.headers.items()}}
        for name, text in texts.items():
            if not (text.isascii() and text.isprintable()):
                raise BackendError(f"model.{name} holds a line break or a character that HTTP does not allow there")

    def _connect(self) -> "openai.AsyncOpenAI":
        import openai

        seconds = REPLY_SECONDS if self._model.timeout is None else float(self._model.timeout)
        limits = type(openai.DEFAULT_CONNECTION_LIMITS)(
            max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS
        )
        try:  # its cost does not grow with the number of connections; it comes with openai[aiohttp] and with vLLM
            http_client = openai.DefaultAioHttpClient(limits=limits)
        except (AttributeError, RuntimeError):
            http_client = openai.DefaultAsyncHttpxClient(limits=limits)
        client = openai.AsyncOpenAI(
            base_url=self._shown_url(),
            api_key=self._model.api_key or NO_KEY,
            default_headers=self._headers(),
            default_query=dict(parse_qsl(self._url.query)),
            timeout=openai.Timeout(seconds, connect=CONNECT_SECONDS),
            max_retries=self._max_retries,
            http_client=http_client,
        )
        client.organization = client.project = client.admin_api_key = None  # the SDK takes them from the environment
        return client

    def _headers(self) -> dict[str, str]:
        """Give all headers that the spec means; ``Authorization`` always, so that the SDK looks for no other."""
        headers = {"Authorization": _basic(self._url) or f"Bearer {self._model.api_key or NO_KEY}"}
        for name, value in self._model.headers.items():
            headers["Authorization" if name.lower() == "authorization" else name] = value
        return headers

    async def _list_models(self, client: "openai.AsyncOpenAI") -> list[str]:
        try:
            answer = await client.get("/models", cast_to=bytes, options={"timeout": CHECK_SECONDS})
        except Exception as exc:
            raise BackendError(self._model_error(exc).message) from self._showable(exc)
        try:
            return [model.id for model in _MODELS.decode(answer).data]
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            message = f"{self._server()} lists no models at /models: {exc}; its answer begins: {self._excerpt(answer)}"
            raise BackendError(self._clean(f"{message}; {_BASE_URL_REMEDY}")) from self._showable(exc)

    def _pick(self, served: list[str]) -> str:
        """Choose the model among those that the server has."""
        name = self._model.name
        if name in served:
            return name
        if name == FIRST_MODEL and served:
            return served[0]
        listed = ", ".join(sorted(served)[:MAX_LISTED]) + (", ..." if len(served) > MAX_LISTED else "")
        message = f"the server {self._shown_url()} has no model {name!r}; it has: {listed or 'none at all'}"
        raise BackendError(self._clean(f"{message}; {did_you_mean(name, served)}".removesuffix("; ")))

    # --- errors -------------------------------------------------------------------------------------------------------

    def _model_error(self, exc: Exception) -> ModelError:
        name, what, remedy = _meaning(exc)
        said = self._said(exc)
        if name == "model.request_refused" and TOO_LONG.search(f"{said} {getattr(exc, 'code', None)}"):
            name, what, remedy = "model.context_overflow", "says that the prompt does not fit", ""
        message = f"{self._server()} {what}: {said}"
        return ModelError(name, self._clean(f"{message}; {remedy}" if remedy else message))

    def _said(self, exc: Exception) -> str:
        """Give the server's own words, else those of the error at the bottom."""
        body, status = getattr(exc, "body", None), getattr(exc, "status_code", None)
        if isinstance(body, dict):
            body = next((body[key] for key in ("message", "detail", "error") if body.get(key)), body)
        *_, bottom = _chain(exc)
        text = self._excerpt(str(body)) if body else self._excerpt(str(bottom)) or type(bottom).__name__
        return text if status is None else f"{text} (HTTP {status})"

    def _excerpt(self, text: str | bytes) -> str:
        """Give the beginning of a text; the secrets go first, for a part of one would not be known any more."""
        shown = self._clean(text if isinstance(text, str) else text.decode(errors="replace"))
        shown = " ".join(shown.split())
        return shown if len(shown) <= MAX_EXCERPT else f"{shown[:MAX_EXCERPT]} ..."

    def _server(self) -> str:
        return f"the server {self._shown_url()} (model {self._name!r})"

    def _shown_url(self) -> str:
        """Give ``base_url`` without what may be secret in it."""
        host = self._url.netloc.rpartition("@")[2]
        return urlunsplit((self._url.scheme, host, self._url.path, "", ""))

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return self._mask(text)

    def _showable(self, exc: Exception) -> Exception | None:
        """Give the error as a cause that a traceback may show, or None if it holds a secret."""
        return exc if all(self._clean(str(link)) == str(link) for link in _chain(exc)) else None


class _ServedModel(msgspec.Struct):
    id: str


class _ServedModels(msgspec.Struct):
    data: list[_ServedModel]


_MODELS: Final = msgspec.json.Decoder(_ServedModels)


def _meaning(exc: Exception) -> _Meaning:
    name = next(kind.__name__ for kind in type(exc).__mro__ if kind.__name__ in MEANINGS)
    *_, bottom = _chain(exc)
    if name == "APITimeoutError" and not (isinstance(bottom, TimeoutError) or "Timeout" in type(bottom).__name__):
        name = "APIConnectionError"  # the SDK over aiohttp calls every lost connection a timeout
    return MEANINGS[name]


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    """Give an error and, after it, what it was raised from, down to the bottom."""
    while exc is not None:
        yield exc
        exc = exc.__cause__


def _split(address: str) -> SplitResult:
    """Take an address apart; what cannot be an address gives nothing."""
    try:
        parts = urlsplit(address)
        _ = parts.port  # reads it, and raises if it is no number
    except ValueError:
        return urlsplit("")
    return parts


def _basic(url: SplitResult) -> str:
    """Give the header for the credentials in a URL, or an empty text."""
    if not url.username:
        return ""
    pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _secrets(model: Model, url: SplitResult) -> set[str]:
    """Give what no message may show. What is shorter than four characters hides nothing and would garble the rest."""
    credentials = [url.username or "", url.password or ""]
    queries = [value for _, value in parse_qsl(url.query)]
    found = [
        model.api_key or "",
        _basic(url),
        *model.headers.values(),
        *(token for value in model.headers.values() for token in value.split()[1:]),  # what stands behind a scheme
        *credentials,
        *map(unquote, credentials),
        *queries,
    ]
    return {secret for secret in found if len(secret) >= 4}
