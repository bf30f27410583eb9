"""FR507: a JSON Schema that constrains decoding uses only keywords that a decoder's grammar can enforce.

Source: the function ``has_xgrammar_unsupported_json_features`` in vLLM.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from flowrun.checks.subject import Subject
from flowrun.errors import Issue, Path
from flowrun.spec.hidden_arguments import without_arguments
from flowrun.spec.json_types import declared_types
from flowrun.spec.model import JSON, ChatState, Spec, is_template

FORMATS: Final = frozenset(
    {
        *("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "json-pointer"),
        *("relative-json-pointer", "time", "uri", "uri-reference", "uri-template", "uuid"),
    }
)
"""The values of ``format`` that xgrammar can enforce."""

_REMEDY: Final = (
    "leave it out of the schema and check the value in a route or a function; vLLM may refuse it, or decode slower"
)


def check_grammar(subject: Subject) -> Iterator[Issue]:
    """Find keywords that no grammar enforces, in the schemas of replies and of forced or strict tool calls."""
    spec = subject.spec
    for name, state in spec.states.items():
        if isinstance(state, ChatState) and (form := state.response_format) is not None and form.schema is not None:
            yield from _schema(subject, ("states", name, "response_format", "schema"), form.schema)
    forced = _forced(spec)
    for name, tool in spec.tools.items():
        if tool.parameters is not None and (tool.strict or name in forced) and subject.has(("tools", name)):
            seen = without_arguments(tool.parameters, tool.arguments)
            yield from _schema(subject, ("tools", name, "parameters"), seen)


def _forced(spec: Spec) -> set[str]:
    """Return the tools that some chat state forces the model to call."""
    forced: set[str] = set()
    for state in spec.states.values():
        if isinstance(state, ChatState) and (state.tool_choice == "required" or is_template(state.tool_choice)):
            forced |= set(state.tools_among(spec.tools))
        elif isinstance(state, ChatState):
            forced.add(state.tool_choice)
    return forced


def _schema(subject: Subject, path: Path, schema: Mapping[str, JSON]) -> Iterator[Issue]:
    for where, what in unenforced(schema, path):
        message = f"no grammar of vLLM's xgrammar can enforce {what}"
        yield subject.issue("FR507", where, message, _REMEDY, severity="warning")


def unenforced(schema: JSON, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield each keyword of a schema that xgrammar cannot enforce: its path and its description."""
    if not isinstance(schema, Mapping):
        return
    for key, what in _features(schema):
        yield (*path, key), what
    for key, value in schema.items():
        if isinstance(value, Mapping):
            yield from unenforced(value, (*path, key))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from unenforced(item, (*path, key, index))


def _features(schema: Mapping[str, JSON]) -> Iterator[tuple[str, str]]:
    """Yield the keywords of one schema, without its subschemas, that cannot be enforced, with their descriptions."""
    kinds = declared_types(schema)
    if kinds & {"integer", "number"} and "multipleOf" in schema:
        yield "multipleOf", "'multipleOf'"
    if "array" in kinds:
        for key in ("uniqueItems", "contains", "minContains", "maxContains"):
            if key in schema:
                yield key, f"{key!r}"
    if "string" in kinds:
        yield from _text_features(schema)
    if "object" in kinds:
        yield from _object_features(schema)
    if isinstance(schema.get("allOf"), list) and len(schema["allOf"]) > 1:
        yield "allOf", "'allOf' of more than one schema"


def _text_features(schema: Mapping[str, JSON]) -> Iterator[tuple[str, str]]:
    if "format" in schema and schema["format"] not in FORMATS:
        yield "format", f"the format {schema['format']!r}"
    if bounds := _bounded_pattern(schema):
        yield bounds


def _object_features(schema: Mapping[str, JSON]) -> Iterator[tuple[str, str]]:
    names, patterns = schema.get("propertyNames"), schema.get("patternProperties")
    if names is not None:
        if isinstance(names, Mapping) and _bounded_pattern(names):
            yield "propertyNames", "'propertyNames' with a pattern or format and a length"
        conflicting = [key for key in ("patternProperties", "properties") if key in schema]
        if schema.get("unevaluatedProperties", True) is not True:
            conflicting.append("unevaluatedProperties")
        if conflicting:
            yield "propertyNames", f"'propertyNames' beside {' and '.join(map(repr, conflicting))}"
    if isinstance(patterns, Mapping):
        if "properties" in schema:
            yield "patternProperties", "'patternProperties' beside 'properties'"
        elif len(patterns) > 1:
            yield "patternProperties", "more than one pattern in 'patternProperties'"


def _bounded_pattern(schema: Mapping[str, JSON]) -> tuple[str, str] | None:
    form = next((key for key in ("pattern", "format") if key in schema), None)
    bound = next((key for key in ("minLength", "maxLength") if key in schema), None)
    return (bound, f"{bound!r} beside {form!r}") if form and bound else None
