"""A model with scripted replies: for tests, demos and CI. Deterministic, no threads, no network."""

import asyncio
import inspect
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from flowrun.backends.text_pieces import TextPieces
from flowrun.backends.wrapper import ReadyBackend
from flowrun.core.events import AskModel
from flowrun.core.messages import Message, Reply, ToolCall, Usage, as_openai
from flowrun.core.ports import OnText
from flowrun.errors import FAILURES, BackendError, FlowrunError, Issue, ModelError
from flowrun.errors import Path as DocumentPath
from flowrun.excerpts import beginning
from flowrun.files import file_errors
from flowrun.spec.document import Document, issue_at
from flowrun.spec.model import JSON
from flowrun.spec.parse import parse_duration
from flowrun.spec.suggestions import suggest
from flowrun.spec.yaml.reader import read_document
from flowrun.templates import TemplateError, compile_condition, has_template
from flowrun.templates.reads import reads_of_expression

Condition = Callable[[AskModel], bool]
"""A predicate: whether a scripted reply answers a request."""

_NO_MAPPING: Final = frozenset({"FR112", "FR114"})
"""Issues of a file that is empty or no mapping, not reported here: their remedies are for specs."""

_HAS_KEY: Final = re.compile(r"^[\"']?replies[\"']?\s*:", re.MULTILINE)

_REMEDY: Final = (
    "a reply has content, tool_calls, finish_reason, probabilities and mass, usage, error and message, when, repeat "
    "and delay"
)

_WORD: Final = re.compile(r"\s*\S+")

MAX_SHOWN: Final = 200
"""Characters of the last message that an error shows."""


class ScriptedCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool call of a scripted reply. ``arguments`` may be the model's raw text, valid JSON or not."""

    name: str
    arguments: Mapping[str, JSON] | str = {}
    id: str = ""

    def tool_call(self) -> ToolCall:
        """Return the call as part of a model's reply."""
        text = self.arguments if isinstance(self.arguments, str) else msgspec.json.encode(self.arguments).decode()
        return ToolCall(id=self.id, name=self.name, arguments=text)


class ScriptedUsage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tokens of a scripted reply."""

    prompt_tokens: Annotated[int, msgspec.Meta(ge=0)] = 0
    completion_tokens: Annotated[int, msgspec.Meta(ge=0)] = 0
    cached_tokens: Annotated[int, msgspec.Meta(ge=0)] = 0

    def usage(self) -> Usage:
        """Return the tokens as those of a model's reply."""
        return Usage(**msgspec.structs.asdict(self))


class ScriptedReply(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reply that the model will return, or the failure that it will raise.

    It answers the first request for which ``when`` holds (None: any), or every such request with ``repeat``, after
    ``delay`` seconds. ``error`` is one of ``errors.FAILURES``, ``message`` its text. A ``finish_reason`` of None is
    derived from the content and the calls. ``probabilities`` and ``mass`` answer a decide state. ``usage`` are the
    tokens that it is said to have used.

    Raises:
        ValueError: ``error`` is no failure's name.
    """

    content: str | None = None
    tool_calls: tuple[ScriptedCall, ...] = ()
    finish_reason: str | None = None
    probabilities: Mapping[str, float] | None = None
    mass: float = 1.0
    usage: ScriptedUsage = ScriptedUsage()
    error: str | None = None
    message: str | None = None
    when: Condition | None = None
    delay: float = 0.0
    repeat: bool = False

    def __post_init__(self) -> None:
        if self.error is not None and self.error not in FAILURES:
            raise ValueError(f"error {self.error!r} is no failure's name; {suggest(self.error, FAILURES, 'names')}")

    def reply(self) -> Reply:
        """Return the model's reply.

        Raises:
            ModelError: the script sets an ``error``.
        """
        if self.error is not None:
            raise ModelError(self.error, self.message or FAILURES[self.error])
        implied = "tool_calls" if self.tool_calls else "stop"
        return Reply(
            content=self.content,
            tool_calls=tuple(call.tool_call() for call in self.tool_calls),
            finish_reason=self.finish_reason or implied,
            probabilities=self.probabilities,
            mass=self.mass,
            usage=self.usage.usage(),
        )


class ScriptExhausted(FlowrunError):
    """The script has no reply for a request. No spec can catch this error: it is a mistake of the script."""


class ScriptedBackend(ReadyBackend):
    """The port ``ModelBackend`` over scripted replies: the first unused one whose ``when`` holds is returned.

    Args:
        record: store the requests in ``requests``.
        sleep: called with a reply's ``delay`` in seconds.
    """

    def __init__(
        self,
        replies: Iterable[ScriptedReply | Reply],
        *,
        record: bool = True,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self.requests: list[AskModel] = []
        self._remaining = deque(replies)
        self._total = len(self._remaining)
        self._repeated: set[int] = set()
        self._record = record
        self._sleep = sleep

    @staticmethod
    def from_function(
        function: Callable[[AskModel], Reply] | Callable[[AskModel], Awaitable[Reply]], *, record: bool = True
    ) -> "ScriptedBackend":
        """Return a backend whose replies are computed from the requests by a function, sync or async."""
        return _FunctionBackend(function, record=record)

    @property
    def unused(self) -> tuple[ScriptedReply | Reply, ...]:
        """Return the replies that no request has used yet, in order."""
        return tuple(reply for reply in self._remaining if id(reply) not in self._repeated)

    async def reply(self, request: AskModel, *, on_text: OnText | None = None) -> Reply:
        """Return the next reply that fits the request; its text comes in words, all at the same time.

        Raises:
            ModelError: the script sets an ``error``.
            ScriptExhausted: no unused reply fits.
        """
        if self._record:
            self.requests.append(request)
        scripted = self._next_reply(request)
        if isinstance(scripted, ScriptedReply) and scripted.delay:
            await self._sleep(scripted.delay)
        reply = scripted if isinstance(scripted, Reply) else scripted.reply()
        return reply if on_text is None else _in_words(reply, on_text)

    def _next_reply(self, request: AskModel) -> ScriptedReply | Reply:
        for index, scripted in enumerate(self._remaining):
            if isinstance(scripted, Reply) or scripted.when is None or scripted.when(request):
                if isinstance(scripted, ScriptedReply) and scripted.repeat:
                    self._repeated.add(id(scripted))
                else:
                    del self._remaining[index]
                return scripted
        raise ScriptExhausted(self._explain(request))

    def _explain(self, request: AskModel) -> str:
        used = self._total - len(self._remaining)
        left = ", and `when` holds for none of the others" if self._remaining else ""
        return (
            f"the script has no reply for state {request.state!r} of run {request.run!r}: {used} of {self._total} "
            f"replies are used{left}; {_last_message(request)}; add a reply, or see why the flow asks again"
        )


class _FunctionBackend(ScriptedBackend):
    """A backend whose replies a function computes."""

    def __init__(self, function: Callable[[AskModel], Any], *, record: bool) -> None:
        super().__init__((), record=record)
        self._function = function

    async def reply(self, request: AskModel, *, on_text: OnText | None = None) -> Reply:
        if self._record:
            self.requests.append(request)
        answer = self._function(request)
        reply: Reply = await answer if inspect.isawaitable(answer) else answer
        return reply if on_text is None else _in_words(reply, on_text)


def _in_words(reply: Reply, on_text: OnText) -> Reply:
    """Pass on the text of a reply word by word, and return the reply."""
    pieces = TextPieces(on_text)
    for word in _WORD.findall(reply.content or ""):
        pieces.write(word)
    return pieces.finish(reply)


def _last_message(request: AskModel) -> str:
    if not request.messages:
        return "the thread is empty"
    last: Message = request.messages[-1]
    text = last.content if last.content is not None else ", ".join(f"{call.name}(...)" for call in last.tool_calls)
    return f"the last message is {last.role}: {beginning(text, MAX_SHOWN)!r}"


def request_variables(request: AskModel) -> dict[str, JSON]:
    """Return a request as the variable ``request`` of ``when`` expressions."""
    return {name: read(request) for name, read in _MEMBERS.items()}


def compile_when(text: str) -> Condition:
    """Compile a reply's ``when``, a bare expression over ``request``.

    Raises:
        TemplateError: the text is no valid expression.
    """
    holds = compile_condition(text)
    return lambda request: holds({"request": request_variables(request)})


_MEMBERS: Final[Mapping[str, Callable[[AskModel], JSON]]] = {
    "messages": lambda request: [as_openai(message) for message in request.messages],
    "state": lambda request: request.state,
    "flow": lambda request: request.flow,
    "index": lambda request: request.round - 1,
    "model": lambda request: request.model,
    "tools": lambda request: [tool.name for tool in request.tools],
    "tool_choice": lambda request: request.tool_choice,
    "sampling": lambda request: dict(request.sampling),
    "response_format": lambda request: msgspec.to_builtins(request.response_format),
}

REQUEST: Final = tuple(_MEMBERS)
"""The members of ``request`` in a reply's ``when``."""


def check_when(document: Document, at: DocumentPath, when: str) -> Iterator[Issue]:
    """Yield the faults of a reply's ``when``, written at a path of a file."""
    if has_template(when):
        remedy = "write the expression without braces"
        yield issue_at(document, "FR403", at, "'when' is an expression, and has the braces of a template", remedy)
        return
    try:
        reads = reads_of_expression(when)
        compile_condition(when)
    except TemplateError as exc:
        yield issue_at(document, "FR401", at, str(exc), "write an expression such as request.state == 'ask'")
        return
    for root in sorted(reads.roots - {"request"}):
        yield issue_at(document, "FR402", at, f"there is no name {root!r}", "the only name is: request")
    members = {str(path[1]) for path in reads.paths if path[0] == "request" and len(path) > 1}
    for member in sorted(members.difference(REQUEST)):
        remedy = suggest(member, REQUEST, "members")
        yield issue_at(document, "FR404", at, f"'request' has no member {member!r}", remedy)


def load_replies(path: Path) -> list[ScriptedReply]:
    """Read replies from a YAML or JSON file: a list under ``replies``, in the form that spec tests have.

    Raises:
        BackendError: the file cannot be read, or some of its replies are wrong; all of them are reported.
    """
    document, items = _read_list(path)
    if issues := list(_check_items(document, items)):
        raise BackendError("\n".join(f"{issue.place}: {issue.message}" for issue in issues))
    return list(map(parse_reply, items))


def check_replies(path: Path) -> list[Issue]:
    """Return the issues of a file of scripted replies.

    Raises:
        BackendError: it is no such file, or cannot be read.
    """
    return list(_check_items(*_read_list(path)))


def _check_items(document: Document, items: list[JSON]) -> Iterator[Issue]:
    for index, raw in enumerate(items):
        at = ("replies", index)
        try:
            parse_reply(raw)
        except (ValueError, TypeError, FlowrunError) as exc:
            yield issue_at(document, "FR210", at, f"reply {index + 1}: {exc}", _REMEDY)
        else:
            assert isinstance(raw, dict)
            if "when" in raw:
                yield from check_when(document, (*at, "when"), raw["when"])


def _read_list(path: Path) -> tuple[Document, list[JSON]]:
    """Return the file, and the list under its only key."""
    with file_errors(f"{path}: the scripted replies cannot be read", BackendError, "; see model.name"):
        document = read_document(path.read_bytes(), str(path))
    errors = [issue for issue in document.issues if issue.severity == "error" and issue.code not in _NO_MAPPING]
    if errors and not _HAS_KEY.search(document.text):
        raise BackendError(
            f"{path}: is no file of scripted replies: a top-level key `replies` holds a list; see model.name"
        )
    if errors:
        raise BackendError("\n".join(f"{issue.place}: {issue.message}; {issue.remedy}" for issue in errors))
    match document.value:
        case {"replies": list(items), **others} if not others:
            return document, items
        case _:
            raise BackendError(f"{path}: must be a mapping with one key, `replies`, that holds a list")


def parse_reply(raw: JSON) -> ScriptedReply:
    """Parse one reply in the form of a file of scripted replies.

    Raises:
        ValueError: the reply is invalid; ``msgspec.ValidationError`` is a ``ValueError``.
    """
    if not isinstance(raw, dict):
        raise ValueError(f"must be a mapping such as {{content: ...}}, and is {raw!r}")
    if "text" in raw:
        raise ValueError("`text` needs a model family's parser, which a script has not; give content and tool_calls")
    fields = dict(raw)
    condition = fields.pop("when", None)
    if "delay" in fields:
        fields["delay"] = float(parse_duration(fields["delay"]))
    reply = msgspec.convert(fields, ScriptedReply)
    if condition is None:
        return reply
    return msgspec.structs.replace(reply, when=compile_when(condition))
