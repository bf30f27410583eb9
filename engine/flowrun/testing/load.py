"""Loads a test file as a ``Suite``, or reports all of its errors at once, each with its place."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from flowrun.backends.scripted import ScriptedReply, check_when
from flowrun.core.graph import Graph
from flowrun.errors import Issue, SpecError
from flowrun.errors import Path as DocumentPath
from flowrun.files import file_errors
from flowrun.spec import Document, issue_at, may_be_spec
from flowrun.spec.find import find_files
from flowrun.spec.model import JSON, MAIN, DecideState, Holds, Spec, has_template
from flowrun.spec.parse import decode_duration, parse_duration
from flowrun.spec.parts import parts_of
from flowrun.spec.project import is_file
from flowrun.spec.schema import TEST_SCHEMA, check_schema
from flowrun.spec.suggestions import suggest
from flowrun.spec.yaml.reader import read_document
from flowrun.templates import Scope, TemplateError, compile_condition
from flowrun.testing.suite import SUFFIX, Case, CaseReply, Expectation, GivenAnswer, RawReply, Stub, Suite

_SPEC_REMEDIES: Final = frozenset({"FR112", "FR114"})
"""The issues of a file that is empty or not a mapping; their remedies are written for specs."""


def find_suites(paths: Iterable[Path]) -> list[Path]:
    """Find the test files of paths, each once.

    Args:
        paths: test files, specs (for the test file with the same stem), and folders (for all test files below them).
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found |= dict.fromkeys(find_files(path, (SUFFIX,)))
        elif is_file(file := path if path.name.endswith(SUFFIX) else path.with_suffix(SUFFIX)):
            found[file] = None
    return list(found)


def load_suite(path: Path) -> Suite:
    """Load a test file.

    Raises:
        UsageError: the file cannot be read.
        SpecError: the file has errors.
    """
    suite = _parse(path, read_checked(path, TEST_SCHEMA))
    if issues := [*_check_files(suite), *_check_tests(suite)]:
        raise SpecError(issues)
    return suite


def read_checked(path: Path, schema: str) -> Document:
    """Read a document that names a flow, of tests or of an evaluation, and check it against its schema.

    Raises:
        UsageError: the file cannot be read.
        SpecError: the document has errors.
    """
    with file_errors(f"{path} cannot be read"):
        document = read_document(path.read_bytes(), str(path))
    issues = list(map(_with_remedy, document.issues))
    if document.value is not None:
        reported = {issue.place for issue in issues}
        issues += [issue for issue in check_schema(document, schema) if issue.place not in reported]
    if any(issue.severity == "error" for issue in issues):
        raise SpecError(issues)
    return document


def _with_remedy(issue: Issue) -> Issue:
    if issue.code not in _SPEC_REMEDIES:
        return issue
    return msgspec.structs.replace(issue, remedy="begin it with 'flow: weather.yaml', or what your spec is called")


# --- parsing ------------------------------------------------------------------------------------------------------


def _parse(path: Path, document: Document) -> Suite:
    folder = path.parent
    tests: list[dict[str, JSON]] = document.value["tests"]
    cases = tuple(_parse_case(test, ("tests", index), folder) for index, test in enumerate(tests))
    return Suite(path=path, document=document, flow=folder / document.value["flow"], cases=cases)


def _parse_case(test: dict[str, JSON], at: DocumentPath, folder: Path) -> Case:
    cassette = test.get("cassette")
    return Case(
        name=test["name"],
        at=at,
        profile=test.get("profile"),
        inputs=test.get("inputs", {}),
        replies=tuple(map(_parse_reply, test.get("replies", ()))),
        cassette=None if cassette is None else folder / cassette,
        stubs={name: _parse_stubs(data) for name, data in test.get("tools", {}).items()},
        answers=_convert(test.get("answers", []), tuple[GivenAnswer, ...]),
        expect=parse_expectation(test.get("expect", {})),
    )


def parse_expectation(data: dict[str, JSON]) -> Expectation:
    """Convert an expectation. A list of messages is for the thread ``main``."""
    if isinstance(data.get("messages"), list):
        data = {**data, "messages": {MAIN: data["messages"]}}
    expectation: Expectation = _convert(data, Expectation)
    return expectation


def _parse_stubs(data: JSON) -> tuple[Stub, ...]:
    stubs: tuple[Stub, ...] = _convert(data if isinstance(data, list) else [data], tuple[Stub, ...])
    return stubs


def _parse_reply(data: dict[str, JSON]) -> CaseReply:
    fields = {key: value for key, value in data.items() if key != "when"}
    if "delay" in fields:
        fields["delay"] = float(parse_duration(fields["delay"]))
    reply: ScriptedReply = _convert(fields, RawReply if "text" in fields else ScriptedReply)
    return CaseReply(reply=reply, holds=_compile_when(data.get("when")))


def _compile_when(when: str | None) -> Callable[[Scope], bool] | None:
    """Compile a ``when``; return None if there is none, or if it is invalid, which ``_check_when`` reports."""
    try:
        return None if when is None else compile_condition(when)
    except TemplateError:
        return None


def _convert(value: JSON, kind: Any) -> Any:
    return msgspec.convert(value, kind, dec_hook=decode_duration)


# --- checks of the file alone -------------------------------------------------------------------------------------


def _check_files(suite: Suite) -> Iterator[Issue]:
    document = suite.document
    if not is_file(suite.flow):
        message = f"there is no file {document.value['flow']!r}"
        yield issue_at(document, "FR706", ("flow",), message, "give the spec's path relative to this file")
    elif not may_be_spec(suite.flow.read_bytes()):
        message = f"the file {document.value['flow']!r} is no spec"
        yield issue_at(document, "FR709", ("flow",), message, "a spec has a top-level key 'flowrun'")
    for case, test in zip(suite.cases, document.value["tests"], strict=True):
        if case.cassette is not None and not is_file(case.cassette):
            remedy = f"record it: flowrun {suite.flow} --record {case.cassette}"
            message = f"there is no file {test['cassette']!r}"
            yield issue_at(document, "FR706", (*case.at, "cassette"), message, remedy)


def _check_tests(suite: Suite) -> Iterator[Issue]:
    document = suite.document
    names: dict[str, int] = {}
    for number, (case, test) in enumerate(zip(suite.cases, document.value["tests"], strict=True), 1):
        first = names.setdefault(case.name, number)
        if first != number:
            message = f"test {first} is called {case.name!r} too"
            yield issue_at(document, "FR207", (*case.at, "name"), message, "give each test a name of its own")
        for index, reply in enumerate(test.get("replies", ())):
            at = (*case.at, "replies", index)
            if "message" in reply and "error" not in reply:
                message = "'message' is what an error says, and this reply is none"
                yield issue_at(document, "FR208", (*at, "message"), message, "write 'content', or add 'error'")
            if "when" in reply:
                yield from check_when(document, (*at, "when"), reply["when"])


# --- checks against the flow --------------------------------------------------------------------------------------


def check_case(suite: Suite, case: Case, graph: Graph) -> list[Issue]:
    """Check that the tools, states, threads and variables that a test names exist in its flow or the sub-flows."""
    flows = list(_flow_tree(graph))
    states = [(name, state) for flow in flows for name, state in flow.spec.states.items()]
    tools = {name for flow in flows for name, tool in flow.tools.items() if tool.entrypoint}
    entrypoints = {part.value for _, state in states for part in parts_of(state, Holds.ENTRYPOINT)}
    asking = {name for flow in flows for name, tool in flow.spec.tools.items() if tool.approve is not None}
    waits = {name for flow in flows for name, state in flow.spec.states.items() if flow.spec.may_ask(state)}
    stubs = [((*case.at, "tools", name), name) for name in case.stubs]
    answers = [((*case.at, "answers", index, "state"), answer.state) for index, answer in enumerate(case.answers)]
    decides = {name: tuple(state.described) for name, state in states if isinstance(state, DecideState)}
    calls = [
        ((*case.at, "answers", index, "call"), answer.call)
        for index, answer in enumerate(case.answers)
        if answer.call is not None
    ]
    unknown, specs = partial(_unknown, suite.document), [flow.spec for flow in flows]
    return [
        *unknown("FR702", stubs, tools | entrypoints, "tool or called function", key=True),
        *unknown("FR701", answers, waits, "state that asks"),
        *unknown("FR702", calls, asking, "tool with approve"),
        *check_expectation(suite.document, (*case.at, "expect"), case.expect, specs),
        *_other_labels(suite, case, decides),
    ]


def check_expectation(
    document: Document, at: DocumentPath, expect: Expectation, flows: Sequence[Spec]
) -> Iterator[Issue]:
    """Yield the names in an expectation that do not exist: in the flow itself, or, if sub-flows count, in none.

    Args:
        at: the path of the expectation in the document.
        flows: the spec of the flow, then those of its sub-flows.
    """
    unknown, spec = partial(_unknown, document), flows[0]
    all_states = [(name, state) for flow in flows for name, state in flow.states.items()]
    path = [((*at, "path", index), name) for index, name in enumerate(expect.path or ())]
    moves = [
        ((*at, "moves", index, key), name)
        for index, move in enumerate(expect.moves or ())
        for key, name in (("state", move.state), ("to", move.to))
        if name
    ]
    yield from unknown("FR701", [*path, *moves], spec.states, "state")
    calls = [((*at, "function_calls", i, "state"), call.state) for i, call in enumerate(expect.function_calls or ())]
    calling = {name for name, state in all_states if any(parts_of(state, Holds.ENTRYPOINT))}
    yield from unknown("FR701", calls, calling, "call state")
    asked = [((*at, "requests", index, "state"), ask.state) for index, ask in enumerate(expect.requests or ())]
    yield from unknown("FR701", asked, {name for name, _ in all_states}, "state")
    called = [((*at, "calls", index, "name"), call.name) for index, call in enumerate(expect.calls or ())]
    known = {name for flow in flows for name in flow.tools}
    yield from unknown("FR702", [one for one in called if not has_template(one[1])], known, "tool")
    variables = [((*at, "vars", name), name) for name in expect.vars]
    yield from unknown("FR404", variables, spec.variables, "variable", key=True)
    threads = [((*at, "messages", name), name) for name in expect.messages if name != MAIN]
    used = {part.value for state in spec.states.values() for part in parts_of(state, Holds.THREAD)}
    yield from unknown("FR703", threads, {*spec.threads, *used}, "thread", key=True)


def _other_labels(suite: Suite, case: Case, decides: Mapping[str, tuple[str, ...]]) -> Iterator[Issue]:
    """Find probabilities whose labels are those of no decide state."""
    known = list(map(set, decides.values()))
    for index, one in enumerate(case.replies):
        if one.reply.probabilities is None or one.reply.probabilities.keys() in known:
            continue
        labels = ", ".join(one.reply.probabilities)
        message = f"no decide state of the flow has these choices: {labels}" if labels else "there are no probabilities"
        states = "; ".join(f"{name}: {', '.join(choices)}" for name, choices in decides.items())
        remedy = f"the choices of its states are {states}" if states else "the flow has no decide state"
        yield issue_at(suite.document, "FR204", (*case.at, "replies", index, "probabilities"), message, remedy)


def _unknown(
    document: Document,
    code: str,
    names: Iterable[tuple[DocumentPath, str]],
    known: Collection[str],
    kind: str,
    *,
    key: bool = False,
) -> Iterator[Issue]:
    for at, name in names:
        if name not in known:
            remedy = suggest(name, known, f"{kind.replace(' or', 's or')}s")
            yield issue_at(document, code, at, f"the flow has no {kind} {name!r}", remedy, key=key)


def _flow_tree(graph: Graph) -> Iterator[Graph]:
    """Yield a graph and the graphs of its sub-flows; no flow runs itself, so the recursion ends."""
    yield graph
    for child in graph.flows.values():
        yield from _flow_tree(child)
