"""One tree of exceptions, split by whose fault an error is, and the names of a run's errors.

An ``Issue`` is an error or a warning about a spec: data, not prose; reporters render it.
A ``Failure`` is an error of a run; its name is one of ``FAILURES``, which a spec can catch.
"""

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from flowrun.unicode import well_formed

Path = tuple[str | int, ...]
"""The path from a document's root to a node: keys of mappings and indexes of lists."""


def dotted(path: Path) -> str:
    """Return a path as text: ``tools.look_up.parameters``, ``messages[0].role``."""
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part}]"
        else:
            out += f".{part}" if out else part
    return out


class Place(msgspec.Struct, frozen=True, order=True):
    """A position in a file; line and column count from 1, the column in characters."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Issue(msgspec.Struct, frozen=True, kw_only=True):
    """An error or a warning about a spec. ``code`` is a key of ``CODES``; a code never changes its meaning."""

    code: str
    place: Place
    path: Path = ()
    message: str
    remedy: str = ""
    severity: Literal["error", "warning"] = "error"


CODES: Final[dict[str, str]] = {
    "FR101": "The file is not valid YAML.",
    "FR102": "A tab stands where YAML allows spaces only, such as in the indentation.",
    "FR103": "A text that YAML would read as something else is not quoted.",
    "FR104": "A template is not quoted, so YAML reads its braces as a mapping.",
    "FR105": "A line's indentation does not fit the lines above it.",
    "FR106": "A key is not followed by a colon and a space.",
    "FR107": "A quote or bracket is not closed or closes nothing, or brackets hold what is no list or mapping.",
    "FR108": "A double-quoted text holds a backslash escape that YAML does not have.",
    "FR109": "The file is not UTF-8.",
    "FR110": "The file begins with a byte order mark.",
    "FR111": "The file holds a control character or an invisible line break.",
    "FR112": "The file is empty.",
    "FR113": "The file holds more than one YAML document.",
    "FR114": "The file's top level is not a mapping.",
    "FR115": "A mapping has the same key twice.",
    "FR116": "A mapping's key is not a text.",
    "FR117": "A merge key '<<' is used; YAML 1.2 has none.",
    "FR118": "A value has an explicit tag; specs hold plain JSON values only.",
    "FR119": "A number is infinite, not a number, or does not fit into 64 bits.",
    "FR120": "An alias names an anchor that is not defined above it.",
    "FR121": "An alias stands inside of the very value that it names.",
    "FR122": "The file holds too many values once its aliases are expanded.",
    "FR123": "The file is nested too deeply.",
    "FR124": "The file is too large.",
    "FR130": "An environment variable is not set and has no default.",
    "FR131": "A reference to an environment variable is malformed, or the variable's value is no text.",
    "FR201": "A property does not exist at this place.",
    "FR202": "A required property is missing.",
    "FR203": "A value has the wrong type.",
    "FR204": "A value is not one of those allowed.",
    "FR205": "A text does not have the form that it must have.",
    "FR206": "A number is too small or too large.",
    "FR207": "A text, list or mapping has too few or too many elements, or the same one twice.",
    "FR208": "Properties that exclude each other are given together, or none of those of which one is needed.",
    "FR209": "A name holds characters that names may not have, or is too long.",
    "FR210": "A value does not match the schema in a way that has no code of its own.",
    "FR301": "No route leads from the start to a state.",
    "FR302": "From a state no end can be reached.",
    "FR303": "A route can never match.",
    "FR304": "A loop is bounded by limits.max_steps alone.",
    "FR305": "A state may have no route that matches.",
    "FR306": "A chat state offers tools, and no state handles the calls of its replies.",
    "FR307": "A tools state runs calls of a thread on which no model can make one.",
    "FR308": "A chat state's messages are added again each time that its tools have run.",
    "FR309": "Messages are no conversation, or show a call that the model may not make.",
    "FR310": "A call is required where no tools are offered.",
    "FR311": "No chat state offers a tool.",
    "FR312": "A failure is named that the state never sees.",
    "FR313": "A system message stands behind messages of other roles.",
    "FR314": "An agent's replies always call tools, and no tool ends it.",
    "FR315": "A state's system message changes from one request to the next.",
    "FR316": "Another attempt of a state repeats calls that succeeded in its sub-flow.",
    "FR401": "A template or expression is not valid Jinja2.",
    "FR402": "A template reads a name that does not exist.",
    "FR403": "An expression has the braces of a template.",
    "FR404": "A template reads a member that its name cannot have.",
    "FR405": "A template reads what is not set on every path that leads to it.",
    "FR406": "A first message reads a variable that is set later.",
    "FR407": "A reference to an environment variable stands where it is plain text.",
    "FR408": "A variable is set that nothing reads.",
    "FR409": "A condition compares a value with one that its schema does not have, or asks about a call that never is.",
    "FR410": "A comment cuts off a text that is not quoted.",
    "FR501": "An entrypoint leads to no Python function.",
    "FR502": "A tool's parameters are left out, and cannot be derived from its Python function.",
    "FR503": "A tool's parameters are not those that its Python function takes.",
    "FR504": "The arguments of a call state or a score are not those that its Python function takes.",
    "FR505": "A JSON Schema is not valid.",
    "FR506": "An input's default does not match the input's own schema.",
    "FR507": "A JSON Schema uses what no decoder's grammar can enforce.",
    "FR508": "A part of a JSON Schema constrains nothing.",
    "FR509": "A JSON Schema contradicts itself, or nothing satisfies it.",
    "FR510": "An argument that a tool's 'with' gives cannot be taken out of the tool's parameters.",
    "FR601": "A sampling parameter does not exist.",
    "FR602": "A sampling parameter has a value that it cannot have, or is not the spec's to set.",
    "FR603": "An engine argument does not exist, or has a place of its own in the spec.",
    "FR604": "A parser of tool calls or of reasoning does not exist.",
    "FR605": "Tools are offered to a model of which it is not known how it calls them.",
    "FR607": "A model lacks a setting that its backend needs, or has one of another backend.",
    "FR608": "A setting can have no effect.",
    "FR609": "A key is written into the spec in plain text.",
    "FR610": "An engine argument has a value that it cannot have.",
    "FR611": "An image is shown to a model that can be shown none.",
    "FR612": "What is the same in each prompt of a state fills its context window, or leaves little for the reply.",
    "FR701": "A state is named that does not exist.",
    "FR702": "A tool is named that does not exist, or that the state does not offer.",
    "FR703": "A thread is named that does not exist.",
    "FR704": "A model is named that does not exist.",
    "FR705": "A sub-flow is named that does not exist.",
    "FR706": "A file is named that does not exist.",
    "FR707": "A sub-flow runs itself.",
    "FR708": "A sub-flow is given inputs that it does not take, or not those that it needs.",
    "FR709": "A file is named that lies outside of the project, or is no spec.",
    "FR710": "A backend is named that is not installed.",
    "FR711": "The spec requires another version of flowrun.",
    "FR712": "A file is named that is no image.",
    "FR713": "The flow of an eval has errors of its own.",
    "FR714": "A score is named that does not exist.",
    "FR715": "A row does not have what the flow or a score needs.",
    "FR716": "The lock of an MCP server is missing, cannot be read, or does not have the server.",
    "FR717": "Two tools, or two MCP servers, have the same name.",
    "FR718": "A served flow is given inputs that it does not take, or not those that it needs.",
    "FR719": "The lock of the models cannot be read, or is not that of the models of the spec.",
    "FR901": "flowrun itself failed on this file.",
}
"""All codes of issues, with their meanings.

FR1xx YAML, FR2xx schema, FR3xx graph, FR4xx templates, FR5xx tools and schemas, FR6xx models, FR7xx references, FR9xx
flowrun itself.
"""


FAILURES: Final[dict[str, str]] = {
    "model.truncated": "the reply was cut off in the middle of a call or an answer, such as by max_tokens",
    "model.declined": "the model, or a filter, declined to reply",
    "model.invalid_call": "the reply holds a tool call that cannot be read, or calls otherwise than tool_choice says",
    "model.unhandled_call": "the reply holds tool calls that no state handles",
    "model.invalid_output": "the reply is empty, does not match the state's response_format, or decides nothing",
    "model.invalid_conversation": "a message leaves tool calls unanswered, or answers none",
    "model.context_overflow": "the prompt does not fit into the model's context window",
    "model.request_refused": "the model's backend refused the request as malformed",
    "backend.unavailable": "the model's backend could not be reached, or died",
    "tool.failed": "a tool or a called function raised, or returned what is no JSON value",
    "tool.timeout": "a tool or a called function took longer than its timeout",
    "tool.invalid_arguments": "the arguments do not match the parameters of the tool or of the called function",
    "tool.unavailable": "the server of the tool is not there, or has ended before it answered",
    "tool.refused": "a person did not approve the call",
    "tool.unknown": "the model called a tool that the state does not offer",
    "template.failed": "a template or expression could not be evaluated",
    "route.unmatched": "no route of a state matched, and the state has no fallback",
    "flow.failed": "the flow reached an end state whose status is failed, or a sub-flow did",
    "input.invalid": "the inputs do not match what the spec declares",
    "wait.timeout": "nobody answered a wait state in time",
    "limit.rounds": "the run reached limits.max_rounds",
    "limit.steps": "the run reached limits.max_steps",
    "limit.tool_calls": "the run reached limits.max_tool_calls",
    "limit.tokens": "the run used up limits.tokens",
    "limit.timeout": "the run reached limits.timeout",
    "state.timeout": "a state took longer than its timeout",
    "run.cancelled": "the run was cancelled from outside",
}
"""All names of a run's errors, with their meanings."""


class Failure(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A named error of a run. The message is converted to valid Unicode.

    Attributes:
        state: the state where it happened.
        types: the name of the Python exception's class, then the names of its base classes.
    """

    name: str
    message: str
    state: str = ""
    types: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.message.isascii():
            msgspec.structs.force_setattr(self, "message", well_formed(self.message))


def crash_issue(file: str, exc: Exception) -> Issue:
    """Return an internal error of flowrun on a file as an issue, so that the other files are still checked."""
    text = " ".join(f"{type(exc).__name__}: {exc}".split())
    remedy = "this is a bug in flowrun: please report it, with this file"
    return Issue(code="FR901", place=Place(file, 1, 1), message=f"flowrun failed on this file: {text}", remedy=remedy)


def install_extra(extra: str) -> str:
    """Return how to install an optional part of flowrun, which is on no package index yet."""
    return f'`pip install ".[{extra}]"` in a checkout of flowrun'


class FlowrunError(Exception):
    """The base class of all errors that flowrun raises on purpose."""


_SHOWN_ISSUES: Final = 10
"""Issues that the text of a ``SpecError`` has."""


class SpecError(FlowrunError):
    """The spec has errors; ``issues`` holds all of them, sorted by place."""

    def __init__(self, issues: Iterable[Issue]) -> None:
        self.issues = sorted(issues, key=lambda issue: (issue.place, issue.code, issue.message))
        shown = [f"{issue.place}: {issue.message} [{issue.code}]" for issue in self.issues[:_SHOWN_ISSUES]]
        more = len(self.issues) - len(shown)
        super().__init__("\n".join([*shown, *([f"and {more} more issues"] if more else [])]))

    def __reduce__(self) -> tuple[type["SpecError"], tuple[list[Issue]]]:
        return type(self), (self.issues,)


class UsageError(FlowrunError):
    """The caller's input is wrong: an argument, an input of the flow, or a file that does not exist."""


class UnreadableFile(UsageError):
    """A file does not exist or cannot be read."""


class RunError(FlowrunError):
    """The error that an adapter raises when an effect fails: the run continues with the event ``Failed``."""

    def __init__(self, name: str, message: str, *, types: tuple[str, ...] = ()) -> None:
        """Make the error of an effect.

        Args:
            types: the names of a Python exception's class and of its base classes. See ``Failure``.
        """
        if name not in FAILURES:
            raise ValueError(f"{name!r} is not a failure's name; add it to FAILURES")
        self.name = name
        self.message = message
        self.types = types
        super().__init__(f"{name}: {message}")

    def failure(self) -> Failure:
        """Return the error as data."""
        return Failure(name=self.name, message=self.message, types=self.types)


class ToolError(RunError):
    """A tool or a called function failed; the model may see it."""


class ModelError(RunError):
    """The model, or the backend that runs it, failed."""


class BackendError(FlowrunError):
    """A backend cannot start: a package, a model or a setting is missing or wrong. The message says what to do."""


class NoResponderError(FlowrunError):
    """Nobody can answer a wait state: raised by ``ports.HumanInput``. The run waits; nothing has failed."""


class StoreError(FlowrunError):
    """A stored file or database cannot be read or written."""


class OutputError(FlowrunError):
    """stdout cannot be written: its device is full, or it is closed."""


class Bug(FlowrunError):
    """flowrun itself has a bug. Only the command line catches this error."""
