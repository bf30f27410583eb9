"""FR501 to FR504, FR510: entrypoints lead to Python functions, which can be called with what the spec gives them."""

from collections.abc import Iterator, Mapping

from flowrun.checks.offers import is_constant
from flowrun.checks.schema_sense import properties_elsewhere
from flowrun.checks.subject import Severity, Subject
from flowrun.core.json_schema import compile_schema
from flowrun.errors import Issue, Path, dotted
from flowrun.spec import EntrypointError, Signature, check_arguments, check_signature, check_value
from flowrun.spec.hidden_arguments import mentions_of
from flowrun.spec.model import JSON, Holds
from flowrun.spec.parts import parts_of
from flowrun.spec.suggestions import suggest


def check_tools(subject: Subject) -> Iterator[Issue]:
    """Find entrypoints without a function, and functions that cannot be called as declared. Needs their signatures."""
    yield from _hidden_arguments(subject)
    if subject.functions is None:
        return
    for name, tool in subject.spec.tools.items():
        if tool.entrypoint is None or not subject.has(("tools", name)):
            continue
        yield from _entrypoint(subject, ("tools", name, "entrypoint"), tool.entrypoint)
        signature = subject.functions.get(tool.entrypoint)
        if not isinstance(signature, Signature):
            continue
        if tool.parameters is None and signature.underivable is not None:
            message, remedy = signature.underivable
            yield subject.issue("FR502", ("tools", name), f"the tool {name!r}: {message}", remedy, key=True)
        if tool.parameters is None or properties_elsewhere(tool.parameters):
            continue  # in the second case, check_schemas reports it
        required = [*tool.parameters.get("required", ()), *tool.arguments]  # what the spec gives is always there
        for found in check_signature(signature, {**tool.parameters, "required": required}):
            where: Path = ("tools", name, "parameters")
            severity: Severity = "error" if found.certain else "warning"
            yield subject.issue("FR503", where, found.message, found.remedy, key=True, severity=severity)
    for name, state in subject.spec.states.items():
        for part in parts_of(state, Holds.ENTRYPOINT):
            yield from _entrypoint(subject, ("states", name, *part.path), part.value)
            signature = subject.functions.get(part.value)
            if isinstance(signature, Signature):
                for argument, message, remedy in check_arguments(signature, part.owner.arguments):
                    where = ("states", name, *part.path[:-1], *(() if argument is None else ("with", argument)))
                    yield subject.issue("FR504", where, message, remedy, key=True)
                for argument, value in part.owner.arguments.items():
                    if is_constant(value) and (wrong := check_value(signature, argument, value)):
                        where = ("states", name, *part.path[:-1], "with", argument)
                        yield subject.issue("FR504", where, wrong, "change the value or the function's annotation")


def _hidden_arguments(subject: Subject) -> Iterator[Issue]:
    """Find arguments in a tool's ``with`` that its parameters do not have, mention elsewhere, or do not admit."""
    for name, tool in subject.spec.tools.items():
        schema = subject.parameters_of(tool) if subject.has(("tools", name)) else None
        properties = {} if schema is None else schema.get("properties", {})
        if schema is None or not isinstance(properties, Mapping):
            continue
        for argument, value in tool.arguments.items():
            at = ("tools", name, "with", argument)
            if argument not in properties:
                message = f"the parameters of {name!r} have no property {argument!r}"
                remedy = suggest(argument, [other for other in properties if other not in tool.arguments], "properties")
                yield subject.issue("FR510", at, message, remedy, key=True)
            elif where := next(mentions_of(schema, argument), None):
                message = (
                    f"{argument!r} cannot be hidden: the parameters of {name!r} mention it in {dotted(where)!r} too"
                )
                yield subject.issue(
                    "FR510", at, message, "say it there without this argument, or leave it visible", key=True
                )
            elif is_constant(value) and (wrong := _mismatch(schema, argument, value)):
                message = f"it does not match the parameters of {name!r}: {wrong}"
                yield subject.issue("FR510", at, message, "give a value that the parameters allow")


def _mismatch(schema: Mapping[str, JSON], argument: str, value: JSON) -> str | None:
    """Return why a value is not what a schema of arguments admits for an argument."""
    parts = {key: schema[key] for key in ("properties", "$defs", "definitions") if key in schema}
    try:
        return compile_schema(parts)({argument: value})
    except ValueError:
        return None  # the schema itself is wrong; check_schemas reports it


def _entrypoint(subject: Subject, path: Path, entrypoint: str) -> Iterator[Issue]:
    assert subject.functions is not None
    function = subject.functions.get(entrypoint)
    if isinstance(function, EntrypointError):
        yield subject.issue("FR501", path, function.message, function.remedy)
