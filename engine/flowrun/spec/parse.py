"""From plain data that matches the schema to a ``Spec``: renamed where the language has two ways to say one thing."""

import re
from typing import Any, Final

import msgspec

from flowrun.errors import Issue, Path, SpecError
from flowrun.spec.document import Document, issue_at
from flowrun.spec.model import DEFAULT_MODEL, JSON, MAIN, Seconds, Spec

SHORTHANDS: Final = {"model": ("models", DEFAULT_MODEL), "messages": ("threads", MAIN)}
"""Keys of a flow that are kept as an entry of another one."""

DEFAULT_STATES: Final[dict[str, JSON]] = {
    "ask": {"type": "chat", "routes": [{"when": "reply.tool_calls", "to": "use_tools"}, {"to": "done"}]},
    "use_tools": {"type": "tools", "next": "ask"},
    "done": {"type": "end", "output": {"answer": "{{ reply.content }}"}},
}
"""The graph of a flow without ``states``: chat and tools until a reply without calls."""

UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
"""How many seconds each unit of a duration has."""

_COUNTS: Final = frozenset({"max_rounds", "max_steps", "max_attempts", "max_concurrency"})
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_WHERE: Final = re.compile(r" - at `\$(.*)`$")
_STEP: Final = re.compile(r"\.([^.\[]+)|\[(\d+)\]")


def parse_spec(document: Document) -> Spec:
    """Make the spec of a document that matches the schema.

    Raises:
        SpecError: a value that the schema lets through is still of the wrong type.
    """
    value = document.value
    try:
        return msgspec.convert(
            _flow(value, name=value["name"], version=value["version"]), Spec, dec_hook=_decode_duration
        )
    except msgspec.ValidationError as error:
        raise SpecError([_mismatch(document, str(error))]) from error


def parse_duration(written: float | str) -> Seconds:
    """Read a number of seconds, or a number with a unit.

    Raises:
        ValueError: it is neither.
    """
    if not isinstance(written, str):
        return Seconds(written)
    if match := _DURATION.fullmatch(written):
        return Seconds(float(match[1]) * UNITS[match[2]])
    raise ValueError(f"{written!r} is no duration: write a number of seconds, or a number and ms, s, m, h or d")


def _flow(value: dict[str, JSON], *, name: str, version: str) -> dict[str, JSON]:
    """Give the fields of a ``Spec``; a local flow takes its key as name and the version of the file."""
    fields = {
        key: item for key, item in value.items() if key not in {*SHORTHANDS, "profiles"} and not key.startswith("x-")
    }
    for shorthand, (key, entry) in SHORTHANDS.items():
        if shorthand in value:
            fields[key] = {**fields.get(key, {}), entry: value[shorthand]}
    if "limits" in value:
        fields["limits"] = _whole(value["limits"])
    states = value.get("states", DEFAULT_STATES)
    return {
        **fields,
        "flowrun": "v1",
        "name": name,
        "version": version,
        "start": value.get("start", next(iter(states))),
        "states": {key: _state(state) for key, state in states.items()},
        "flows": {key: _flow(flow, name=key, version=version) for key, flow in value.get("flows", {}).items()},
    }


def _state(state: dict[str, JSON]) -> dict[str, JSON]:
    """Give the fields of a state, ``next`` turned into a route that always matches."""
    fields = _whole({key: value for key, value in state.items() if key != "next"})
    if "next" in state:
        fields["routes"] = [{"to": state["next"]}]
    if "retry" in state:
        fields["retry"] = _whole(state["retry"])
    return fields


def _whole(fields: dict[str, JSON]) -> dict[str, JSON]:
    """Turn ``8.0`` into ``8`` where a count belongs: to JSON Schema both are integers, to Python they are not."""
    return {key: int(value) if key in _COUNTS and isinstance(value, float) else value for key, value in fields.items()}


def _decode_duration(kind: type, value: Any) -> Any:
    if kind is Seconds:
        return parse_duration(value)
    raise NotImplementedError(kind)


def _mismatch(document: Document, error: str) -> Issue:
    """Turn msgspec's message, which ends in a JSON path, into an issue."""
    where = _WHERE.search(error)
    # msgspec writes [...] for the key of a mapping; what lies behind it has no known path.
    known = where[1].partition("[...]")[0] if where else ""
    path: Path = tuple(key or int(index) for key, index in _STEP.findall(known))
    detail = f"{where[1].lstrip('.')}: " if where else ""
    message = detail + _WHERE.sub("", error).replace("`", "")
    return issue_at(document, "FR203", path, message, "see 'flowrun schema' for what may stand here")
