"""What templates see of a run, made when a template asks for it and not before."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from flowrun.core.messages import Message, Reply, ToolCall
from flowrun.core.strict_json import parse_leniently
from flowrun.errors import Failure
from flowrun.spec.model import JSON
from flowrun.templates import LazyMapping


class Value(msgspec.Struct, frozen=True, gc=False):
    """A value that a function returned, told apart from a failure."""

    value: JSON


class LazyReply(LazyMapping):
    """A reply on a thread; arguments of its calls that are not JSON stay strings."""

    __slots__ = ("_calls", "_data", "_message", "_parsed", "_reply", "thread")

    def __init__(self, thread: str, message: Message, reply: Reply, parsed: JSON) -> None:
        self.thread = thread
        self._message = message
        self._reply = reply
        self._calls: list[JSON] | None = None
        self._data: dict[str, JSON] | None = None
        self._parsed = parsed

    def __getitem__(self, name: str) -> JSON:
        return _REPLY[name](self)

    def __iter__(self) -> Iterator[str]:
        return iter(_REPLY)

    def __len__(self) -> int:
        return len(_REPLY)

    def data(self) -> dict[str, JSON]:
        """Return the reply as plain data, made once."""
        if self._data is None:
            self._data = super().data()
        return self._data

    def _tool_calls(self) -> list[JSON]:
        if self._calls is None:
            self._calls = [see_call(call) for call in self._message.tool_calls]
        return self._calls


def see_call(call: ToolCall) -> dict[str, JSON]:
    """Return a call as templates see it."""
    return {"id": call.id, "name": call.name, "arguments": parse_leniently(call.arguments)}


_REPLY: Final[Mapping[str, Callable[[LazyReply], JSON]]] = {
    "content": lambda reply: reply._message.content,
    "reasoning": lambda reply: reply._message.reasoning,
    "tool_calls": LazyReply._tool_calls,
    "parsed": lambda reply: reply._parsed,
    "finish_reason": lambda reply: reply._reply.finish_reason,
    "usage": lambda reply: msgspec.structs.asdict(reply._reply.usage),
}


class LazyResults:
    """The results of a tools state: its calls, each with the value or failure that answered it."""

    __slots__ = ("_data", "_pairs")

    def __init__(self, pairs: Sequence[tuple[ToolCall, Value | Failure]]) -> None:
        self._pairs = tuple(pairs)
        self._data: list[dict[str, JSON]] | None = None

    def data(self) -> list[dict[str, JSON]]:
        """Return the results as plain data, made once."""
        if self._data is None:
            self._data = [_see_result(call, answer) for call, answer in self._pairs]
        return self._data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LazyResults) and self._pairs == other._pairs

    def __hash__(self) -> int:
        return hash(self._pairs)


def _see_result(call: ToolCall, answer: Value | Failure) -> dict[str, JSON]:
    if isinstance(answer, Failure):
        return {**see_call(call), "value": None, "error": {"name": answer.name, "message": answer.message}}
    return {**see_call(call), "value": answer.value, "error": None}


class _LazyOutputs(LazyMapping):
    """The outputs of states by their names."""

    __slots__ = ("_outputs",)

    def __init__(self, outputs: Mapping[str, Any]) -> None:
        self._outputs = outputs

    def __getitem__(self, name: str) -> JSON:
        output = self._outputs[name]
        return output.data() if isinstance(output, LazyResults) else output

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)


def see_outputs(outputs: Mapping[str, Any]) -> Mapping[str, JSON]:
    """Return the outputs of states as templates see them."""
    return _LazyOutputs(outputs)


def see_error(failure: Failure) -> dict[str, JSON]:
    """Return a caught failure as templates see it."""
    return {"name": failure.name, "message": failure.message, "state": failure.state}


def see_run(run_id: str, state: str, step: int, rounds: int, attempt: int) -> dict[str, JSON]:
    """Return the run itself as templates see it."""
    return {"id": run_id, "state": state, "step": step, "rounds": rounds, "attempt": attempt}
