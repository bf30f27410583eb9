"""FR607 to FR609: a model has the settings that its backend needs, none of another one, and no key in plain text."""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from flowrun.checks.subject import Subject
from flowrun.errors import Issue, Path
from flowrun.spec.document import written_path
from flowrun.spec.masking import MIN_MASKED_LENGTH
from flowrun.spec.model import Model
from flowrun.spec.phrases import listed

_SERVERS_ONLY: Final = ("base_url", "api_key", "headers", "max_requests_per_minute")
_IN_PROCESS_ONLY: Final = ("engine", "chat_template", "revision", "tool_call_parser", "reasoning_parser")
_SECRET_HEADER: Final = re.compile("auth|key|token|secret|cookie", re.IGNORECASE)


def check_backend(subject: Subject, path: Path, model: Model) -> Iterator[Issue]:
    """Find settings of a model that its backend lacks, or does not have."""
    if model.backend == "openai":
        yield from _base_url(subject, path, model)
        yield from _header_values(subject, path, model)
        yield from _without_effect(subject, path, model)
        if model.adapter is not None:
            message = "'adapter' is for vLLM in this process: a server knows a model with its adapter by a name"
            remedy = "write that name as the model's name, and delete it"
            yield subject.issue("FR607", (*path, "adapter"), message, remedy, key=True)
    else:
        if foreign := [name for name in _SERVERS_ONLY if getattr(model, name)]:
            verb = "are" if len(foreign) > 1 else "is"
            message = f"{listed(foreign, 'and')} {verb} for the backend openai only, and the backend is {model.backend}"
            remedy = "write backend: openai if the model is behind a server, or delete it"
            yield subject.issue("FR607", (*path, foreign[0]), message, remedy, key=True)
        elif model.timeout is not None:
            message = f"'timeout' has no effect: it is for servers, and the backend is {model.backend}"
            remedy = "write it as the timeout of a state"
            yield subject.issue("FR608", (*path, "timeout"), message, remedy, key=True, severity="warning")
    yield from _literal_keys(subject, path, model)


def _base_url(subject: Subject, path: Path, model: Model) -> Iterator[Issue]:
    if not model.base_url:
        remedy = "add base_url, such as http://localhost:8000/v1"
        yield subject.issue("FR607", path, "the backend openai needs the server's 'base_url'", remedy, key=True)
    elif "${" not in model.base_url and not _is_url(model.base_url):
        message = "'base_url' is no address of a server"
        yield subject.issue("FR607", (*path, "base_url"), message, "write it like http://localhost:8000/v1")


def _header_values(subject: Subject, path: Path, model: Model) -> Iterator[Issue]:
    values: dict[Path, str] = {("api_key",): model.api_key or ""}
    values |= {("headers", name): text for name, text in model.headers.items()}
    for keys, text in values.items():
        if not (text.isascii() and text.isprintable()):
            message = f"'{keys[-1]}' holds a line break or a character that HTTP does not allow there"
            yield subject.issue("FR607", (*path, *keys), message, "delete it")


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        return False


def _without_effect(subject: Subject, path: Path, model: Model) -> Iterator[Issue]:
    """Find settings of vLLM in this process. A server has its own; those of the spec below a profile are no mistake."""
    document = subject.loaded.document
    of_profiles = {place for at, place in document.places.items() if at[:1] == ("profiles",)}

    def is_merged(*keys: str) -> bool:
        return document.places.get(written_path(document, (*subject.base, *path, *keys))) in of_profiles

    for name in _IN_PROCESS_ONLY:
        if getattr(model, name) and is_merged("backend") <= is_merged(name):
            message = f"{name!r} has no effect: it is for vLLM in this process, and the server has its own"
            yield subject.issue("FR608", (*path, name), message, "delete it", key=True, severity="warning")


def _literal_keys(subject: Subject, path: Path, model: Model) -> Iterator[Issue]:
    document = subject.loaded.document
    values: dict[Path, str | None] = {("api_key",): model.api_key, ("base_url",): _password(model.base_url)}
    values |= {("headers", name): text for name, text in model.headers.items() if _SECRET_HEADER.search(name)}
    for keys, value in values.items():
        at = (*path, *keys)
        written = written_path(document, (*subject.base, *at)) in document.written
        if value and len(value) >= MIN_MASKED_LENGTH and "${" not in value and not written:
            remedy = "write ${NAME}, and set the variable where the flow runs"
            message = f"'{keys[-1]}' holds a key in plain text, which everybody reads who reads the spec"
            yield subject.issue("FR609", at, message, remedy, key=True, severity="warning")


def _password(url: str | None) -> str | None:
    try:
        return urlsplit(url).password if url else None
    except ValueError:
        return None
