"""The meanings of the errors of a server, as the SDK raises them or as it reports them in the middle of a reply.

Every foreign exception of the openai backend is read here.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from flowrun.backends.chat_stream import CutStream, ServerFault
from flowrun.backends.pressure import Refusal, read_status

BASE_URL_REMEDY: Final = "model.base_url mostly ends in /v1"


class Meaning(NamedTuple):
    """The meaning of an exception of the SDK: the failure's name, what the server did, and the remedy."""

    name: str
    what: str
    remedy: str = ""


MEANINGS: Final[Mapping[str, Meaning]] = {
    "APITimeoutError": Meaning("backend.unavailable", "did not answer in time", "raise model.timeout, or ask less"),
    "TimeoutError": Meaning("backend.unavailable", "did not answer in time", "raise model.timeout, or ask less"),
    "APIConnectionError": Meaning(
        "backend.unavailable", "could not be reached", "is it running, and is model.base_url right?"
    ),
    "APIResponseValidationError": Meaning("backend.unavailable", "gave an answer that cannot be read"),
    "AuthenticationError": Meaning("backend.unavailable", "refused the credentials", "set model.api_key"),
    "PermissionDeniedError": Meaning("backend.unavailable", "denied access", "see what model.api_key is allowed to do"),
    "RateLimitError": Meaning("backend.unavailable", "is asked too much", "run fewer at once, or wait"),
    "ConflictError": Meaning("backend.unavailable", "is busy with something that excludes this"),
    "InternalServerError": Meaning("backend.unavailable", "failed", "see the server's log"),
    "NotFoundError": Meaning("model.request_refused", "does not know the model or the address", BASE_URL_REMEDY),
    "BadRequestError": Meaning("model.request_refused", "refused the request"),
    "UnprocessableEntityError": Meaning("model.request_refused", "refused the request"),
    "APIStatusError": Meaning("model.request_refused", "refused the request"),
    "UnicodeEncodeError": Meaning("model.request_refused", "cannot be sent a text that is no Unicode"),
    "CutStream": Meaning("backend.unavailable", "ended its answer in the middle", "see the server's log"),
    "Exception": Meaning("backend.unavailable", "could not be talked to"),
}
"""Meanings by the name of the exception's class, or of its nearest base."""

OF_STATUS: Final[Mapping[int, str]] = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
}
"""The same names for an error in the middle of a reply, by the status that it has; all from 500 on are one."""

TOO_LONG: Final = re.compile(
    r"context.?(?:length|window|size)|maximum (?:model|context) length|max_model_len|max_total_tokens"
    r"|prompt is too long|too many (?:input )?tokens|input is too long",
    re.IGNORECASE,
)
"""Words by which servers (vLLM, SGLang, llama.cpp, TGI, OpenAI) report that a prompt does not fit."""


def meaning_of(exc: Exception) -> Meaning:
    """Return the meaning of an exception of the SDK, or of an error in the middle of a reply."""
    if isinstance(exc, ServerFault):
        return MEANINGS[OF_STATUS.get(exc.status, "APIStatusError" if exc.status < 500 else "InternalServerError")]
    name = next(kind.__name__ for kind in type(exc).__mro__ if kind.__name__ in MEANINGS)
    *_, root = chain_of(exc)
    if name == "APITimeoutError" and not (isinstance(root, TimeoutError) or "Timeout" in type(root).__name__):
        name = "APIConnectionError"  # the SDK over aiohttp calls every lost connection a timeout
    return MEANINGS[name]


def refusal_of(exc: Exception) -> Refusal:
    """Return what the exception of an attempt says about the server."""
    import openai

    if isinstance(exc, ServerFault):
        return read_status(exc.status, {}, exc.code)
    if isinstance(exc, CutStream):
        return Refusal("lost")
    if isinstance(exc, openai.APIStatusError):
        return read_status(exc.status_code, exc.response.headers, exc.code)
    if isinstance(exc, openai.APIConnectionError):
        *_, root = chain_of(exc)
        never_connected = "Connect" in type(root).__name__
        return Refusal("lost" if never_connected or meaning_of(exc) is MEANINGS["APIConnectionError"] else "retry")
    return Refusal("final")


def chain_of(exc: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, its cause, and so on to the root cause."""
    while exc is not None:
        yield exc
        exc = exc.__cause__
