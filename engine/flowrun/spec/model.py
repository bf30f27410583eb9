"""The content of a spec as frozen data. Nothing here reads files, renders templates or decides anything.

The field names are the spec language's own; ``schemas/flow.v1.schema.json`` describes each of them, and a test
keeps the two property sets equal. Templates stay unevaluated text until ``graph.compile_graph``.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

JSON = Any
"""A JSON value: None, bool, int, float, str, list or a mapping with string keys."""

Template = Any
"""A JSON value in which any string may be a Jinja2 template."""

MAIN = "main"
"""The default thread of a state."""

DEFAULT_MODEL = "default"
"""The key of ``model:`` in ``Spec.models``."""


class Seconds(float):
    """A duration. Specs write it as a number of seconds, or as a number and a unit: 500ms, 10s, 5m, 2h, 1d."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base class of all parts of a spec."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of a backend that are known before it is started.

    Attributes:
        vllm_settings: its engine arguments, sampling parameters and parsers are vLLM's, so any other name is an error.
        in_process: it loads the model on this machine, onto its devices.
        raw_text: its replies have the model's raw text, which vLLM's parsers can read again.
    """

    vllm_settings: bool = False
    in_process: bool = False
    raw_text: bool = False


CAPABILITIES: Final[Mapping[str, Capabilities]] = {
    "vllm": Capabilities(vllm_settings=True, in_process=True, raw_text=True),
    "openai": Capabilities(),
    "scripted": Capabilities(),
}
"""The capabilities of each backend, by the name that a spec gives it."""


class Model(_Part, frozen=True, kw_only=True):
    """A model and how to run it. ``engine`` and ``sampling`` use vLLM's names."""

    backend: Literal["vllm", "openai", "scripted"] = "vllm"
    name: str
    revision: str | None = None
    engine: Mapping[str, JSON] = {}
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    chat_template: str | None = None
    chat_template_kwargs: Mapping[str, JSON] = {}
    sampling: Mapping[str, JSON] = {}
    base_url: str | None = None
    api_key: str | None = None
    headers: Mapping[str, str] = {}
    timeout: Seconds | None = None

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the model's backend."""
        return CAPABILITIES[self.backend]


class Tool(_Part, frozen=True, kw_only=True):
    """A tool that the model may call. ``entrypoint`` is ``module.path:function``."""

    entrypoint: str
    description: str | None = None
    parameters: Mapping[str, JSON] | None = None
    timeout: Seconds = Seconds(60)
    idempotent: bool = False
    strict: bool = False


class CallTemplate(_Part, frozen=True, kw_only=True):
    """A tool call in a message of the spec (a few-shot example); its arguments may contain templates."""

    name: str
    arguments: Mapping[str, Template] = {}
    id: str | None = None


class MessageTemplate(_Part, frozen=True, kw_only=True):
    """A message with templates. A tool message without ``tool_call_id`` answers the oldest call without an answer."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None = None
    tool_calls: tuple[CallTemplate, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None


class Route(_Part, frozen=True, kw_only=True):
    """A route from a state to the state ``to``. Without ``when`` it always matches."""

    when: str | None = None
    to: str


class Retry(_Part, frozen=True, kw_only=True):
    """The retry policy of a state: exponential backoff with jitter. ``max_attempts`` includes the first attempt."""

    max_attempts: int = 3
    errors: tuple[str, ...] = ()
    delay: Seconds = Seconds(1)
    backoff: float = 2.0
    max_delay: Seconds = Seconds(60)
    jitter: float = 0.1


class Catch(_Part, frozen=True, kw_only=True):
    """A handler of a state's failures: the run continues in the state ``to``.

    Without ``errors`` it catches all failures; ``tool.*`` catches a family of them.
    """

    errors: tuple[str, ...] = ()
    to: str


class Limits(_Part, frozen=True, kw_only=True):
    """The limits of a run and its sub-flows. A round is one request to a model; a step is one state visit."""

    max_rounds: int = 32
    max_steps: int = 1000
    timeout: Seconds | None = None


class ResponseFormat(_Part, frozen=True, kw_only=True):
    """The format of a reply: any JSON object, or a JSON value that matches ``schema``."""

    type: Literal["json_object", "json_schema"] = "json_schema"
    schema: Mapping[str, JSON] | None = None
    strict: bool = True


class _State(_Part, frozen=True, kw_only=True, tag_field="type"):
    """The fields that all states but ``end`` share. ``next`` becomes a route without ``when``."""

    set: Mapping[str, Template] = {}
    routes: tuple[Route, ...] = ()
    retry: Retry | None = None
    timeout: Seconds | None = None
    catch: tuple[Catch, ...] = ()
    description: str | None = None


class ChatState(_State, frozen=True, kw_only=True, tag="chat"):
    """A state that asks the model for one reply on a thread. ``tools`` None offers all tools of the spec."""

    thread: str = MAIN
    messages: tuple[MessageTemplate, ...] = ()
    model: str = DEFAULT_MODEL
    tools: tuple[str, ...] | None = None
    tool_choice: str = "auto"
    sampling: Mapping[str, JSON] = {}
    response_format: ResponseFormat | None = None


class ToolsState(_State, frozen=True, kw_only=True, tag="tools"):
    """A state that runs the tool calls of the thread's last reply in parallel and appends their results."""

    thread: str = MAIN
    on_error: Literal["return", "raise"] = "return"


class CallState(_State, frozen=True, kw_only=True, tag="call"):
    """A state that calls a Python function directly, not through the model."""

    entrypoint: str
    arguments: Mapping[str, Template] = msgspec.field(default_factory=dict, name="with")
    idempotent: bool = False


class RouteState(_State, frozen=True, kw_only=True, tag="route"):
    """A state that only selects a route."""


class FlowState(_State, frozen=True, kw_only=True, tag="flow"):
    """A state that runs a sub-flow: the file of a spec, or ``#name`` for an entry of ``flows:``."""

    flow: str
    arguments: Mapping[str, Template] = msgspec.field(default_factory=dict, name="with")


class MapState(_State, frozen=True, kw_only=True, tag="map"):
    """A state that runs a sub-flow for each item of a list; the outputs are in the order of the items."""

    flow: str
    for_each: str
    item: str = msgspec.field(default="item", name="as")
    arguments: Mapping[str, Template] = msgspec.field(default_factory=dict, name="with")
    max_concurrency: int | None = None
    on_item_error: Literal["fail", "collect", "skip"] = "fail"


class ParallelBranch(_Part, frozen=True, kw_only=True):
    """One branch of a parallel state."""

    flow: str
    arguments: Mapping[str, Template] = msgspec.field(default_factory=dict, name="with")


class ParallelState(_State, frozen=True, kw_only=True, tag="parallel"):
    """A state that runs several sub-flows at once; its output maps each branch to the branch's output."""

    branches: Mapping[str, ParallelBranch]


class WaitState(_State, frozen=True, kw_only=True, tag="wait"):
    """A state that pauses until a person or a program answers; the answer must match ``schema``."""

    prompt: str
    schema: Mapping[str, JSON] = {}


class EndState(_Part, frozen=True, kw_only=True, tag_field="type", tag="end"):
    """A state that ends the run."""

    status: Literal["succeeded", "failed"] = "succeeded"
    output: Template = None
    description: str | None = None


Working = ChatState | ToolsState | CallState | RouteState | FlowState | MapState | ParallelState | WaitState
State = Working | EndState


class Spec(_Part, frozen=True, kw_only=True):
    """A full flow with its profile merged.

    ``model:`` is the entry ``default`` of ``models``, ``messages:`` the entry ``main`` of ``threads``.
    """

    flowrun: Literal["v1"]
    name: str
    version: str
    description: str | None = None
    inputs: Mapping[str, Mapping[str, JSON]] = {}
    models: Mapping[str, Model] = {}
    sampling: Mapping[str, JSON] = {}
    tools: Mapping[str, Tool] = {}
    threads: Mapping[str, tuple[MessageTemplate, ...]] = {}
    vars: Mapping[str, Template] = {}
    start: str
    states: Mapping[str, State]
    flows: Mapping[str, "Spec"] = {}
    limits: Limits = Limits()

    def add_defaults(self, inputs: Mapping[str, JSON]) -> dict[str, JSON]:
        """Return inputs of the flow, with the defaults of those that are missing."""
        defaults = {name: schema["default"] for name, schema in self.inputs.items() if "default" in schema}
        return {**defaults, **inputs}
