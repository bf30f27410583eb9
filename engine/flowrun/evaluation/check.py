"""Checks an eval file against its flow and its rows. Templates are parsed, never evaluated, and nothing is imported."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from flowrun.batch.rows import Row, RowFile
from flowrun.checks.shapes import find_missing_member
from flowrun.checks.slips import remedy_of_name, remedy_of_syntax
from flowrun.core.json_schema import Validator, compile_inputs
from flowrun.core.messages import Usage
from flowrun.core.shapes import ANY, ROOT, Shape, closed, shape_of, shape_of_output
from flowrun.errors import Bug, FlowrunError, Issue, SpecError, UsageError, crash_issue, dotted
from flowrun.errors import Path as DocumentPath
from flowrun.evaluation.eval_file import (
    ComparisonScore,
    ConditionScore,
    EvalFile,
    ExpectationScore,
    FunctionScore,
    JudgeScore,
    ScoreScope,
)
from flowrun.evaluation.load import load_eval
from flowrun.evaluation.scoring import names_for
from flowrun.excerpts import cut
from flowrun.runtime.project import Project
from flowrun.runtime.signature_reader import Request, SignatureReader
from flowrun.spec import ON_DISK, EntrypointError, FlowTree, Signature, find_project, issue_at
from flowrun.spec.model import MAIN, Spec, Template, has_template
from flowrun.spec.signatures import check_arguments
from flowrun.spec.suggestions import suggest
from flowrun.templates import TemplateError
from flowrun.templates.reads import Reads, reads_of_expression, reads_of_template
from flowrun.testing.load import check_expectation

_NAMES: Final = tuple(ScoreScope.__annotations__)
_SHOWN: Final = 200  # characters
_MOST_ROWS: Final = 5
"""The rows that are reported for one fault."""


class ScoreText(NamedTuple):
    """A template of a score, with its path in the file."""

    at: DocumentPath
    text: str
    is_expression: bool = False

    def reads(self) -> Reads:
        """Return the names that it reads. Raises ``TemplateError`` if it is none."""
        return reads_of_expression(self.text) if self.is_expression else reads_of_template(self.text)


def check_evals(paths: Sequence[Path], project: Project, *, imports: bool) -> list[Issue]:
    """Return the issues of eval files; every failure with one of them becomes an issue.

    Args:
        imports: import the Python functions, in a process of their own, and check how they are called.
    """
    found: list[Issue] = []
    with SignatureReader(project.folder, seconds=project.import_seconds) as reader:
        for path in paths:
            try:
                found += check_eval(path, project, reader=reader if imports else None)
            except Exception as exc:
                if isinstance(exc, FlowrunError) and not isinstance(exc, Bug):
                    raise
                found.append(crash_issue(str(path), exc))
    return found


def check_eval(
    path: Path, project: Project, *, profile: str | None = None, reader: SignatureReader | None = None
) -> list[Issue]:
    """Return the issues of an eval file. Those of its flows themselves are not among them.

    Args:
        profile: the profile of the flow, in place of that of the file.
        reader: reads the signatures of functions; None: they are not looked at.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        file = load_eval(path)
    except SpecError as exc:
        return list(exc.issues)
    tree = _tree(project, file.flow, file.profile if profile is None else profile)
    if not isinstance(tree, FlowTree):
        return [_broken_flow(file, ("flow",), file.document.value["flow"], tree)]
    check = _EvalCheck(file, [one.loaded.spec for one in tree.walk()])
    issues = [
        *check.texts(),
        *check.expectations(),
        *check.rows(),
        *(issue for name, score in file.judges.items() for issue in _check_judge(file, name, score, project)),
        *([] if reader is None else _check_functions(file, reader)),
    ]
    return sorted(dict.fromkeys(issues), key=lambda issue: (issue.place, issue.code))


def _tree(project: Project, flow: Path, profile: str | None) -> FlowTree | FlowrunError:
    folder = find_project(flow, project.folder)
    try:
        return project.load_flows(project.load(flow, profile, ON_DISK, folder), profile, ON_DISK, folder)
    except (SpecError, UsageError) as exc:
        return exc


def _broken_flow(file: EvalFile, at: DocumentPath, written: str, error: FlowrunError) -> Issue:
    if isinstance(error, SpecError):
        count = sum(issue.severity == "error" for issue in error.issues)
        what = f"{written} has {count} error{'s' if count != 1 else ''}, so the eval was not checked against it"
        return issue_at(file.document, "FR713", at, what, f"see them: flowrun validate {file.path.parent / written}")
    return issue_at(file.document, "FR713", at, f"{written} cannot be used: {error}", "mend this first")


class _EvalCheck:
    """The check of a file against the spec of its flow, the first of ``specs``, and its rows."""

    def __init__(self, file: EvalFile, specs: Sequence[Spec]) -> None:
        self._file = file
        self._specs = specs
        self._spec = specs[0]
        self._reads: list[tuple[ScoreText, Reads]] = []

    def texts(self) -> Iterator[Issue]:
        """Find templates that are none, and names in them that do not exist."""
        shapes = _shapes(self._spec)
        for text in _texts_of(self._file):
            if text.is_expression and ("{{" in text.text or "{%" in text.text):
                remedy = "write the expression without braces, such as when: row.expected in output.answer"
                message = f"{text.text!r} has braces, and is an expression already"
                yield self._issue("FR403", text.at, message, remedy)
                continue
            try:
                reads = text.reads()
            except TemplateError as exc:
                yield self._issue("FR401", text.at, str(exc), remedy_of_syntax(text.text, str(exc)))
                continue
            self._reads.append((text, reads))
            yield from self._names(text, reads, shapes)

    def _names(self, text: ScoreText, reads: Reads, shapes: Mapping[str, Shape]) -> Iterator[Issue]:
        shown = cut(text.text, _SHOWN)
        for name in sorted(reads.roots - {*_NAMES}):
            remedy = remedy_of_name(name, text.text) or suggest(name, _NAMES, "names")
            yield self._issue("FR402", text.at, f"the name {name!r} is not defined in {shown!r}", remedy)
        for path in sorted(reads.paths, key=str):
            if path[0] not in shapes or _is_guarded(path, reads):
                continue
            if (missing := find_missing_member(shapes[str(path[0])], path)) is not None and missing.sure:
                owner = dotted(missing.owner)
                what = "is always null" if missing.kind == "null" else f"has no member {missing.key!r}"
                remedy = suggest(str(missing.key), missing.known, f"members of {owner}")
                yield self._issue("FR404", text.at, f"{owner} {what}, which {shown!r} reads", remedy)

    def expectations(self) -> Iterator[Issue]:
        """Find names of states, tools, threads and variables that the flow does not have."""
        for name, score in self._file.scores.items():
            if isinstance(score, ExpectationScore):
                yield from check_expectation(self._file.document, ("scores", name), score.expect, self._specs)

    def rows(self) -> Iterator[Issue]:
        """Find rows whose inputs the flow does not take, or that lack what a score or a group reads."""
        try:
            rows = RowFile(self._file.rows, self._spec)
            rows.survey()
            inputs = compile_inputs(self._spec)
        except (UsageError, ValueError) as exc:  # a ValueError is an issue of the spec's own
            yield self._issue("FR715", ("rows",), str(exc), "mend the file")
            return
        needed = self._needed()
        lacking: dict[str, list[int]] = {}
        wrong: list[tuple[int, str]] = []
        known: set[str] = set()
        for row in rows:
            if (fault := self._fault(row, inputs)) is not None:
                wrong.append((row.number, fault))
                continue
            members = {"id", *row.inputs, *row.columns}
            known |= members
            for member in needed.keys() - members:
                lacking.setdefault(member, []).append(row.number)
        yield from self._wrong_rows(wrong)
        for member, numbers in sorted(lacking.items()):
            if member not in known or member not in self._file.groups:  # rows without a group are one
                yield self._lacking(member, needed[member], numbers, known)

    def _fault(self, row: Row, inputs: Validator) -> str | None:
        return row.wrong or inputs(self._spec.add_defaults(row.inputs))

    def _wrong_rows(self, wrong: Sequence[tuple[int, str]]) -> Iterator[Issue]:
        for number, fault in wrong[:_MOST_ROWS]:
            more = f" ({len(wrong)} rows have such faults)" if len(wrong) > _MOST_ROWS else ""
            message = f"row {number} is not what the flow takes: {fault}{more}"
            yield self._issue("FR715", ("rows",), message, "mend the row, or the inputs of the flow")

    def _lacking(self, member: str, at: DocumentPath, numbers: Sequence[int], known: Collection[str]) -> Issue:
        if member not in known:
            return self._issue(
                "FR715", at, f"no row has the member {member!r}", suggest(member, known, "members of rows")
            )
        count = "1 row lacks" if len(numbers) == 1 else f"{len(numbers)} rows lack"
        message = f"{count} the member {member!r}, such as row {numbers[0]}"
        return self._issue("FR715", at, message, f"add it, or write row.{member} | default(...)")

    def _needed(self) -> dict[str, DocumentPath]:
        """Return the members of rows that something reads, each with the path of the first that does."""
        found: dict[str, DocumentPath] = {member: ("groups", index) for index, member in enumerate(self._file.groups)}
        for text, reads in self._reads:
            for path in reads.paths:
                if path[0] == "row" and len(path) > 1 and isinstance(path[1], str) and not _is_guarded(path, reads):
                    found.setdefault(path[1], text.at)
        return found

    def _issue(self, code: str, at: DocumentPath, message: str, remedy: str) -> Issue:
        return issue_at(self._file.document, code, at, message, remedy)


def _is_guarded(path: tuple[str | int, ...], reads: Reads) -> bool:
    return any(path[: len(guard)] == guard for guard in reads.guarded if len(guard) > 1)


def _shapes(spec: Spec) -> Mapping[str, Shape]:
    """Return the shapes of what scores see, of those names whose members are known."""
    number, text = {"type": "number"}, {"type": "string"}
    members = ("role", "content", "reasoning", "tool_calls", "tool_call_id", "name")
    messages: Shape = {"type": "array", "items": closed(**dict.fromkeys(members, ANY))}
    return {
        "inputs": closed(**{name: {ROOT: schema} for name, schema in spec.inputs.items()}),
        "output": shape_of_output(spec, failed=True),
        "status": text,
        "error": {**closed(name=text, message=text, state=text, types=ANY), "type": ["object", "null"]},
        "path": {"type": "array", "items": text},
        "rounds": number,
        "usage": shape_of(Usage),
        "seconds": number,
        "sample": number,
        "messages": messages,
        "threads": closed(**dict.fromkeys((MAIN, *spec.threads), messages)),
        "calls": {"type": "array", "items": closed(name=text, arguments=ANY)},
        "vars": closed(**dict.fromkeys(spec.variables, ANY)),
    }


def _texts_of(file: EvalFile) -> Iterator[ScoreText]:
    for name, score in file.scores.items():
        at: DocumentPath = ("scores", name)
        match score:
            case ConditionScore():
                yield ScoreText((*at, "when"), score.when, is_expression=True)
            case ExpectationScore():
                yield from _templates(msgspec.to_builtins(score.expect), at)
            case ComparisonScore():
                yield from _templates(score.expected, (*at, "expected"))
                if score.value is not msgspec.UNSET:
                    yield from _templates(score.value, (*at, "value"))
            case FunctionScore():
                yield from _templates(score.arguments or {}, (*at, "with"))
            case JudgeScore():
                yield from _templates(score.inputs, (*at, "with"))


def _templates(value: Template, at: DocumentPath) -> Iterator[ScoreText]:
    if isinstance(value, str):
        if has_template(value):
            yield ScoreText(at, value)
    elif isinstance(value, Mapping):
        for key, member in value.items():
            yield from _templates(member, (*at, key))
    elif isinstance(value, list | tuple):
        for index, member in enumerate(value):
            yield from _templates(member, (*at, index))


def _check_judge(file: EvalFile, name: str, score: JudgeScore, project: Project) -> Iterator[Issue]:
    at: DocumentPath = ("scores", name)
    tree = _tree(project, score.flow, None)
    if not isinstance(tree, FlowTree):
        yield _broken_flow(file, (*at, "flow"), score.written, tree)
        return
    spec = tree.loaded.spec
    for one, schema in spec.inputs.items():
        if one not in score.inputs and "default" not in schema:
            message = f"the flow {score.written!r} needs the input {one!r}"
            yield issue_at(file.document, "FR708", at, message, f"add '{one}' to with, or give the input a default")
    for one in score.inputs:
        if one not in spec.inputs:
            message = f"the flow {score.written!r} has no input {one!r}"
            remedy = suggest(one, spec.inputs, f"inputs of {score.written}")
            yield issue_at(file.document, "FR708", (*at, "with", one), message, remedy, key=True)


def _check_functions(file: EvalFile, reader: SignatureReader) -> Iterator[Issue]:
    scores = {name: score for name, score in file.scores.items() if isinstance(score, FunctionScore)}
    requests = {name: Request(score.entrypoint, file.path) for name, score in scores.items()}
    found = reader.read(requests.values())
    for name, score in scores.items():
        signature, at = found[requests[name]], ("scores", name)
        if isinstance(signature, EntrypointError):
            yield issue_at(file.document, "FR501", (*at, "entrypoint"), signature.message, signature.remedy)
        else:
            yield from _check_call(file, at, score, signature)


def _check_call(file: EvalFile, at: DocumentPath, score: FunctionScore, signature: Signature) -> Iterator[Issue]:
    given = names_for(signature) if score.arguments is None else list(score.arguments)
    for argument, message, remedy in check_arguments(signature, given):
        place = (*at, "entrypoint") if argument is None else (*at, "with", argument)
        if score.arguments is None:
            remedy = f"its parameters may be {', '.join(_NAMES)}; or give 'with'"
        yield issue_at(file.document, "FR504", place, message, remedy, key=argument is not None)
