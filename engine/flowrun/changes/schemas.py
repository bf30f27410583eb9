"""Compares two JSON Schemas (2020-12) of a flow's input or answer: does the new one accept all values of the old one?

Each keyword is compared by itself. A change of a keyword that cannot be compared counts as narrower: a needless major
version is better than a broken caller.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from flowrun.changes.change import Change, Impact
from flowrun.errors import Path
from flowrun.spec.json_types import JSON_TYPES, declared_types
from flowrun.spec.model import JSON
from flowrun.spec.references import find_target

Schema = Mapping[str, JSON] | bool

_ANNOTATIONS: Final = ("default", "title", "description", "examples", "$comment", "deprecated", "readOnly", "writeOnly")
_LOWER: Final = ("minLength", "minItems", "minProperties", "minContains")
_UPPER: Final = ("maxLength", "maxItems", "maxProperties", "maxContains")
_SAME_OR_NARROWER: Final = ("pattern", "format", "uniqueItems", "contentEncoding", "contentMediaType")
_NESTED: Final = ("items", "additionalProperties", "unevaluatedProperties", "unevaluatedItems", "propertyNames")
_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_COMPARED_ELSEWHERE: Final = ("type", "enum", "const", "required", "properties", "multipleOf", "$defs")
_RANGES: Final = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
_KNOWN: Final = frozenset(
    (*_ANNOTATIONS, *_LOWER, *_UPPER, *_SAME_OR_NARROWER, *_NESTED, *_LISTS, *_COMPARED_ELSEWHERE, *_RANGES)
)


def compare_schemas(old: Schema, new: Schema, path: Path) -> Iterator[Change]:
    """Yield the changes of a schema: narrower is breaking, wider is compatible, an annotation is internal."""
    if old != new or json.dumps(old, sort_keys=True) != json.dumps(new, sort_keys=True):
        yield from _Comparison(old, new).compare(old, new, path)


class _Comparison:
    """A comparison of two schemas; their roots are stored to resolve ``$ref``."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self._old = old
        self._new = new
        self._seen: set[tuple[str, str]] = set()

    def compare(self, old: Schema, new: Schema, path: Path) -> Iterator[Change]:
        if old is False or new is False:
            if old is not new:
                yield _change("breaking" if new is False else "compatible", path, "changed", old, new)
            return
        if self._seen_before(old, new):
            return
        before, after = _resolve(old, self._old), _resolve(new, self._new)
        for compare in (_types, _values, _ranges, _bounds, _flags, _multiple, _annotations, _others):
            yield from compare(before, after, path)
        yield from self._objects(before, after, path)
        for keyword in _NESTED:
            if keyword in before or keyword in after:
                yield from self.compare(before.get(keyword, True), after.get(keyword, True), (*path, keyword))
        for keyword in _LISTS:
            yield from self._list(before.get(keyword), after.get(keyword), (*path, keyword))

    def _seen_before(self, old: Schema, new: Schema) -> bool:
        """Return whether this pair was compared before; a schema can contain itself through ``$ref`` only."""
        references = [schema.get("$ref") if isinstance(schema, Mapping) else None for schema in (old, new)]
        if references == [None, None]:
            return False
        pair = (str(references[0] or _canonical(old)), str(references[1] or _canonical(new)))
        known = pair in self._seen
        self._seen.add(pair)
        return known

    def _objects(self, old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> Iterator[Change]:
        required, now_required = set(old.get("required", ())), set(new.get("required", ()))
        for name in sorted(now_required - required):
            yield _change("breaking", (*path, "required"), f"{name!r} is required now")
        for name in sorted(required - now_required):
            yield _change("compatible", (*path, "required"), f"{name!r} may be left out now")
        known, now_known = old.get("properties", {}), new.get("properties", {})
        for name in {**known, **now_known}:
            at = (*path, "properties", name)
            if name in known and name in now_known:
                yield from self.compare(known[name], now_known[name], at)
            elif name in now_known:
                yield _change("compatible", at, "property added", new=now_known[name])
            else:
                impact: Impact = "breaking" if new.get("additionalProperties") is False else "compatible"
                yield _change(impact, at, "property removed", known[name])

    def _list(self, old: Sequence[Schema] | None, new: Sequence[Schema] | None, path: Path) -> Iterator[Change]:
        if old is not None and new is not None and len(old) == len(new):
            for index, (before, after) in enumerate(zip(old, new, strict=True)):
                if before != after:
                    yield from self.compare(before, after, (*path, index))
        elif old != new:
            yield _change(_impact_of_list(str(path[-1]), old, new), path, "changed", _or_unset(old), _or_unset(new))


def _impact_of_list(keyword: str, old: Sequence[Schema] | None, new: Sequence[Schema] | None) -> Impact:
    """Return the impact of a list of schemas that grew or shrank: compatible if all old values are still accepted."""
    if new is None:
        return "compatible"
    if old is None:
        return "breaking"
    before, after = set(map(_canonical, old)), set(map(_canonical, new))
    wider = before <= after if keyword == "anyOf" else after <= before if keyword == "allOf" else False
    return "compatible" if wider else "breaking"


def _resolve(schema: Schema, root: Schema) -> Mapping[str, Any]:
    """Resolve a ``$ref`` into the same schema; a reference to another document is left as it is."""
    seen: set[str] = set()
    current: Mapping[str, Any] = {} if isinstance(schema, bool) else schema
    while isinstance(reference := current.get("$ref"), str) and reference not in seen:
        seen.add(reference)
        target = find_target(root, reference)
        if not isinstance(target, Mapping):
            return current
        current = {**target, **{key: value for key, value in current.items() if key != "$ref"}}
    return current


# --- keywords -----------------------------------------------------------------------------------------------------


def _types(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> Iterator[Change]:
    was, now = _allowed_types(old), _allowed_types(new)
    if was != now:
        impact: Impact = "breaking" if was - now else "compatible"
        what = "type narrowed" if now < was else "type widened" if was < now else "type changed"
        yield _change(impact, (*path, "type"), what, _or_unset(old.get("type")), _or_unset(new.get("type")))


def _allowed_types(schema: Mapping[str, Any]) -> frozenset[str]:
    """Return the JSON types that a schema accepts; in JSON Schema every integer is also a number."""
    allowed = declared_types(schema) or frozenset(JSON_TYPES.values())
    if "number" in allowed:
        allowed |= {"integer"}
    values = _allowed_values(schema)
    return allowed if values is None else allowed & {JSON_TYPES[type(json.loads(value))] for value in values}


def _values(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> Iterator[Change]:
    was, now = _allowed_values(old), _allowed_values(new)
    if was == now or (now is not None and was is not None and set(was) == set(now)):
        return
    narrower = now is not None and (was is None or bool(set(was) - set(now)))
    what = "allowed values narrowed" if narrower else "allowed values widened"
    shown = [msgspec.UNSET if values is None else [json.loads(value) for value in values] for values in (was, now)]
    yield _change("breaking" if narrower else "compatible", (*path, "enum"), what, *shown)


def _allowed_values(schema: Mapping[str, Any]) -> tuple[str, ...] | None:
    if "const" in schema:
        return (_canonical(schema["const"]),)
    return tuple(map(_canonical, schema["enum"])) if "enum" in schema else None


def _ranges(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> Iterator[Change]:
    """Compare the ranges of numbers; ``exclusiveMinimum`` 0 is a little tighter than ``minimum`` 0."""
    for side, sign in (("minimum", 1), ("maximum", -1)):
        was, now = _limit(old, side, sign), _limit(new, side, sign)
        if was != now:
            narrower = now > was
            before, after = (_shown_limit(schema, side) for schema in (old, new))
            what = f"{side} {'tighter' if narrower else 'looser'}"
            yield _change("breaking" if narrower else "compatible", (*path, side), what, before, after)


def _limit(schema: Mapping[str, Any], side: str, sign: int) -> tuple[float, bool]:
    open_ended = (float("-inf"), False)
    exclusive = f"exclusive{side.capitalize()}"
    inclusive_limit = (sign * schema[side], False) if side in schema else open_ended
    return max(inclusive_limit, (sign * schema[exclusive], True) if exclusive in schema else open_ended)


def _shown_limit(schema: Mapping[str, Any], side: str) -> JSON:
    exclusive = f"exclusive{side.capitalize()}"
    found = {key: schema[key] for key in (side, exclusive) if key in schema}
    return found.get(side, msgspec.UNSET) if exclusive not in found else found


def _bounds(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> Iterator[Change]:
    for keywords, sign, open_end in ((_LOWER, 1, 0.0), (_UPPER, -1, float("inf"))):
        for keyword in keywords:
            was, now = old.get(keyword, open_end), new.get(keyword, open_end)
            if was != now:
                narrower = sign * now > sign * was
                what = f"{keyword} {'tighter' if narrower else 'looser'}"
                shown = (_or_unset(schema.get(keyword)) for schema in (old, new))
                yield _change("breaking" if narrower else "compatible", (*path, keyword), what, *shown)


def _flags(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> Iterator[Change]:
    for keyword in _SAME_OR_NARROWER:
        was, now = old.get(keyword) or None, new.get(keyword) or None
        if was != now:
            impact: Impact = "compatible" if now is None else "breaking"
            what = "removed" if now is None else "added" if was is None else "changed"
            yield _change(impact, (*path, keyword), f"{keyword} {what}", _or_unset(was), _or_unset(now))


def _multiple(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> Iterator[Change]:
    was, now = old.get("multipleOf"), new.get("multipleOf")
    if was != now:
        wider = now is None or (was is not None and was % now == 0)
        impact: Impact = "compatible" if wider else "breaking"
        yield _change(impact, (*path, "multipleOf"), "multipleOf changed", _or_unset(was), _or_unset(now))


def _annotations(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> Iterator[Change]:
    for keyword in _ANNOTATIONS:
        if old.get(keyword) != new.get(keyword):
            shown = (_or_unset(schema.get(keyword)) for schema in (old, new))
            yield _change("internal", (*path, keyword), f"{keyword} changed", *shown)


def _others(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> Iterator[Change]:
    """Compare all other keywords: a change of one may refuse values that were accepted before."""
    for keyword in {**old, **new}:
        if keyword in _KNOWN or keyword in ("$schema", "$id", "$anchor"):
            continue
        was, now = old.get(keyword), new.get(keyword)
        if was != now:
            impact: Impact = "compatible" if now is None else "breaking"
            yield _change(impact, (*path, keyword), f"{keyword} changed", _or_unset(was), _or_unset(now))


def _canonical(value: JSON) -> str:
    return json.dumps(value, sort_keys=True)


def _or_unset(value: JSON) -> JSON:
    return msgspec.UNSET if value is None else value


def _change(impact: Impact, path: Path, what: str, old: JSON = msgspec.UNSET, new: JSON = msgspec.UNSET) -> Change:
    return Change(impact=impact, path=path, what=what, old=old, new=new)
