"""The values that templates see of a run. Each is built only when a template reads it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from flowrun.core.messages import Message, Reply, ToolCall
from flowrun.core.strict_json import parse_leniently
from flowrun.errors import Failure
from flowrun.spec.model import JSON
from flowrun.templates import Lazy, LazyMapping


class Value(msgspec.Struct, frozen=True, gc=False):
    """A value that a function returned, wrapped so that it differs from a failure."""

    value: JSON


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
    "reasoning": lambda reply: reply.message.reasoning,
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

    def data(self) -> list[dict[str, JSON]]:
        """Return the calls as plain data."""
        return list(map(_see_call, self._calls))


class LazyResults(Lazy):
    """The results of a tools state: its calls, each with the value or failure that answered it."""

    _pairs: Sequence[tuple[ToolCall, Value | Failure]]
    _data: list[dict[str, JSON]] | None = None

    def __bool__(self) -> bool:
        return bool(self._pairs)

    def data(self) -> list[dict[str, JSON]]:
        """Return the results as plain data, built once."""
        if self._data is None:
            self._data = [_see_result(call, answer) for call, answer in self._pairs]
        return self._data


class LazyOutputs(LazyMapping):
    """The outputs of states by their names."""

    _outputs: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self._outputs[name]

    def keys(self) -> Iterable[str]:
        """Return the members' names."""
        return self._outputs


def _see_call(call: ToolCall) -> dict[str, JSON]:
    return {"id": call.id, "name": call.name, "arguments": parse_leniently(call.arguments)}


def _see_result(call: ToolCall, answer: Value | Failure) -> dict[str, JSON]:
    if isinstance(answer, Failure):
        return {**_see_call(call), "value": None, "error": {"name": answer.name, "message": answer.message}}
    return {**_see_call(call), "value": answer.value, "error": None}


def see_error(failure: Failure) -> dict[str, JSON]:
    """Return a caught failure as templates see it."""
    return {"name": failure.name, "message": failure.message, "state": failure.state}
