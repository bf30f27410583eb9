"""A model that says what it is told to say: for tests, demos and CI. Deterministic, no threads, no network."""

import asyncio
import inspect
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from flowrun.errors import FAILURES, BackendError, FlowrunError, ModelError
from flowrun.events import AskModel
from flowrun.loading.document import Document, place_of
from flowrun.loading.parse import parse_duration
from flowrun.loading.suggestions import suggest
from flowrun.loading.yaml_source import read_document
from flowrun.messages import Message, Reply, ToolCall, as_openai
from flowrun.spec import JSON
from flowrun.templates import compile_condition

Condition = Callable[[AskModel], bool]
"""Whether a scripted reply answers a request."""

_NO_MAPPING: Final = frozenset({"FR112", "FR114"})
"""The issues of files that are empty or no mapping; their remedies are for specs."""

_HAS_KEY: Final = re.compile(r"^[\"']?replies[\"']?\s*:", re.MULTILINE)

MAX_SHOWN: Final = 200
"""Of the last message, so many characters are shown in an error."""


class ScriptedCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool call of a scripted reply. ``arguments`` as text is what the model wrote, be it JSON or not."""

    name: str
    arguments: Mapping[str, JSON] | str = {}
    id: str = ""

    def tool_call(self) -> ToolCall:
        """Give it as the model's."""
        text = self.arguments if isinstance(self.arguments, str) else msgspec.json.encode(self.arguments).decode()
        return ToolCall(id=self.id, name=self.name, arguments=text)


class ScriptedReply(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that the model will say, or the failure that it will end in.

    ``when`` says which requests it answers, all if None: one of them, or any number with ``repeat``. ``delay`` is the
    seconds until it comes. ``error`` is one of ``errors.FAILURES``, ``message`` what the error says. ``finish_reason``
    None is what the content and calls imply.

    Raises:
        ValueError: ``error`` is no failure's name.
    """

    content: str | None = None
    tool_calls: tuple[ScriptedCall, ...] = ()
    finish_reason: str | None = None
    error: str | None = None
    message: str | None = None
    when: Condition | None = None
    delay: float = 0.0
    repeat: bool = False

    def __post_init__(self) -> None:
        if self.error is not None and self.error not in FAILURES:
            raise ValueError(f"error {self.error!r} is no failure's name; {suggest(self.error, FAILURES, 'names')}")

    def reply(self) -> Reply:
        """Give what the model says.

        Raises:
            ModelError: the reply is scripted to be this failure.
        """
        if self.error is not None:
            raise ModelError(self.error, self.message or FAILURES[self.error])
        implied = "tool_calls" if self.tool_calls else "stop"
        return Reply(
            content=self.content,
            tool_calls=tuple(call.tool_call() for call in self.tool_calls),
            finish_reason=self.finish_reason or implied,
        )


class ScriptExhausted(FlowrunError):
    """The script holds no reply for a request. No spec can catch this: it is the script's mistake, not the model's."""


class ScriptedBackend:
    """The port ``ModelBackend`` over given replies: the first unused one whose ``when`` holds is taken.

    Args:
        record: keep the requests in ``requests``.
        sleep: how to wait for a reply's ``delay``.
    """

    def __init__(
        self,
        replies: Iterable[ScriptedReply | Reply],
        *,
        record: bool = True,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self.requests: list[AskModel] = []
        self._left = deque(replies)
        self._given = len(self._left)
        self._repeated: set[int] = set()
        self._record = record
        self._sleep = sleep

    @staticmethod
    def from_function(
        function: Callable[[AskModel], Reply] | Callable[[AskModel], Awaitable[Reply]], *, record: bool = True
    ) -> "ScriptedBackend":
        """Make a model of a function, sync or async, from requests to replies: a simulation."""
        return _Simulated(function, record=record)

    @property
    def unused(self) -> tuple[ScriptedReply | Reply, ...]:
        """What nobody has asked for yet, in order."""
        return tuple(reply for reply in self._left if id(reply) not in self._repeated)

    @property
    def concurrency(self) -> int | None:
        """None: there is no limit."""
        return None

    async def start(self) -> None:
        """Do nothing: there is nothing to load."""

    async def stop(self) -> None:
        """Do nothing: nothing was started."""

    async def reply(self, request: AskModel) -> Reply:
        """Give the next reply that fits the request.

        Raises:
            ModelError: the reply is scripted to be a failure.
            ScriptExhausted: no unused reply fits.
        """
        if self._record:
            self.requests.append(request)
        scripted = self._take(request)
        if isinstance(scripted, Reply):
            return scripted
        if scripted.delay:
            await self._sleep(scripted.delay)
        return scripted.reply()

    def _take(self, request: AskModel) -> ScriptedReply | Reply:
        for index, scripted in enumerate(self._left):
            if isinstance(scripted, Reply) or scripted.when is None or scripted.when(request):
                if isinstance(scripted, ScriptedReply) and scripted.repeat:
                    self._repeated.add(id(scripted))
                else:
                    del self._left[index]
                return scripted
        raise ScriptExhausted(self._explain(request))

    def _explain(self, request: AskModel) -> str:
        used = self._given - len(self._left)
        left = ", and `when` holds for none of the others" if self._left else ""
        return (
            f"the script has no reply for state {request.state!r} of run {request.run!r}: {used} of {self._given} "
            f"replies are used{left}; {_last_message(request)}; add a reply, or see why the flow asks again"
        )


class _Simulated(ScriptedBackend):
    """Answers by a function."""

    def __init__(self, function: Callable[[AskModel], Any], *, record: bool) -> None:
        super().__init__((), record=record)
        self._function = function

    async def reply(self, request: AskModel) -> Reply:
        if self._record:
            self.requests.append(request)
        answer = self._function(request)
        reply: Reply = await answer if inspect.isawaitable(answer) else answer
        return reply


def _last_message(request: AskModel) -> str:
    if not request.messages:
        return "the thread is empty"
    last: Message = request.messages[-1]
    said = last.content if last.content is not None else ", ".join(f"{call.name}(...)" for call in last.tool_calls)
    return f"the last message is {last.role}: {said if len(said) <= MAX_SHOWN else said[:MAX_SHOWN] + ' ...'!r}"


def view_of(request: AskModel) -> dict[str, JSON]:
    """Give a request as a ``when`` sees it."""
    return {
        "messages": [as_openai(message) for message in request.messages],
        "state": request.state,
        "tools": [tool.name for tool in request.tools],
    }


def compile_when(text: str) -> Condition:
    """Compile a reply's ``when``, a bare expression over ``request``.

    Raises:
        TemplateError: it is no valid expression.
    """
    holds = compile_condition(text)
    return lambda request: holds({"request": view_of(request)})


def load_replies(path: Path) -> list[ScriptedReply]:
    """Read replies from a YAML or JSON file: a list under ``replies``, in the form that spec tests have.

    Raises:
        BackendError: the file cannot be read, or some of its replies are wrong; all of them are named.
    """
    document, written = _read_list(path)
    replies: list[ScriptedReply] = []
    wrong: list[str] = []
    for index, raw in enumerate(written):
        try:
            replies.append(_read_reply(raw))
        except (ValueError, TypeError, FlowrunError) as exc:
            wrong.append(f"{place_of(document, ('replies', index))}: reply {index + 1}: {exc}")
    if wrong:
        raise BackendError("\n".join(wrong))
    return replies


def _read_list(path: Path) -> tuple[Document, list[JSON]]:
    """Give the file, and the list under its only key."""
    try:
        document = read_document(path.read_bytes(), str(path))
    except OSError as exc:
        raise BackendError(f"{path}: the scripted replies cannot be read: {exc.strerror}; see model.name") from exc
    errors = [issue for issue in document.issues if issue.severity == "error" and issue.code not in _NO_MAPPING]
    if errors and not _HAS_KEY.search(document.text):
        raise BackendError(
            f"{path}: is no file of scripted replies: a top-level key `replies` holds a list; see model.name"
        )
    if errors:
        raise BackendError("\n".join(f"{issue.place}: {issue.message}; {issue.remedy}" for issue in errors))
    match document.value:
        case {"replies": list(written), **others} if not others:
            return document, written
        case _:
            raise BackendError(f"{path}: must be a mapping with one key, `replies`, that holds a list")


def _read_reply(raw: JSON) -> ScriptedReply:
    """Read one reply.

    Raises:
        ValueError: it is wrong (``msgspec.ValidationError`` is one).
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
