"""The result of driving a run, and the resolutions of a call that a crash left in doubt. Data only."""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec

from flowrun.core.events import CallFunction, Outcome, RequestInput
from flowrun.core.machine import Run
from flowrun.core.messages import Message, Usage, as_openai
from flowrun.durations import spell_moment
from flowrun.errors import Bug, Failure, FlowrunError
from flowrun.runtime.origin import Origin
from flowrun.runtime.token_rows import token_rows
from flowrun.spec import mask, mask_excerpt
from flowrun.spec.model import JSON, MAIN
from flowrun.spec.strict_json import parse_json

_log = logging.getLogger(__name__)

Status = Literal["succeeded", "failed", "cancelled", "waiting", "sleeping", "needs_attention"]


class InputRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A question that a run waits for.

    Attributes:
        id: names the question in ``Session.answer``.
        run: the run that asks: the run itself or one of its children.
        schema: the JSON Schema that the answer must match.
        call: the tool call that the question is about: its ``id``, ``name``, ``arguments``, and those that are
            ``hidden`` from the model; None if it is about none.
    """

    id: str
    run: str
    state: str
    prompt: str
    schema: Mapping[str, JSON]
    call: Mapping[str, JSON] | None = None


def as_request(effect: RequestInput) -> InputRequest:
    """Return the question of an effect."""
    return InputRequest(
        id=effect.id,
        run=effect.run,
        state=effect.state,
        prompt=effect.prompt,
        schema=effect.schema,
        call=effect.call,
    )


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """A run that has ended, waits for answers, sleeps, or needs attention.

    Attributes:
        run: the state of the run, with those of its parts that the properties do not have.
        waiting: the questions of the run and its children that have no answer yet.
        in_doubt: the calls of the run and its children that were started before a crash and have no result.
        wakes: when a run that sleeps goes on, in seconds since the epoch.
        row: in a batch of ``Session.batch``, the number of the row, from 0.
        began: when the run began, in seconds since the epoch; 0: it did not begin.
        ended: when it ended; None: it has not.
        origin: the flow with its version, models, sampling and tools.
    """

    run: Run
    waiting: tuple[RequestInput, ...] = ()
    in_doubt: tuple[CallFunction, ...] = ()
    wakes: float | None = None
    row: int | None = None
    began: float = 0.0
    ended: float | None = None
    origin: Origin | None = None

    @property
    def run_id(self) -> str:
        """Return the id of the run."""
        return self.run.id

    @property
    def status(self) -> Status:
        """Return how the run ended; ``waiting``, ``sleeping`` or ``needs_attention`` if it has not ended."""
        if self.run.outcome is not None:
            return self.run.outcome.status
        if self.in_doubt:
            return "needs_attention"
        return "sleeping" if self.wakes is not None and not self.waiting else "waiting"

    @property
    def inputs(self) -> Mapping[str, JSON]:
        """Return the inputs, with the defaults of the spec."""
        return self.run.inputs

    @property
    def output(self) -> JSON:
        """Return the output of the end state; None if the run did not succeed."""
        return None if self.run.outcome is None else self.run.outcome.output

    @property
    def error(self) -> Failure | None:
        """Return why the run failed, with its ``name``, ``message`` and ``state``."""
        return None if self.run.outcome is None else self.run.outcome.error

    @property
    def pending(self) -> tuple[InputRequest, ...]:
        """Return the questions that the run waits for."""
        return tuple(map(as_request, self.waiting))

    @property
    def path(self) -> list[str]:
        """Return the states that the run visited, in order."""
        return list(self.run.path)

    @property
    def rounds(self) -> int:
        """Return how many replies of models the run has used."""
        return self.run.rounds

    @property
    def usage(self) -> Usage:
        """Return the tokens that the run has used."""
        return self.run.usage

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Return the messages of the thread ``main``, in the form of the OpenAI chat API."""
        return [as_openai(message) for message in self.run.threads.get(MAIN, ())]

    @property
    def threads(self) -> dict[str, list[dict[str, Any]]]:
        """Return the messages of all threads by their names, in the form of the OpenAI chat API."""
        return {name: [as_openai(message) for message in log] for name, log in self.run.threads.items()}

    def to_dict(self, *, messages: bool = True) -> dict[str, Any]:
        """Return the record of the run as JSON data, as ``flowrun --json`` prints it.

        ``schemas/result.v1.schema.json`` describes it.

        Args:
            messages: include the messages.
        """
        data: dict[str, Any] = {
            "run": self.run_id,
            "status": self.status,
            "inputs": self.inputs,
            "output": self.output,
            "error": None if self.error is None else msgspec.to_builtins(self.error),
            "path": self.path,
            "rounds": self.rounds,
            "usage": msgspec.to_builtins(self.usage),
        }
        if self.began:
            data["began"] = spell_moment(self.began, precision="milliseconds")
        if self.ended is not None:
            data["ended"] = spell_moment(self.ended, precision="milliseconds")
            data["seconds"] = round(max(0.0, self.ended - self.began), 3)
        if self.origin is not None:
            data |= self.origin.data
        if messages:
            threads = {name: [_recorded(one) for one in log] for name, log in self.run.threads.items()}
            data["messages"] = threads.pop(MAIN, [])
            if threads:
                data["threads"] = threads
        if len(self.run.replies):
            rows = token_rows(self.run_id, self.run.replies)
            data |= {"masked": True} if rows is None else {"tokens": rows}
        if self.waiting:
            data["waiting"] = [
                {
                    "id": ask.id,
                    "run": ask.run,
                    "state": ask.state,
                    "prompt": ask.prompt,
                    "schema": ask.schema,
                    **({} if ask.call is None else {"call": ask.call}),
                }
                for ask in self.waiting
            ]
        if self.wakes is not None:
            data["wakes"] = spell_moment(self.wakes)
        if self.in_doubt:
            data["doubtful"] = [
                {
                    "run": call.run,
                    "state": call.state,
                    "call": call.key,
                    "entrypoint": call.entrypoint,
                    "arguments": call.arguments,
                }
                for call in self.in_doubt
            ]
        return data

    def raise_for_status(self) -> "RunResult":
        """Return this result if the run succeeded.

        Raises:
            RunFailed: the run failed or was cancelled.
            RunNotFinished: the run has not ended.
        """
        match self.status:
            case "succeeded":
                return self
            case "failed" | "cancelled":
                raise RunFailed(self)
            case _:
                raise RunNotFinished(self)


def _recorded(message: Message) -> dict[str, Any]:
    """Return a message as records have it: in the form of the OpenAI chat API, but for the arguments of calls.

    They are mappings, as chat templates want them; what is no JSON object stays the text that the model wrote.
    """
    data = as_openai(message)
    for call in data.get("tool_calls", ()):
        call["function"]["arguments"] = _mapping(call["function"]["arguments"])
    return data


def _mapping(arguments: str) -> JSON:
    try:
        value = parse_json(arguments) if arguments.strip() else {}
    except ValueError:
        return arguments
    return value if isinstance(value, dict) else arguments


class RunFailed(FlowrunError):
    """A run failed or was cancelled; ``result`` is its result."""

    def __init__(self, result: RunResult) -> None:
        self.result = result
        error = result.error
        where = f" in state {error.state}" if error is not None and error.state else ""
        what = f"{error.name}{where}: {error.message}" if error is not None else result.status
        super().__init__(f"run {result.run_id}: {what}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.result,)


class RunNotFinished(FlowrunError):
    """A run waits for an answer, sleeps or needs attention; ``result`` is its result so far."""

    def __init__(self, result: RunResult) -> None:
        self.result = result
        asks = "; ".join(f"state {ask.state} asks: {ask.prompt}" for ask in result.pending)
        calls = "; ".join(f"the call {call.key} is in doubt" for call in result.in_doubt)
        sleeps = "" if result.wakes is None else f"it sleeps until {spell_moment(result.wakes)}"
        super().__init__(f"run {result.run_id} has not ended: {'; '.join(filter(None, (asks, calls, sleeps)))}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.result,)


def failed_result(run_id: str, failure: Failure, origin: Origin | None = None) -> RunResult:
    """Return the result of a run that failed before its first state."""
    run = Run(id=run_id, status="failed", outcome=Outcome(status="failed", error=failure))
    return RunResult(run=run, origin=origin)


def cancelled_result(run_id: str, reason: str, origin: Origin | None = None) -> RunResult:
    """Return the result of a run that was cancelled before its first state."""
    error = Failure(name="run.cancelled", message=reason)
    run = Run(id=run_id, status="cancelled", outcome=Outcome(status="cancelled", error=error))
    return RunResult(run=run, origin=origin)


async def guard(
    name: str, driving: Awaitable[RunResult], *, run_id: str = "", origin: Origin | None = None
) -> RunResult:
    """Return the result of a run in a batch; a bug of flowrun is a failure of this run, and stops no other.

    Args:
        name: names the run in the log, such as ``row 2``.

    Raises:
        FlowrunError: an error that concerns more than this run.
    """
    try:
        return await driving
    except Exception as exc:
        if isinstance(exc, FlowrunError) and not isinstance(exc, Bug):
            raise
        _log.error("%s: a bug in flowrun; please report it", name, exc_info=exc)
        return failed_result(run_id, Failure(name="flowrun.bug", message=f"{type(exc).__name__}: {exc}"), origin)


class AssumeDone(NamedTuple):
    """The resolution that an in-doubt call was made, and returned ``value``."""

    value: JSON = None


class CallAgain(NamedTuple):
    """The resolution that an in-doubt call is made again, whether it was made or not."""


Resolve = Callable[[CallFunction], AssumeDone | CallAgain | None]
"""A callback that resolves an in-doubt call; None leaves it in doubt."""


_ENCODERS: Final = {indent: json.JSONEncoder(ensure_ascii=False, indent=indent) for indent in (None, 2)}
"""Made before functions run, which may replace ``json.dumps``."""


def encode_json(value: JSON, *, indent: int | None = None) -> str:
    """Return a value as JSON text for stdout.

    Args:
        indent: None for one line, or 2.
    """
    return _ENCODERS[indent].encode(value)


def mask_result(result: Mapping[str, Any], secrets: Mapping[str, str]) -> dict[str, Any]:
    """Return the data of a result without secrets, for files and people; what names it and its figures stay."""
    if not secrets:
        return dict(result)
    masked = {name: value if name in _NOT_SAID else mask(value, secrets) for name, value in result.items()}
    if (error := result.get("error")) is not None:
        masked["error"] = {**error, "message": mask_excerpt(error["message"], secrets)}
    return masked if masked == result else {**masked, "masked": True}


_NOT_SAID: Final = frozenset(
    {
        *("id", "row", "sample", "seed", "run", "status", "rounds", "usage", "began", "ended", "seconds"),
        *("flow", "models", "sampling", "tools", "tokens", "masked"),
    }
)
"""The members of a result that no model, tool or server wrote; those of ``Origin`` are masked already."""


def answer_text(output: JSON, *, indent: int | None = 2) -> str | None:
    """Return an output as text for people: itself or its only member if that is a text; else its JSON."""
    if isinstance(output, dict) and len(output) == 1:
        (output,) = output.values()
    if output is None or isinstance(output, str):
        return output
    return encode_json(output, indent=indent)
