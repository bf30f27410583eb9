"""Conversion of plain data that matches the schema to a ``Spec``. Shorthands are expanded, durations parsed."""

import re
from functools import cache
from typing import Any, Final, TypeVar

import msgspec

from flowrun.errors import Issue, Path, SpecError
from flowrun.spec.document import Document, issue_at
from flowrun.spec.mcp_lock import tools_of
from flowrun.spec.model import (
    DEFAULT_MODEL,
    JSON,
    MAIN,
    STATES,
    Duration,
    DurationTemplate,
    Limits,
    McpTool,
    Retry,
    Seconds,
    Size,
    Spec,
    State,
    TokenLimits,
    Tool,
    Window,
)

SHORTHANDS: Final = {"model": ("models", DEFAULT_MODEL), "messages": ("threads", MAIN)}
"""Shorthand keys of a flow, each with the key and the entry that it is short for."""

DEFAULT_STATES: Final[dict[str, JSON]] = {
    "ask": {"type": "chat", "routes": [{"when": "reply.tool_calls", "to": "use_tools"}, {"to": "done"}]},
    "use_tools": {"type": "tools", "next": "ask"},
    "done": {"type": "end", "output": {"answer": "{{ reply.content }}"}},
}
"""The states of a flow that declares none: chat and tools in turn until a reply has no calls."""

UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
"""The units of durations, in seconds."""

_BOOLEAN_SCHEMAS: Final[dict[bool, JSON]] = {True: {}, False: {"not": {}}}
_BYTES: Final = {"KB": 1_000, "MB": 1_000_000}
_SIZE: Final = re.compile(r"([0-9]+)(KB|MB)")
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_JSON_PATH: Final = re.compile(r" - at `\$(.*)`$")
_PATH_PART: Final = re.compile(r"\.([^.\[]+)|\[(\d+)\]")
_Struct = TypeVar("_Struct", bound=msgspec.Struct)


def parse_spec(document: Document) -> Spec:
    """Build the spec of a document that matches the schema.

    Raises:
        SpecError: a value has the wrong type although the schema admits it.
    """
    value = document.value
    return _parse_flow(document, (), value, name=value["name"], version=value["version"])


def parse_duration(written: float | str) -> Seconds:
    """Parse a duration: a number of seconds, or a string of a number and a unit.

    Raises:
        ValueError: the string has another form.
    """
    if not isinstance(written, str):
        return Seconds(written)
    if match := _DURATION.fullmatch(written):
        return Seconds(float(match[1]) * UNITS[match[2]])
    raise ValueError(f"{written!r} is no duration: write a number of seconds, or a number and ms, s, m, h or d")


def parse_size(written: float | str) -> Size:
    """Parse a size: a number of bytes, or a string of a whole number and KB or MB.

    Raises:
        ValueError: the string has another form.
    """
    if not isinstance(written, str):
        return Size(written)
    if match := _SIZE.fullmatch(written):
        return Size(int(match[1]) * _BYTES[match[2]])
    raise ValueError(f"{written!r} is no size: write a number of bytes, or a number and KB or MB")


def _parse_flow(document: Document, at: Path, value: dict[str, JSON], *, name: str, version: str) -> Spec:
    """Build a ``Spec``. A local flow has its key as name and the version of the file."""
    fields = {
        key: item for key, item in value.items() if key not in {*SHORTHANDS, "profiles"} and not key.startswith("x-")
    }
    for shorthand, (key, entry) in SHORTHANDS.items():
        if shorthand in value:
            fields[key] = {**fields.get(key, {}), entry: value[shorthand]}
    if "threads" in fields:
        fields["threads"] = {thread: tag_entries(entries) for thread, entries in fields["threads"].items()}
    if "inputs" in value:
        fields["inputs"] = {
            key: _BOOLEAN_SCHEMAS[schema] if isinstance(schema, bool) else schema
            for key, schema in value["inputs"].items()
        }
    if "limits" in value:
        limits = fields["limits"] = _with_integer_counts(value["limits"], Limits)
        if isinstance(limits.get("tokens"), dict):
            limits["tokens"] = _with_integer_counts(limits["tokens"], TokenLimits)
    tools = {**value.get("tools", {}), **tools_of(document, at, value)}
    if tools:
        fields["tools"] = {name: _with_approval(_with_integer_counts(tool, Tool)) for name, tool in tools.items()}
    if "mcp_servers" in value:
        fields["mcp_servers"] = {name: _parse_server(server) for name, server in value["mcp_servers"].items()}
    states = fields.pop("states", DEFAULT_STATES)
    flows = fields.pop("flows", {})
    fields |= {"flowrun": "v1", "name": name, "version": version, "start": value.get("start", next(iter(states)))}
    return msgspec.structs.replace(
        _convert(document, at, fields, Spec),
        states={key: _parse_state(document, (*at, "states", key), state) for key, state in states.items()},
        flows={
            key: _parse_flow(document, (*at, "flows", key), flow, name=key, version=version)
            for key, flow in flows.items()
        },
    )


def _parse_state(document: Document, at: Path, state: dict[str, JSON]) -> State:
    """Build a state, with ``next`` as a route that always matches."""
    kind = STATES[state["type"]]
    fields = _with_integer_counts({key: value for key, value in state.items() if key != "next"}, kind)
    fields |= {key: tag_entries(state[key]) for key in ("messages", "say") if key in state}
    if "next" in state:
        fields["routes"] = [{"to": state["next"]}]
    if isinstance(state.get("history"), dict):
        fields["history"] = _with_integer_counts(state["history"], Window)
    if "catch" in state:
        fields["catch"] = [
            catch | ({"say": tag_entries(catch["say"])} if "say" in catch else {}) for catch in state["catch"]
        ]
    if "retry" in state:
        fields["retry"] = _with_integer_counts(state["retry"], Retry)
    return _convert(document, at, fields, kind)


def tag_entries(entries: list[dict[str, JSON]]) -> list[dict[str, JSON]]:
    """Return the entries of ``messages`` or ``say`` with the tags of their structs, which a spec never writes."""
    tagged = []
    for entry in entries:
        tag = next((key for key in ("for_each", "from") if key in entry), "message" if "role" in entry else "said")
        inner: dict[str, JSON] = {"messages": tag_entries(entry["messages"])} if "messages" in entry else {}
        if isinstance(entry.get("content"), list):
            inner["content"] = [part | {"part": "image" if "image" in part else "text"} for part in entry["content"]]
        tagged.append(entry | inner | {"entry": tag})
    return tagged


def _parse_server(server: dict[str, JSON]) -> dict[str, JSON]:
    """Return an MCP server as its struct has it; a tool that is only named has no settings."""
    if server.get("tools") is None:
        return {key: value for key, value in server.items() if key != "tools"}
    tools = {name: _with_approval(_with_integer_counts(tool or {}, McpTool)) for name, tool in server["tools"].items()}
    return {**server, "tools": tools}


def _with_approval(tool: dict[str, JSON]) -> dict[str, JSON]:
    """Write ``approve: true`` as an approval without conditions, and ``false`` as none."""
    return {**tool, "approve": {} if tool["approve"] else None} if isinstance(tool.get("approve"), bool) else tool


def _with_integer_counts(values: dict[str, JSON], kind: type[msgspec.Struct]) -> dict[str, JSON]:
    """Convert integers such as ``8.0`` to ``8``: both are integers in JSON Schema, but not in Python."""
    counts = _counts(kind)
    return {key: int(value) if key in counts and isinstance(value, float) else value for key, value in values.items()}


@cache
def _counts(kind: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(field.encode_name for field in msgspec.structs.fields(kind) if field.type in (int, int | None))


def _convert(document: Document, at: Path, fields: dict[str, JSON], kind: type[_Struct]) -> _Struct:
    try:
        return msgspec.convert(fields, kind, dec_hook=decode_duration)
    except msgspec.ValidationError as error:
        raise SpecError([_type_issue(document, at, str(error))]) from error


def decode_duration(kind: type, value: Any) -> Any:
    """Convert a duration or a size, as msgspec's ``dec_hook``."""
    if kind is Duration and isinstance(value, str) and ("{{" in value or "{%" in value):
        return DurationTemplate(value)
    if kind in (Seconds, Duration):
        return parse_duration(value)
    if kind is Size:
        return parse_size(value)
    raise NotImplementedError(kind)


def _type_issue(document: Document, at: Path, error: str) -> Issue:
    """Convert msgspec's message on the value at a path, which ends in a JSON path below it, to an issue."""
    where = _JSON_PATH.search(error)
    # msgspec writes [...] for the key of a mapping, so the path is known only up to there.
    known = where[1].partition("[...]")[0] if where else ""
    path: Path = (*at, *(key or int(index) for key, index in _PATH_PART.findall(known)))
    detail = f"{where[1].lstrip('.')}: " if where else ""
    message = detail + _JSON_PATH.sub("", error).replace("`", "")
    return issue_at(document, "FR203", path, message, "see 'flowrun schema' for what may stand here")
