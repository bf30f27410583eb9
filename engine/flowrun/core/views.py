"""The values that templates see of a run. Each is built only when a template reads it.

A view declares a mapping that templates see, each member with its type and meaning: the machine, the checks and the
reference of the language read the same declarations. They are typed dicts, because Jinja2 receives plain data.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, TypedDict

import msgspec

from flowrun.core.messages import Log, Message, Reply, ToolCall, Usage, parts_as_openai
from flowrun.errors import Failure
from flowrun.spec.model import JSON
from flowrun.spec.strict_json import parse_leniently
from flowrun.templates import Lazy, LazyMapping


class CallView(TypedDict):
    """A tool call of a reply."""

    id: Annotated[str, "the id of the call"]
    name: Annotated[str, "the name of the tool"]
    arguments: Annotated[JSON, "the arguments; the text that the model wrote if it is no JSON"]


class ToolView(TypedDict):
    """What the templates of a tool see besides the names of the state that makes the call."""

    call: Annotated[CallView, "the call"]


class ReplyView(TypedDict):
    """The reply of a model."""

    content: Annotated[str | None, "the text"]
    reasoning: Annotated[str | None, "the reasoning, if the model has a reasoning parser"]
    tool_calls: Annotated[list[CallView], "the tool calls"]
    parsed: Annotated[JSON, "the value that the text is, if the state has a `response_format`; else null"]
    finish_reason: Annotated[str, "why the model stopped"]
    usage: Annotated[Usage, "the tokens that the model read and wrote"]


class DecisionView(TypedDict):
    """The output of a decide state."""

    choice: Annotated[str, "the label with the largest probability"]
    probabilities: Annotated[Mapping[str, float], "the probabilities of the labels, which sum to 1"]
    mass: Annotated[
        float,
        "the share of all probability that the letters had, from 0 to 1: little if the model "
        "would have answered otherwise",
    ]


class FailureView(TypedDict):
    """The failure of a tool call."""

    name: Annotated[str, "the name of the error"]
    message: Annotated[str, "what went wrong"]
    type: Annotated[
        str | None,
        "the name of the class of the exception that a Python function raised; it is equal to the names of the base "
        "classes too. Null if no exception was raised",
    ]


class FailedReplyView(TypedDict):
    """A reply that failed."""

    content: Annotated[str | None, "the text"]
    text: Annotated[str | None, "the text as the model wrote it, with its markers, if the backend knows it"]


class ResultView(CallView):
    """The result of a tool call."""

    value: Annotated[JSON, "the value that the function returned"]
    error: Annotated[FailureView | None, "the failure of the call; null if the function returned"]


class StateFailureView(FailureView):
    """The failure of a state."""

    state: Annotated[str, "the state that failed"]


class ErrorView(StateFailureView):
    """The failure of an attempt at a state."""

    attempt: Annotated[int, "the attempt at the state that failed, from 1"]
    reply: Annotated[FailedReplyView | None, "the reply of the model, if it was that which failed"]


class RunView(TypedDict):  # each member is a field of Run
    """The run itself."""

    id: Annotated[str, "the id of the run"]
    state: Annotated[str, "the current state"]
    step: Annotated[int, "the number of states entered, where each further attempt counts again"]
    rounds: Annotated[int, "the number of requests to models"]
    attempt: Annotated[int, "the number of this attempt at the state, from 1"]


class MessageView(TypedDict):
    """A message of a thread."""

    role: Annotated[str, "who speaks: system, developer, user, assistant or tool"]
    content: Annotated[JSON, "the text, or null; if it has images, the list of its parts in the form of the API"]
    tool_calls: Annotated[list[CallView], "the tool calls that it makes"]
    tool_call_id: Annotated[str | None, "the id of the call that it answers"]
    name: Annotated[str | None, "the name of the tool, or of the speaker"]


class RequestView(TypedDict):
    """The request of the chat API that a served flow answers: what the templates of `serve` see, and all they see."""

    content: Annotated[str, "the text of the last message, which is the user's"]
    messages: Annotated[
        list[JSON],
        "the messages in the form of the chat API, for `from`; without the last one if another input of `serve` reads "
        "`request.content`, so that each message reaches the flow once",
    ]
    metadata: Annotated[Mapping[str, JSON], "what the request has as `metadata`"]


class ScopeView(TypedDict, total=False):
    """The names that templates see. One that has no value yet is not defined."""

    inputs: Annotated[Mapping[str, JSON], "the inputs of the run"]
    vars: Annotated[Mapping[str, JSON], "the variables"]
    outputs: Annotated[Mapping[str, JSON], "the outputs of states, by the names of the states"]
    reply: Annotated[ReplyView, "the last reply of a model"]
    results: Annotated[list[ResultView], "the results of the last tool calls, in the order of the calls"]
    error: Annotated[ErrorView, "the last failure that was caught"]
    run: Annotated[RunView, "the run itself"]
    threads: Annotated[Mapping[str, list[MessageView]], "the messages of the threads, by the names of the threads"]


class Value(msgspec.Struct, frozen=True, gc=False):
    """The value of a call, wrapped so that it differs from a failure.

    ``text`` is what the model gets; None: the value itself.
    """

    value: JSON
    text: str | None = None


class LazyReply(LazyMapping):
    """A reply on a thread, as templates see it."""

    thread: str
    message: Message
    _reply: Reply
    _parsed: JSON
    _data: dict[str, JSON] | None = None

    def __getitem__(self, name: str) -> Any:
        return _REPLY[name](self)

    def keys(self) -> Iterable[str]:
        """Return the members' names."""
        return _REPLY

    def data(self) -> dict[str, JSON]:
        """Return the reply as plain data, built once."""
        if self._data is None:
            self._data = super().data()
        return self._data


_REPLY: Final[Mapping[str, Callable[[LazyReply], Any]]] = {
    "content": lambda reply: reply.message.content,
    "reasoning": lambda reply: reply._reply.reasoning,
    "tool_calls": lambda reply: LazyCalls(reply.message.tool_calls),
    "parsed": lambda reply: reply._parsed,
    "finish_reason": lambda reply: reply._reply.finish_reason,
    "usage": lambda reply: msgspec.structs.asdict(reply._reply.usage),
}


class LazyCalls(Lazy):
    """The tool calls of a reply. Arguments that are not JSON stay strings."""

    _calls: tuple[ToolCall, ...]

    def __bool__(self) -> bool:
        return bool(self._calls)

    def data(self) -> list[CallView]:
        """Return the calls as plain data."""
        return list(map(_see_call, self._calls))


class LazyResults(Lazy):
    """The results of a tools state: its calls, each with the value or failure that answered it."""

    _pairs: Sequence[tuple[ToolCall, Value | Failure]]
    _data: list[ResultView] | None = None

    def __bool__(self) -> bool:
        return bool(self._pairs)

    def succeeded(self) -> Iterator[str]:
        """Yield the names of the tools whose calls succeeded."""
        return (call.name for call, answer in self._pairs if isinstance(answer, Value))

    def data(self) -> list[ResultView]:
        """Return the results as plain data, built once."""
        if self._data is None:
            self._data = [_see_result(call, answer) for call, answer in self._pairs]
        return self._data

    def in_context(self) -> list[ResultView]:
        """Return the results, in which the type of a failure compares in its own way."""
        if not any(isinstance(answer, Failure) and answer.types for _, answer in self._pairs):
            return self.data()
        return [_see_result(call, answer, type_of=ExceptionName.of) for call, answer in self._pairs]


class ExceptionName(str):
    """The name of an exception's class, which is equal to the names of its base classes too."""

    __slots__ = ("_names",)
    _names: tuple[str, ...]

    @classmethod
    def of(cls, failure: Failure) -> "ExceptionName | None":
        """Return the name of a failure's exception; None if there was none."""
        if not failure.types:
            return None
        name = cls(failure.types[0])
        name._names = failure.types
        return name

    def __eq__(self, other: object) -> bool:
        return other in self._names

    def __ne__(self, other: object) -> bool:
        return other not in self._names

    __hash__ = str.__hash__


class LazyError(LazyMapping):
    """A failure of an attempt at a state, as templates see it, and the reply that failed."""

    failure: Failure
    attempt: int
    reply: Reply | None

    def __getitem__(self, name: str) -> Any:
        return _ERROR[name](self)

    def keys(self) -> Iterable[str]:
        """Return the members' names."""
        return _ERROR

    def in_context(self) -> dict[str, Any]:
        """Return the failure, whose type compares in its own way."""
        return {**self.data(), "type": ExceptionName.of(self.failure)}


_ERROR: Final[Mapping[str, Callable[[LazyError], Any]]] = {
    "name": lambda error: error.failure.name,
    "message": lambda error: error.failure.message,
    "type": lambda error: _type_of(error.failure),
    "state": lambda error: error.failure.state,
    "attempt": lambda error: error.attempt,
    "reply": lambda error: None if error.reply is None else {"content": error.reply.content, "text": error.reply.text},
}


class LazyThreads(LazyMapping):
    """The messages of threads by their names."""

    _threads: Mapping[str, Log[Message]]

    def __getitem__(self, name: str) -> Any:
        return LazyMessages(self._threads[name])

    def keys(self) -> Iterable[str]:
        """Return the members' names."""
        return self._threads


class LazyMessages(Lazy):
    """The messages of a thread."""

    _messages: Log[Message]

    def __bool__(self) -> bool:
        return bool(self._messages)

    def data(self) -> list[MessageView]:
        """Return the messages as plain data."""
        return list(map(_see_message, self._messages))


class LazyOutputs(LazyMapping):
    """The outputs of states by their names."""

    _outputs: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self._outputs[name]

    def keys(self) -> Iterable[str]:
        """Return the members' names."""
        return self._outputs


def _see_call(call: ToolCall) -> CallView:
    return {"id": call.id, "name": call.name, "arguments": parse_leniently(call.arguments)}


def _see_message(message: Message) -> MessageView:
    return {
        "role": message.role,
        "content": parts_as_openai(message.parts) if message.parts else message.content,
        "tool_calls": list(map(_see_call, message.tool_calls)),
        "tool_call_id": message.tool_call_id,
        "name": message.name,
    }


def _see_result(
    call: ToolCall, answer: Value | Failure, *, type_of: Callable[[Failure], str | None] | None = None
) -> ResultView:
    if isinstance(answer, Failure):
        error: FailureView = {"name": answer.name, "message": answer.message, "type": (type_of or _type_of)(answer)}
        return {**_see_call(call), "value": None, "error": error}
    return {**_see_call(call), "value": answer.value, "error": None}


def _type_of(failure: Failure) -> str | None:
    return failure.types[0] if failure.types else None


def see_failure(failure: Failure) -> StateFailureView:
    """Return a failure of a state as plain data."""
    return {
        "name": failure.name,
        "message": failure.message,
        "type": _type_of(failure),
        "state": failure.state,
    }
