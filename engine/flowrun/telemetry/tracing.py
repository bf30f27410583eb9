"""The spans of runs: run > state > chat or execute_tool, with the runs of sub-flows below the state that starts them.

A span begins when its work does, in the driver's own task, and what is replayed from a journal passes nobody here: so
it is not reported as done anew. A run's trace lives in its driver, and is gone with it.
"""

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from time import perf_counter
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider

from flowrun.core.events import (
    AskModel,
    CallFunction,
    Effect,
    Event,
    Failed,
    Move,
    Notice,
    Outcome,
    Replied,
    Returned,
    Slept,
    StartChild,
    Started,
)
from flowrun.core.messages import Usage
from flowrun.core.trace_context import INJECT
from flowrun.errors import Failure
from flowrun.spec import mask
from flowrun.spec.model import AgentState, Model, Spec
from flowrun.telemetry import conventions as names
from flowrun.telemetry.content import write_json, write_messages, write_reply, write_tools
from flowrun.version import __version__

Attributes = dict[str, Any]

_OF_THE_API: Final = ("opentelemetry.trace", "opentelemetry.metrics")
"""The packages of providers that do nothing, which are there until somebody sets another one."""

_End = Event | type[BaseException] | None
"""How the work of an effect ended: with an event, or an exception that ends the run's task."""

_INPUT: Final = "input"
_OUTPUT: Final = "output"


def find_providers() -> tuple[TracerProvider, MeterProvider] | None:
    """Return the providers of this process; None if neither is set, or they do nothing."""
    providers = trace.get_tracer_provider(), metrics.get_meter_provider()
    if all(type(provider).__module__.startswith(_OF_THE_API) for provider in providers):
        return None
    return providers


class Telemetry:
    """Makes the tracers of flows.

    Args:
        captures: spans have content: messages, arguments, results, and the messages of errors, which quote them.
    """

    def __init__(self, traces: TracerProvider, meters: MeterProvider, *, captures: bool) -> None:
        self.tracer = traces.get_tracer("flowrun", __version__, schema_url=names.SCHEMA_URL)
        self.captures = captures
        meter = meters.get_meter("flowrun", __version__, schema_url=names.SCHEMA_URL)
        self.tokens = meter.create_histogram(
            names.TOKEN_USAGE,
            "{token}",
            "Tokens that models read and wrote.",
            explicit_bucket_boundaries_advisory=names.TOKEN_BUCKETS,
        )
        self.duration = meter.create_histogram(
            names.DURATION,
            "s",
            "Time that requests to models took.",
            explicit_bucket_boundaries_advisory=names.DURATION_BUCKETS,
        )

    def of(self, models: Mapping[str, Model | None], secrets: Mapping[str, str]) -> "FlowTracer":
        """Return the tracer of a flow.

        Args:
            models: by their names; None for one in whose place a backend is used.
            secrets: what no span may hold.
        """
        return FlowTracer(self, models, secrets)


class _ModelAttributes(NamedTuple):
    """What is the same for all requests to a model: the attributes of its spans, and of its two metrics."""

    kind: SpanKind
    name: str
    span: Attributes
    input: Attributes
    output: Attributes


class FlowTracer:
    """The port ``Tracer`` for the runs of a flow and its sub-flows."""

    def __init__(self, telemetry: Telemetry, models: Mapping[str, Model | None], secrets: Mapping[str, str]) -> None:
        self.telemetry = telemetry
        self.models = {name: _describe(name, model, secrets) for name, model in models.items()}
        self.secrets = secrets

    def begin(self, spec: Spec, run: str, *, state: str, step: int, resumed: bool) -> "FlowTrace":
        """Begin the span of a run, below the current one; see ``ports.Tracer``."""
        INJECT.set(_inject)
        return FlowTrace(self, spec, run, state=state, step=step, resumed=resumed)

    def start(self, name: str, attributes: Attributes, parent: Context | None, kind: SpanKind) -> Span:
        """Start a span."""
        return self.telemetry.tracer.start_span(name, parent, kind, attributes)

    def content(self, text: str) -> str:
        """Return a text without secrets."""
        return mask(text, self.secrets)

    def fail(self, span: Span, failure: Failure) -> None:
        """Say on a span that its work failed. The message of a failure may quote what a model or a tool said."""
        span.set_attribute(names.ERROR_TYPE, failure.name)
        message = mask(failure, self.secrets).message if self.telemetry.captures else None
        span.set_status(Status(StatusCode.ERROR, message))


class FlowTrace:
    """The port ``RunTrace``: the span of a run, and that of the state that the run is in."""

    __slots__ = ("_common", "_context", "_flow", "_run_span", "_spec", "_state_context", "_state_span")

    def __init__(self, flow: FlowTracer, spec: Spec, run: str, *, state: str, step: int, resumed: bool) -> None:
        self._flow = flow
        self._spec = spec
        conversation = run.partition(".")[0]  # the top run, of which this may be a child
        self._common: Attributes = {names.CONVERSATION_ID: conversation}
        if conversation != run:
            self._common[names.RUN_ID] = run
        attributes = self._common | {
            names.OPERATION_NAME: names.INVOKE_WORKFLOW,
            names.WORKFLOW_NAME: spec.name,
            names.AGENT_NAME: spec.name,
            names.AGENT_VERSION: spec.version,
        }
        if resumed:
            attributes[names.RUN_RESUMED] = True
        self._run_span = flow.start(f"{names.INVOKE_WORKFLOW} {spec.name}", attributes, None, SpanKind.INTERNAL)
        self._context = self._state_context = trace.set_span_in_context(self._run_span)
        self._state_span: Span | None = None
        if state:
            self._enter(state, step)

    # --- the run and its states ---------------------------------------------------------------------------------------

    def notify(self, notice: Notice) -> None:
        """Begin and end the spans of states; see ``ports.Observer``."""
        moves = notice.moves
        if self._state_span is None and isinstance(notice.event, Started | Slept):
            first, step = (moves[0].state, moves[0].step) if moves else (notice.state, notice.step)
            if first:  # with inputs that are not valid, a run enters no state
                self._enter(first, step)
        for number, move in enumerate(moves, 1):
            self._leave(move)
            if move.how in ("route", "catch"):
                self._enter(move.to, moves[number].step if number < len(moves) else notice.step)

    def end(self, outcome: Outcome | None, status: str) -> None:
        """End the spans of the run, which has ended or is left by its driver; see ``ports.RunTrace``."""
        if self._state_span is not None:
            self._state_span.end()
            self._state_span = None
        self._run_span.set_attribute(names.RUN_STATUS, status)
        if outcome is not None and outcome.error is not None:
            self._flow.fail(self._run_span, outcome.error)
        self._run_span.end()

    def _enter(self, state: str, step: int) -> None:
        declared = self._spec.states[state]
        attributes = {
            **self._common,
            names.STATE_NAME: state,
            names.STATE_KIND: declared.type,
            names.STATE_STEP: step,
        }
        name = f"state {state}"
        if isinstance(declared, AgentState):
            name = f"{names.INVOKE_AGENT} {state}"
            attributes |= {names.OPERATION_NAME: names.INVOKE_AGENT, names.AGENT_NAME: state}
        span = self._state_span = self._flow.start(name, attributes, self._context, SpanKind.INTERNAL)
        self._state_context = trace.set_span_in_context(span, self._context)

    def _leave(self, move: Move) -> None:
        span = self._state_span
        if span is None:
            return
        span.set_attribute(names.STATE_EXIT, move.how)  # where to, says the span of the next state
        if move.failure is not None:
            self._flow.fail(span, move.failure)
        span.end()
        self._state_span, self._state_context = None, self._context

    # --- effects ------------------------------------------------------------------------------------------------------

    def perform(self, effect: Effect, work: Awaitable[Event | None], /) -> Awaitable[Event | None]:
        """Return the work of an effect within its span, which is the current one for all that the work calls."""
        match effect:
            case AskModel():
                return self._chat(effect, work)
            case CallFunction():
                return self._execute_tool(effect, work)
            case StartChild():
                return self._below_state(work)
            case _:
                return work

    async def _below_state(self, work: Awaitable[Event | None]) -> Event | None:
        token = context.attach(self._state_context)
        try:
            return await work
        finally:
            context.detach(token)

    async def _chat(self, effect: AskModel, work: Awaitable[Event | None]) -> Event | None:
        model = self._flow.models[effect.model]
        attributes = self._common | model.span | mask(_requested(effect), self._flow.secrets)
        span = self._flow.start(model.name, attributes, self._state_context, model.kind)
        if self._captures(span):
            span.set_attribute(names.INPUT_MESSAGES, self._flow.content(write_messages(effect.messages)))
            if effect.tools:
                span.set_attribute(names.TOOL_DEFINITIONS, self._flow.content(write_tools(effect.tools)))
        return await self._within(span, work, partial(self._end_chat, span, model, perf_counter()))

    def _end_chat(self, span: Span, model: _ModelAttributes, began: float, end: _End) -> None:
        seconds = perf_counter() - began
        telemetry, measured = self._flow.telemetry, model.span
        if isinstance(end, Replied):
            reply = end.reply
            if span.is_recording():
                reason = self._flow.content(reply.finish_reason)
                span.set_attributes({names.FINISH_REASONS: (reason,), **_used(reply.usage)})
            if self._captures(span):
                span.set_attribute(names.OUTPUT_MESSAGES, self._flow.content(write_reply(reply)))
            if reply.usage.prompt_tokens or reply.usage.completion_tokens:  # else the backend does not know them
                telemetry.tokens.record(reply.usage.prompt_tokens, model.input)
                telemetry.tokens.record(reply.usage.completion_tokens, model.output)
        else:
            measured = {**model.span, names.ERROR_TYPE: self._end_badly(span, end)}
        telemetry.duration.record(seconds, measured)
        span.end()

    async def _execute_tool(self, effect: CallFunction, work: Awaitable[Event | None]) -> Event | None:
        name = effect.tool or effect.entrypoint
        attributes = {
            **self._common,
            names.OPERATION_NAME: names.EXECUTE_TOOL,
            names.TOOL_NAME: name,
            names.TOOL_TYPE: "function",
        }
        if effect.call_id is not None:
            attributes[names.TOOL_CALL_ID] = self._flow.content(effect.call_id)
        span = self._flow.start(f"{names.EXECUTE_TOOL} {name}", attributes, self._state_context, SpanKind.INTERNAL)
        if self._captures(span):
            span.set_attribute(names.TOOL_ARGUMENTS, self._flow.content(write_json(effect.arguments)))
        return await self._within(span, work, partial(self._end_tool, span))

    def _end_tool(self, span: Span, end: _End) -> None:
        if not isinstance(end, Returned):
            self._end_badly(span, end)
        elif self._captures(span):
            span.set_attribute(names.TOOL_RESULT, self._flow.content(write_json(end.value)))
        span.end()

    async def _within(
        self, span: Span, work: Awaitable[Event | None], conclude: Callable[[_End], None]
    ) -> Event | None:
        """Do the work of an effect with a span as the current one, and conclude the span however the work ends."""
        end: _End = None
        token = context.attach(trace.set_span_in_context(span, self._state_context))
        try:
            end = event = await work
            return event
        except BaseException as exc:
            end = type(exc)
            raise
        finally:
            context.detach(token)
            conclude(end)

    def _captures(self, span: Span) -> bool:
        return self._flow.telemetry.captures and span.is_recording()

    def _end_badly(self, span: Span, end: _End) -> str:
        """Say on a span why there is no result, and return the type of the error."""
        if isinstance(end, Failed):
            self._flow.fail(span, end.failure)
            return end.failure.name
        kind = names.CANCELLED
        if isinstance(end, type) and not issubclass(end, CancelledError):
            kind = end.__name__
        span.set_attribute(names.ERROR_TYPE, kind)
        span.set_status(StatusCode.ERROR)
        return kind


def _inject() -> Mapping[str, str]:
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


def _describe(name: str, model: Model | None, secrets: Mapping[str, str]) -> _ModelAttributes:
    """Return the attributes of a model. Of its address only host and port are said: the rest may be secret."""
    attributes: Attributes = {
        names.OPERATION_NAME: names.CHAT,
        names.PROVIDER_NAME: "custom" if model is None else model.backend,
        names.REQUEST_MODEL: name if model is None else model.name,
    }
    if model is not None and model.base_url:
        attributes |= _server(model.base_url)
    attributes = mask(attributes, secrets)
    in_process = model is not None and model.capabilities.in_process
    return _ModelAttributes(
        SpanKind.INTERNAL if in_process else SpanKind.CLIENT,
        f"{names.CHAT} {attributes[names.REQUEST_MODEL]}",
        attributes,
        attributes | {names.TOKEN_TYPE: _INPUT},
        attributes | {names.TOKEN_TYPE: _OUTPUT},
    )


def _server(base_url: str) -> Attributes:
    try:
        url = urlsplit(base_url)
        host, port = url.hostname, url.port
    except ValueError:  # the backend says so when it starts
        return {}
    if not host:
        return {}
    return {names.SERVER_ADDRESS: host, names.SERVER_PORT: port or (443 if url.scheme == "https" else 80)}


def _requested(effect: AskModel) -> Attributes:
    """Return the attributes of a request's sampling and of the form of its reply."""
    found: Attributes = {}
    for name, value in effect.sampling.items():
        if name in names.SAMPLING and isinstance(value, int | float):
            found[names.SAMPLING[name]] = value
        elif name == "stop" and value:
            found[names.STOP_SEQUENCES] = [value] if isinstance(value, str) else value
    if effect.response_format is not None:
        found[names.OUTPUT_TYPE] = "json" if effect.response_format.type.startswith("json") else "text"
    return found


def _used(usage: Usage) -> Attributes:
    """Return the attributes of the tokens of a round, if its backend knows them."""
    used: Attributes = {}
    if usage.prompt_tokens or usage.completion_tokens:
        used |= {names.USAGE_INPUT: usage.prompt_tokens, names.USAGE_OUTPUT: usage.completion_tokens}
    if usage.cached_tokens:
        used[names.USAGE_CACHE_READ] = usage.cached_tokens
    return used
