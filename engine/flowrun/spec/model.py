"""The content of a spec as frozen data. Nothing here reads files, renders templates or decides anything.

The field names are the spec language's own; ``schemas/flow.v1.schema.json`` describes each of them, and a test
keeps the two property sets equal. Templates stay unevaluated text until ``graph.compile_graph``.
"""

import enum
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec

from flowrun.durations import spell_duration

JSON = Any
"""A JSON value: None, bool, int, float, str, list or a mapping with string keys."""


class Holds(enum.Enum):
    """The role of a property's value. ``parts.parts_of`` finds all values of a role, so each is checked and used."""

    TEMPLATE = "template"
    EXPRESSION = "expression"
    SCHEMA = "schema"
    ENTRYPOINT = "entrypoint"
    FLOW = "flow"
    THREAD = "thread"
    MODEL = "model"
    TOOL = "tool"


Template = Annotated[Any, Holds.TEMPLATE]
"""A JSON value in which any string may be a Jinja2 template."""

TextTemplate = Annotated[str, Holds.TEMPLATE]
Expression = Annotated[str, Holds.EXPRESSION]
"""A Jinja2 expression without braces."""

Schema = Annotated[Mapping[str, JSON], Holds.SCHEMA]
"""A JSON Schema."""

Entrypoint = Annotated[str, Holds.ENTRYPOINT]
"""A Python function, as ``module.path:function``."""

FlowReference = Annotated[str, Holds.FLOW]
"""A sub-flow: the file of a spec, or ``#name`` for an entry of ``flows:``. Its struct has ``arguments`` too."""

ThreadName = Annotated[str, Holds.THREAD]
ModelName = Annotated[str, Holds.MODEL, Holds.TEMPLATE]
"""The name of a model, or one template that gives it."""

ToolName = Annotated[str, Holds.TOOL]

CHOICES: Final = ("auto", "required", "none")
"""The values of ``tool_choice`` that are no tool's name."""


def is_template(value: Any) -> bool:
    """Return whether a value that may be a name, or a template that gives one, is a template: names have no braces."""
    return isinstance(value, str) and "{" in value


def has_template(text: str) -> bool:
    """Return whether a text holds Jinja2 syntax, so that only a run knows its value."""
    return "{{" in text or "{%" in text or "{#" in text


MAIN = "main"
"""The default thread of a state."""

DEFAULT_MODEL = "default"
"""The key of ``model:`` in ``Spec.models``."""


Isolation = Literal["thread", "process"]
"""Where a function runs: in a thread of this process, or in a worker process."""


class Duration:
    """A duration in a place where a template may give it: ``Seconds`` or ``DurationTemplate``."""

    __slots__ = ()


class Seconds(float, Duration):
    """A duration. Specs write it as a number of seconds, or as a number and a unit: 500ms, 10s, 5m, 2h, 1d."""


class DurationTemplate(str, Duration):
    """The text of a template that gives a number of seconds, or a duration as specs write it."""

    __slots__ = ()

    @property
    def text(self) -> str:
        """The text as a plain string."""
        return str.__str__(self)


TemplatedDuration = Annotated[Duration, Holds.TEMPLATE]


class Size(int):
    """A number of bytes. Specs write it as a whole number, or as one and a unit: 500, 32KB, 1MB; a KB is 1,000."""


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """The base class of all parts of a spec. Unknown keys are those that the schema allows: they begin with ``x-``."""

    def names_in(self, field: str) -> frozenset[str]:
        """Return the names that templates of a property see besides the usual ones."""
        return frozenset()


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
"""The capabilities of each backend of flowrun, by the name that a spec gives it."""

BACKENDS_GROUP: Final = "flowrun.backends"
"""The group of entry points by which an installed package brings a backend. Provisional: the port still grows."""


class Model(_Part, frozen=True, kw_only=True):
    """A model and how to run it. ``engine`` and ``sampling`` use vLLM's names.

    ``adapter`` is a LoRA adapter, by its folder or its name on the hub. ``reasoning`` says whether the reasoning of a
    reply stays in the thread, and so goes back to the model.
    """

    backend: str = "vllm"
    name: str
    revision: str | None = None
    adapter: str | None = None
    engine: Mapping[str, JSON] = {}
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    reasoning: Literal["keep", "drop"] = "keep"
    chat_template: str | None = None
    chat_template_kwargs: Mapping[str, JSON] = {}
    sampling: Mapping[str, JSON] = {}
    base_url: str | None = None
    api_key: str | None = None
    headers: Mapping[str, str] = {}
    timeout: Seconds | None = None
    max_requests_per_minute: int | None = None

    def __repr__(self) -> str:  # keys and headers may be secrets, and end up in tracebacks and logs
        return f"Model({self.backend}, {self.name})"

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the model's backend; none are known of one that another package brings."""
        return CAPABILITIES.get(self.backend, Capabilities())


MAX_OUTPUT: Final = Size(64_000)
"""The ``max_output`` of a tool that sets none, and of calls of what is no tool."""


MCP: Final = "mcp:"
"""What the entrypoints of the tools of MCP servers begin with: ``mcp:SERVER/TOOL``."""


class Approval(_Part, frozen=True, kw_only=True):
    """Which calls of a tool need a person's consent: those for which ``when`` holds, or all."""

    when: Expression | None = None
    prompt: TextTemplate | None = None
    timeout: Seconds | None = None


class Tool(_Part, frozen=True, kw_only=True):
    """A tool that the model may call: a Python function, or, without ``entrypoint``, only a form of words.

    The entrypoint of a tool of an MCP server begins with ``MCP``.

    Attributes:
        result: what a tool without a function answers; the value of a call is then its arguments.
        arguments: the arguments that the spec gives; the model neither sees nor gives them.
        approve: whether a person is asked before a call is made.
        max_output: how much one call may add to the thread.
        max_concurrency: the number of its calls that run at once in a process.
    """

    entrypoint: Entrypoint | None = None
    result: TextTemplate | None = None
    description: str | None = None
    parameters: Schema | None = None
    arguments: Mapping[str, Template] = msgspec.field(default_factory=dict, name="with")
    approve: Approval | None = None
    timeout: Seconds = Seconds(60)
    max_output: Size = MAX_OUTPUT
    max_concurrency: int | None = None
    idempotent: bool = False
    strict: bool = False
    isolation: Isolation | None = None

    def names_in(self, field: str) -> frozenset[str]:
        """Return the names that templates of a property see besides the usual ones; what is hidden knows no call."""
        return frozenset(() if field == "with" else {"call"})


class McpTool(_Part, frozen=True, kw_only=True):
    """How a tool of an MCP server is offered: under which name, and what a ``Tool`` may say besides.

    Attributes:
        idempotent: whether calling it twice does no harm; None: as the server says.
    """

    name: str | None = msgspec.field(default=None, name="as")
    description: str | None = None
    arguments: Mapping[str, Template] = msgspec.field(default_factory=dict, name="with")
    approve: Approval | None = None
    timeout: Seconds | None = None
    max_output: Size = MAX_OUTPUT
    max_concurrency: int | None = None
    idempotent: bool | None = None


class McpServer(_Part, frozen=True, kw_only=True):
    """A server of the Model Context Protocol: a command that is started, or the address of one.

    Attributes:
        env, headers: may be secrets.
        prefix: begins the names of its tools that have no name of their own here.
        per_run: each run has a session of its own, for servers that keep state.
        timeout: of its tools that set none.
        tools: those that are offered; None: all.
    """

    command: tuple[str, ...] = ()
    url: str | None = None
    env: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    prefix: str = ""
    per_run: bool = False
    timeout: Seconds = Seconds(60)
    tools: Mapping[str, McpTool] | None = None

    def __repr__(self) -> str:  # variables and headers may be secrets
        return f"McpServer({' '.join(self.command) or self.url})"


class CallTemplate(_Part, frozen=True, kw_only=True):
    """A tool call in a message of the spec (a few-shot example); its arguments may contain templates."""

    name: str
    arguments: Mapping[str, Template] = {}
    id: str | None = None


class TextPart(_Part, frozen=True, kw_only=True, tag_field="part", tag="text"):
    """A text in the content of a message with images."""

    text: TextTemplate


class ImagePart(_Part, frozen=True, kw_only=True, tag_field="part", tag="image"):
    """An image in the content of a message: a ``data:`` URI, the address of an image, or a template of a ``data:`` URI.

    A spec may name a file: its ``data:`` URI takes the place of the name when the spec is loaded.
    """

    image: TextTemplate


ContentPart = TextPart | ImagePart


class MessageTemplate(_Part, frozen=True, kw_only=True, tag_field="entry", tag="message"):
    """A message with templates. A tool message without ``tool_call_id`` answers the oldest call without an answer.

    ``answers: all`` stands for one such message for each call without an answer.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: TextTemplate | tuple[ContentPart, ...] | None = None
    tool_calls: tuple[CallTemplate, ...] = ()
    tool_call_id: TextTemplate | None = None
    answers: Literal["all"] | None = None
    name: str | None = None


class RepeatedMessages(_Part, frozen=True, kw_only=True, tag_field="entry", tag="for_each"):
    """Messages for each item of a list, in the order of the items."""

    for_each: Expression
    item: str = msgspec.field(default="item", name="as")
    messages: tuple[MessageTemplate, ...]

    def names_in(self, field: str) -> frozenset[str]:
        return frozenset({self.item, "index"} if field == "messages" else ())


class MessagesFrom(_Part, frozen=True, kw_only=True, tag_field="entry", tag="from"):
    """The messages of a value: a list of messages in the form of the OpenAI chat API, or of ``threads.NAME``."""

    source: Expression = msgspec.field(name="from")


MessageEntry = MessageTemplate | RepeatedMessages | MessagesFrom
"""An entry of ``messages``. The tag of its struct is added when a spec is parsed."""


def may_answer(entry: MessageEntry) -> bool:
    """Return whether an entry may hold messages that answer tool calls."""
    if isinstance(entry, RepeatedMessages):
        return any(map(may_answer, entry.messages))
    return isinstance(entry, MessagesFrom) or entry.role == "tool"


class Said(_Part, frozen=True, kw_only=True, tag_field="entry", tag="said"):
    """Messages for a thread, by default the state's own. With ``replace`` the thread begins anew with them."""

    thread: ThreadName | None = None
    messages: tuple[MessageEntry, ...]
    replace: bool = False


class Window(_Part, frozen=True, kw_only=True):
    """The part of a thread that a model reads: its head, and at least the ``last`` messages."""

    last: int


History = Literal["all", "none"] | Window
"""How much of a thread a model reads. ``core.requests`` has the rule."""


class Route(_Part, frozen=True, kw_only=True):
    """A route from a state to the state ``to``. Without ``when`` it always matches."""

    when: Expression | None = None
    to: str


class Retry(_Part, frozen=True, kw_only=True):
    """The retry policy of a state: exponential backoff with jitter. ``max_attempts`` includes the first attempt.

    A failure leads to another attempt if ``errors`` names it and ``when`` holds; one that is left out always does. The
    next attempt of a model reads the reply that failed, and ``feedback`` behind it as a user's message.
    """

    max_attempts: int = 3
    errors: tuple[str, ...] = ()
    when: Expression | None = None
    feedback: TextTemplate | None = None
    delay: TemplatedDuration = Seconds(1)
    backoff: float = 2.0
    max_delay: Seconds = Seconds(60)
    jitter: float = 0.1


class Catch(_Part, frozen=True, kw_only=True):
    """A handler of a state's failures: the run continues in the state ``to``.

    It catches a failure if ``errors`` names it, in which ``tool.*`` is a family, and ``when`` holds; one that is left
    out always does. Then it sets its variables, and says its messages.
    """

    errors: tuple[str, ...] = ()
    when: Expression | None = None
    set: Mapping[str, Template] = {}
    say: tuple[MessageEntry | Said, ...] = ()
    to: str

    @property
    def label(self) -> str:
        """The failures that it catches, in words."""
        names = ", ".join(self.errors)
        return " ".join(filter(None, (names, self.when and f"when {self.when}"))) or "any error"


class TokenLimits(_Part, frozen=True, kw_only=True, omit_defaults=True):
    """The tokens that a run and its sub-flows may use: those of prompts, those of replies, and both together."""

    prompt: int | None = None
    completion: int | None = None
    total: int | None = None


class Limits(_Part, frozen=True, kw_only=True):
    """The limits of a run and its sub-flows. A round is one request to a model; a step is one state visit.

    ``max_tool_calls`` counts the calls that models make, those with invalid arguments too.
    """

    max_rounds: int = 32
    max_steps: int = 1000
    max_tool_calls: int | None = None
    tokens: TokenLimits | None = None
    timeout: Seconds | None = None


class ResponseFormat(_Part, frozen=True, kw_only=True):
    """The format of a reply: any JSON object, a JSON value that matches ``schema``, or a text.

    Attributes:
        pattern: the regular expression that all of the text matches, of type ``regex``.
        choices: the texts of which it is one, of type ``choice``: a list whose items may be templates, or a template
            that gives the list.
    """

    type: Literal["json_object", "json_schema", "regex", "choice"] = "json_schema"
    schema: Schema | None = None
    pattern: str | None = None
    choices: Template = None
    strict: bool = True

    @property
    def is_text(self) -> bool:
        """Return whether the value of a reply is its text, not the JSON in it."""
        return self.type in ("regex", "choice")

    @property
    def is_computed(self) -> bool:
        """Return whether templates give some of the choices."""
        return is_template(self.choices) or any(map(is_template, self.choices or ()))

    @property
    def value_schema(self) -> Mapping[str, JSON]:
        """Return the JSON Schema of the value of a reply. Choices that templates give may be any text."""
        match self.type:
            case "json_object":
                return {"type": "object"}
            case "json_schema":
                return self.schema or {}
            case "regex":
                return {"type": "string", "pattern": f"^(?:{self.pattern})$"}
            case "choice":
                return {"type": "string"} if self.is_computed else {"type": "string", "enum": list(self.choices)}


class State(_Part, frozen=True, kw_only=True, tag_field="type"):
    """A state. Each subclass with a tag is one kind of state; the types of its fields say what they hold (``Holds``).

    Attributes:
        asks: who is asked by the state itself. Each kind sets it.
        result: the name that templates read its result by, besides ``outputs.<state>``.
        makes_calls: the state makes the tool calls of its thread: the templates of tools are evaluated in it.
        answers_calls: the state answers the open tool calls of its thread.
    """

    makes_calls: ClassVar[bool] = False
    asks: ClassVar[Literal["nobody", "model", "person"]]
    result: ClassVar[Literal["", "reply", "results"]] = ""

    description: str | None = None

    @property
    def type(self) -> str:
        """The name of the kind."""
        return str(self.__struct_config__.tag)

    @property
    def look(self) -> str:
        """The name of the state's look in drawings, one of its kind's."""
        return self.type

    @property
    def own_thread(self) -> str:
        """The thread that the state reads and writes, or that its messages go to."""
        return str(getattr(self, "thread", MAIN))

    @property
    def answers_calls(self) -> bool:
        return False

    @property
    def always_calls(self) -> bool:
        """Whether each reply in the state has tool calls that the state itself runs."""
        return False

    def details(self) -> Iterable[str]:
        """Return the parts that the state uses, for drawings."""
        return ()

    def child_label(self, index: int) -> str:
        """Return the label of a sub-flow's run in transcripts."""
        return ""

    def variables(self) -> Iterable[tuple[tuple[str | int, ...], str]]:
        """Return the variables that the state may set, each with the path of its value in the state."""
        return ()


class WorkingState(State, frozen=True, kw_only=True):
    """A state that leads to other states: any kind but ``end``. ``next`` becomes a route without ``when``.

    ``say`` are messages that are put onto threads when the state is done, by default onto the state's own.
    """

    set: Mapping[str, Template] = {}
    say: tuple[MessageEntry | Said, ...] = ()
    routes: tuple[Route, ...] = ()
    retry: Retry | None = None
    timeout: TemplatedDuration | None = None
    catch: tuple[Catch, ...] = ()

    def variables(self) -> Iterable[tuple[tuple[str | int, ...], str]]:
        yield from ((("set", name), name) for name in self.set)
        for index, catch in enumerate(self.catch):
            yield from ((("catch", index, "set", name), name) for name in catch.set)


class AskingState(WorkingState, frozen=True, kw_only=True):
    """The base of the states that ask a model about a thread.

    ``model`` may be a template, rendered for each request.
    """

    asks = "model"

    thread: ThreadName = MAIN
    system: TextTemplate | None = None
    history: History = "all"
    model: ModelName = DEFAULT_MODEL

    def models_among(self, declared: Iterable[str]) -> tuple[str, ...]:
        """Return the models that the state may ask: all that are declared if a template says which."""
        return tuple(declared) if is_template(self.model) else (self.model,)


class ChatState(AskingState, frozen=True, kw_only=True, tag="chat"):
    """A state that asks the model for one reply on a thread. ``tools`` None offers all tools of the spec.

    Each of ``tools`` and ``tool_choice`` may be one template too.
    """

    result = "reply"

    messages: tuple[MessageEntry, ...] = ()
    tools: TextTemplate | tuple[ToolName, ...] | None = None
    tool_choice: TextTemplate = "auto"
    sampling: Mapping[str, JSON] = {}
    response_format: ResponseFormat | None = None

    @property
    def answers_calls(self) -> bool:
        return any(map(may_answer, self.messages))

    def details(self) -> Iterable[str]:
        if self.model != DEFAULT_MODEL:
            yield "model by template" if is_template(self.model) else f"model {self.model}"
        if is_template(self.tools):
            yield "tools by template"
        if self.thread != MAIN:
            yield f"thread {self.thread}"

    def tools_among(self, declared: Iterable[str]) -> tuple[str, ...]:
        """Return the tools that the state may offer, of those declared: all if a template says which."""
        return tuple(declared) if self.tools is None or isinstance(self.tools, str) else self.tools


class DecideState(AskingState, frozen=True, kw_only=True, tag="decide"):
    """A state that asks the model to choose, and adds nothing to its thread. A list of labels has no descriptions."""

    prompt: TextTemplate
    choices: Mapping[str, TextTemplate] | tuple[str, ...]

    def __post_init__(self) -> None:
        """Make a list of labels a mapping."""
        if not isinstance(self.choices, Mapping):
            msgspec.structs.force_setattr(self, "choices", dict.fromkeys(self.choices, ""))

    @property
    def described(self) -> Mapping[str, str]:
        """The descriptions of the choices by their labels; empty if there is none."""
        assert isinstance(self.choices, Mapping)
        return self.choices

    def details(self) -> Iterable[str]:
        yield " / ".join(self.described)
        if self.model != DEFAULT_MODEL:
            yield "model by template" if is_template(self.model) else f"model {self.model}"
        if self.thread != MAIN:
            yield f"thread {self.thread}"


class ToolsState(WorkingState, frozen=True, kw_only=True, tag="tools"):
    """A state that runs the tool calls of the thread's last reply and appends their results.

    Calls start in their order, all at once or at most ``max_concurrency``.
    """

    asks = "nobody"
    result = "results"
    makes_calls = True
    answers_calls = True

    thread: ThreadName = MAIN
    on_error: Literal["return", "raise"] = "return"
    max_concurrency: int | None = None

    def details(self) -> Iterable[str]:
        return () if self.thread == MAIN else (f"thread {self.thread}",)


class AgentState(ChatState, frozen=True, kw_only=True, tag="agent"):
    """A state that asks the model and runs the tools that it calls, in turn.

    It ends with a reply without calls, or after a turn in which a tool of ``stop_at_tools`` succeeded. ``messages`` are
    added once, when it is entered; ``retry`` is for one turn, ``timeout`` for the whole visit.
    """

    makes_calls = True

    stop_at_tools: tuple[ToolName, ...] = ()
    max_rounds: int | None = None
    on_error: Literal["return", "raise"] = "return"
    max_concurrency: int | None = None

    @property
    def always_calls(self) -> bool:
        return self.tool_choice not in ("auto", "none") and not any(map(is_template, (self.tool_choice, self.tools)))

    def details(self) -> Iterable[str]:
        yield from super().details()
        if self.stop_at_tools:
            yield f"stops at {', '.join(self.stop_at_tools)}"


class CallState(WorkingState, frozen=True, kw_only=True, tag="call"):
    """A state that calls a Python function directly, not through the model."""

    asks = "nobody"

    entrypoint: Entrypoint
    arguments: Mapping[str, Template] = msgspec.field(default_factory=dict, name="with")
    idempotent: bool = False
    isolation: Isolation | None = None

    def details(self) -> Iterable[str]:
        return (self.entrypoint,)


class RouteState(WorkingState, frozen=True, kw_only=True, tag="route"):
    """A state that only selects a route."""

    asks = "nobody"


class FlowState(WorkingState, frozen=True, kw_only=True, tag="flow"):
    """A state that runs a sub-flow."""

    asks = "nobody"

    flow: FlowReference
    arguments: Mapping[str, Template] = msgspec.field(default_factory=dict, name="with")

    def details(self) -> Iterable[str]:
        return (self.flow,)


class MapState(WorkingState, frozen=True, kw_only=True, tag="map"):
    """A state that runs a sub-flow for each item of a list; the outputs are in the order of the items."""

    asks = "nobody"

    flow: FlowReference
    for_each: Expression
    item: str = msgspec.field(default="item", name="as")
    arguments: Mapping[str, Template] = msgspec.field(default_factory=dict, name="with")
    max_concurrency: int | None = None
    on_item_error: Literal["fail", "collect", "skip"] = "fail"

    def __post_init__(self) -> None:
        """Make the item the only input of the sub-flow, if there is no ``with``."""
        if not self.arguments:
            msgspec.structs.force_setattr(self, "arguments", {self.item: f"{{{{ {self.item} }}}}"})

    def details(self) -> Iterable[str]:
        return (f"{self.flow} for each {self.item} in {self.for_each}",)

    def names_in(self, field: str) -> frozenset[str]:
        return frozenset({self.item, "index"} if field == "with" else ())

    def child_label(self, index: int) -> str:
        return f"item {index}"


class ParallelBranch(_Part, frozen=True, kw_only=True):
    """One branch of a parallel state."""

    flow: FlowReference
    arguments: Mapping[str, Template] = msgspec.field(default_factory=dict, name="with")


class ParallelState(WorkingState, frozen=True, kw_only=True, tag="parallel"):
    """A state that runs several sub-flows at once; its output maps each branch to the branch's output.

    ``until`` the first branch succeeds, its output is that of this branch, and the others are cancelled.
    """

    asks = "nobody"

    branches: Mapping[str, ParallelBranch]
    until: Literal["all", "first"] = "all"
    on_branch_error: Literal["fail", "collect"] = "fail"

    def details(self) -> Iterable[str]:
        first = "the first of " if self.until == "first" else ""
        return (first + ", ".join(f"{name}: {branch.flow}" for name, branch in self.branches.items()),)

    def child_label(self, index: int) -> str:
        return list(self.branches)[index]


class WaitState(WorkingState, frozen=True, kw_only=True, tag="wait"):
    """A state that pauses until a person or a program answers; the answer must match ``schema``."""

    asks = "person"

    prompt: TextTemplate
    schema: Schema = {}


class PauseState(WorkingState, frozen=True, kw_only=True, tag="pause"):
    """A state in which the run sleeps: for a ``duration``, or ``until`` a point in time."""

    asks = "nobody"

    duration: TemplatedDuration | None = msgspec.field(default=None, name="for")
    until: TextTemplate | None = None

    def details(self) -> Iterable[str]:
        if self.until is not None:
            yield f"until {self.until}"
        elif isinstance(self.duration, Seconds):
            yield f"for {spell_duration(self.duration)}"
        elif isinstance(self.duration, DurationTemplate):
            yield f"for {self.duration.text}"


class EndState(State, frozen=True, kw_only=True, tag="end"):
    """A state that ends the run."""

    asks = "nobody"

    status: Literal["succeeded", "failed"] = "succeeded"
    output: Template = None

    @property
    def look(self) -> str:
        return self.status


_KINDS: Final = (
    *(
        ChatState,
        DecideState,
        ToolsState,
        AgentState,
        CallState,
        RouteState,
        FlowState,
        MapState,
        ParallelState,
        WaitState,
        PauseState,
        EndState,
    ),
)

STATES: Final[dict[str, type[State]]] = {str(kind.__struct_config__.tag): kind for kind in _KINDS}
"""The struct of each kind of state, by its tag. ``core.states.KINDS`` has the rest of what a kind is."""


class Serve(_Part, frozen=True, kw_only=True):
    """How a flow answers requests of the chat API: ``inputs`` are made of the request."""

    inputs: Mapping[str, Template] = {}

    def names_in(self, field: str) -> frozenset[str]:
        return frozenset({"request"})


class Spec(_Part, frozen=True, kw_only=True):
    """A full flow with its profile merged.

    ``model:`` is the entry ``default`` of ``models``, ``messages:`` the entry ``main`` of ``threads``. ``secrets`` are
    the environment variables that only tools read. The tools of ``mcp_servers`` are among ``tools``.
    """

    flowrun: Literal["v1"]
    requires: str | None = None
    name: str
    version: str
    description: str | None = None
    secrets: tuple[str, ...] = ()
    inputs: Mapping[str, Mapping[str, JSON]] = {}
    models: Mapping[str, Model] = {}
    sampling: Mapping[str, JSON] = {}
    tools: Mapping[str, Tool] = {}
    mcp_servers: Mapping[str, McpServer] = {}
    threads: Mapping[str, tuple[MessageEntry, ...]] = {}
    vars: Mapping[str, Template] = {}
    start: str
    states: Mapping[str, State] = {}
    flows: Mapping[str, "Spec"] = {}
    limits: Limits = Limits()
    isolation: Isolation | None = None
    serve: Serve | None = None

    @property
    def variables(self) -> frozenset[str]:
        """The names of all variables that a run may have: those with a first value, and those that states may set."""
        return frozenset(self.vars).union(name for state in self.states.values() for _, name in state.variables())

    @property
    def asks_about_calls(self) -> bool:
        """Whether a person is asked about calls of some tool."""
        return any(tool.approve is not None for tool in self.tools.values())

    def may_ask(self, state: State) -> bool:
        """Return whether a state may ask a person: it does itself, or it makes calls of tools that need consent."""
        return state.asks == "person" or (state.makes_calls and self.asks_about_calls)

    def samplings_of(self, state: AskingState) -> dict[str, Mapping[str, JSON]]:
        """Return the sampling of a state's requests, by the names of the models that it may ask."""
        own = state.sampling if isinstance(state, ChatState) else {}
        names = state.models_among(self.models)
        return {name: {**self.sampling, **self.models[name].sampling, **own} for name in names}

    def isolation_of(self, part: Tool | CallState) -> Isolation:
        """Return where the function of a tool or of a call state runs."""
        return part.isolation or self.isolation or "thread"

    def add_defaults(self, inputs: Mapping[str, JSON]) -> dict[str, JSON]:
        """Return inputs of the flow, with the defaults of those that are missing."""
        defaults = {name: schema["default"] for name, schema in self.inputs.items() if "default" in schema}
        return {**defaults, **inputs}
