"""Compares two versions of a flow property by property. A change outside the contract is internal.

The contract consists of the inputs, the ends, the states that ask a person with the schemas of these states, and the
tools about whose calls a person is asked.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, Final

import msgspec

from flowrun.changes.change import Change, Impact
from flowrun.changes.outputs import compare_outputs
from flowrun.changes.schemas import compare_schemas
from flowrun.errors import Path
from flowrun.spec.hidden_arguments import without_arguments
from flowrun.spec.model import DEFAULT_MODEL, JSON, MAIN, EndState, Holds, Spec, State, WorkingState
from flowrun.spec.parts import parts_of


def compare_flows(old: Spec, new: Spec) -> Iterator[Change]:
    """Yield all changes of a flow, in the order of its properties."""
    for name in ("name", "description"):
        yield from _differences(getattr(old, name), getattr(new, name), (name,))
    yield from _inputs(old, new)
    before, after = _as_written(old), _as_written(new)
    for part in ("model", "models", "sampling", "tools", "messages", "threads", "vars", "start"):
        if part == "tools":
            yield from _tools(before["tools"], after["tools"], (part,))
        else:
            yield from _differences(before.get(part), after.get(part), (part,))
    yield from _states(old, new, before["states"], after["states"])
    yield from _flows(old, new)
    for part in ("limits", "isolation", "serve"):
        yield from _differences(before[part], after[part], (part,))


def _as_written(spec: Spec) -> dict[str, Any]:
    """Return a spec as JSON in the form of a spec file: with ``model``, ``messages`` and ``next``."""
    written: dict[str, Any] = msgspec.to_builtins(spec, enc_hook=_as_plain)
    written["model"] = written["models"].pop(DEFAULT_MODEL, None)
    written["messages"] = written["threads"].pop(MAIN, None)
    _remove_tags([written["messages"], written["threads"]])
    for state in written["states"].values():
        _remove_tags([state.get("messages"), state.get("say"), *(catch["say"] for catch in state.get("catch", ()))])
        routes = state.get("routes", [])
        if len(routes) == 1 and routes[0]["when"] is None:
            del state["routes"]
            state["next"] = routes[0]["to"]
    return written


def _remove_tags(value: Any) -> None:
    """Remove from entries of messages what a spec file does not have: their tags, and empty calls."""
    for member in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        _remove_tags(member)
    if isinstance(value, dict) and value.pop("entry", None) and not value.get("tool_calls"):
        value.pop("tool_calls", None)


def _as_plain(value: Any) -> float | str:
    """Return a duration or a size as JSON."""
    return str.__str__(value) if isinstance(value, str) else float(value)


# --- inputs -------------------------------------------------------------------------------------------------------


def _inputs(old: Spec, new: Spec) -> Iterator[Change]:
    for name in {**old.inputs, **new.inputs}:
        path: Path = ("inputs", name)
        if name not in new.inputs:
            yield Change(impact="breaking", path=path, what="input removed", old=old.inputs[name])
        elif name not in old.inputs:
            yield _added_input(path, new.inputs[name])
        else:
            yield from _default(path, old.inputs[name], new.inputs[name])
            yield from compare_schemas(_without_default(old.inputs[name]), _without_default(new.inputs[name]), path)


def _added_input(path: Path, schema: Mapping[str, JSON]) -> Change:
    if "default" in schema:
        return Change(impact="compatible", path=path, what="input with a default added", new=schema)
    return Change(impact="breaking", path=path, what="required input added", new=schema)


def _without_default(schema: Mapping[str, JSON]) -> dict[str, JSON]:
    return {key: value for key, value in schema.items() if key != "default"}


def _default(path: Path, old: Mapping[str, JSON], new: Mapping[str, JSON]) -> Iterator[Change]:
    before, after = old.get("default", msgspec.UNSET), new.get("default", msgspec.UNSET)
    if _same(before, after):
        return
    impact: Impact = "compatible"
    what = "default changed"
    if after is msgspec.UNSET:
        impact, what = "breaking", "default removed, so the input is required now"
    elif before is msgspec.UNSET:
        what = "default added, so the input may be left out now"
    yield Change(impact=impact, path=(*path, "default"), what=what, old=before, new=after)


# --- states -------------------------------------------------------------------------------------------------------


def _states(old: Spec, new: Spec, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for name in {**old.states, **new.states}:
        path: Path = ("states", name)
        was, now = old.states.get(name), new.states.get(name)
        if was is None and now is not None:
            yield _added_state(path, now)
        elif was is not None and now is None:
            yield _removed_state(path, was)
        elif was is not None and now is not None:
            if type(was) is type(now):
                yield from _compare_state(path, was, before[name], after[name])
            else:
                yield _changed_type(path, was, now)


def _added_state(path: Path, state: State) -> Change:
    if state.asks == "person":
        return Change(impact="breaking", path=path, what=f"{state.type} state added: runs now pause for an answer")
    kind = f"{state.type} state" if isinstance(state, WorkingState) else "end"
    return Change(impact="compatible", path=path, what=f"{kind} added")


def _removed_state(path: Path, state: State) -> Change:
    if isinstance(state, EndState):
        return Change(impact="breaking", path=path, what="end removed")
    if state.asks == "person":
        return Change(impact="breaking", path=path, what=f"{state.type} state removed: nobody is asked any more")
    return Change(impact="internal", path=path, what=f"{state.type} state removed")


def _changed_type(path: Path, was: State, now: State) -> Change:
    in_contract = isinstance(was, EndState) or "person" in (was.asks, now.asks)
    impact: Impact = "breaking" if in_contract else "compatible" if isinstance(now, EndState) else "internal"
    return Change(impact=impact, path=(*path, "type"), what="type changed", old=was.type, new=now.type)


def _compare_state(path: Path, state: State, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    contract = _END if isinstance(state, EndState) else {}
    if state.asks == "person":
        contract = {str(part.path[0]): compare_schemas for part in parts_of(state, Holds.SCHEMA)}
    for field in {**before, **after}:
        compare = contract.get(field, _differences)
        yield from compare(before.get(field), after.get(field), (*path, field))


def _status(old: JSON, new: JSON, path: Path) -> Iterator[Change]:
    if old != new:
        yield Change(impact="breaking", path=path, what="status changed", old=old, new=new)


_END: Final[Mapping[str, Callable[[Any, Any, Path], Iterator[Change]]]] = {
    "status": _status,
    "output": compare_outputs,
}
"""The comparison of each property of an end, which is part of a flow's contract."""


# --- tools --------------------------------------------------------------------------------------------------------


def _tools(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> Iterator[Change]:
    """Compare tools: whether a person is asked about their calls, and the arguments that the answer may edit."""
    for name in {**old, **new}:
        before, after, at = old.get(name), new.get(name), (*path, name)
        asked, asks = (None if tool is None else tool["approve"] for tool in (before, after))
        if asked is None and asks is not None:
            what = "approval added: runs now pause for an answer"
            yield Change(impact="breaking", path=(*at, "approve"), what=what, new=asks)
        elif asked is not None and asks is None:
            what = "approval removed: nobody is asked any more"
            yield Change(impact="breaking", path=(*at, "approve"), what=what, old=asked)
        if before is None or after is None:
            yield from _differences(before, after, at)
        else:
            yield from _compare_tool(before, after, at, asks=asked is not None and asks is not None)


def _compare_tool(before: Mapping[str, Any], after: Mapping[str, Any], path: Path, *, asks: bool) -> Iterator[Change]:
    old, new = _visible_parameters(before), _visible_parameters(after)
    for field in {**before, **after}:
        if field == "parameters" and asks and old is not None and new is not None:
            yield from compare_schemas(old, new, (*path, field))
        elif field != "approve" or asks:
            yield from _differences(before.get(field), after.get(field), (*path, field))


def _visible_parameters(tool: Mapping[str, Any]) -> Mapping[str, JSON] | None:
    """Return the schema of the arguments that a model gives; None if it is derived from a function."""
    return None if tool["parameters"] is None else without_arguments(tool["parameters"], tool["with"])


# --- internal parts -----------------------------------------------------------------------------------------------


def _flows(old: Spec, new: Spec) -> Iterator[Change]:
    """Compare the local flows: only this file can run them, so all of their changes are internal."""
    for name in {**old.flows, **new.flows}:
        path = ("flows", name)
        if name not in new.flows:
            yield Change(impact="internal", path=path, what="local flow removed")
        elif name not in old.flows:
            yield Change(impact="internal", path=path, what="local flow added")
        else:
            for change in compare_flows(old.flows[name], new.flows[name]):
                if change.path != ("name",):
                    yield change.with_prefix(path).as_internal()


def _differences(old: JSON, new: JSON, path: Path) -> Iterator[Change]:
    """Yield the innermost differences of two JSON values, all internal. None stands for a missing value."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:
            yield from _differences(old.get(key), new.get(key), (*path, key))
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple):
        yield from _list_differences(old, new, path)
    elif not _same(old, new):
        what = "added" if old is None else "removed" if new is None else "changed"
        yield Change(
            impact="internal",
            path=path,
            what=what,
            old=msgspec.UNSET if old is None else old,
            new=msgspec.UNSET if new is None else new,
        )


def _list_differences(old: Sequence[JSON], new: Sequence[JSON], path: Path) -> Iterator[Change]:
    """Yield the items added, removed or changed in a list; an insertion does not change all items after it."""
    before, after = ([json.dumps(item, sort_keys=True) for item in items] for items in (old, new))
    for _, start, end, other_start, other_end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        pairs = min(end - start, other_end - other_start)
        for offset in range(pairs):
            yield from _differences(old[start + offset], new[other_start + offset], (*path, other_start + offset))
        for index in range(start + pairs, end):
            yield Change(impact="internal", path=(*path, index), what="removed", old=old[index])
        for index in range(other_start + pairs, other_end):
            yield Change(impact="internal", path=(*path, index), what="added", new=new[index])


def _same(old: JSON, new: JSON) -> bool:
    """Return whether two JSON values are equal: 0 equals 0.0, but not false."""
    return bool(old == new) and isinstance(old, bool) == isinstance(new, bool)
