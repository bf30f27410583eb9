"""Loads an eval file as an ``EvalFile``, or reports all of its errors at once, each with its place."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from flowrun.errors import Issue, SpecError
from flowrun.errors import Path as DocumentPath
from flowrun.evaluation.eval_file import (
    ComparisonScore,
    ConditionScore,
    EvalFile,
    ExpectationScore,
    FunctionScore,
    Gate,
    JudgeScore,
    Score,
)
from flowrun.spec import Document, issue_at, may_be_spec
from flowrun.spec.model import JSON
from flowrun.spec.phrases import listed
from flowrun.spec.project import is_file
from flowrun.spec.schema import EVAL_SCHEMA
from flowrun.spec.suggestions import suggest
from flowrun.testing.load import parse_expectation, read_checked
from flowrun.testing.suite import Expectation

KINDS: Final = ("when", "compare", "entrypoint", "flow")
"""The keys of which one says what kind of score it is; without any, its keys are words of ``expect``."""

WORDS: Final = frozenset(field.encode_name for field in msgspec.structs.fields(Expectation))

_BELONGS: Final[Mapping[str, tuple[str, ...]]] = {
    "value": ("compare",),
    "expected": ("compare",),
    "with": ("entrypoint", "flow"),
}
"""The keys that belong to kinds."""


def load_eval(path: Path) -> EvalFile:
    """Load an eval file.

    Raises:
        UsageError: the file cannot be read.
        SpecError: the file has errors.
    """
    document = read_checked(path, EVAL_SCHEMA)
    if issues := [*_check_kinds(document), *_check_files(path, document), *_check_gates(document)]:
        raise SpecError(issues)
    return _parse(path, document)


def _parse(path: Path, document: Document) -> EvalFile:
    value, folder = document.value, path.parent
    return EvalFile(
        path=path,
        document=document,
        flow=folder / value["flow"],
        profile=value.get("profile"),
        rows=folder / value["rows"],
        samples=value.get("samples", 1),
        groups=tuple(value.get("groups", ())),
        scores={name: _parse_score(data, folder) for name, data in value["scores"].items()},
        gates={name: msgspec.convert(_plain(data), Gate) for name, data in value.get("gate", {}).items()},
    )


def _parse_score(data: Mapping[str, JSON], folder: Path) -> Score:
    match _kind_of(data):
        case "when":
            return ConditionScore(when=data["when"])
        case "compare":
            return ComparisonScore(**_plain(data))
        case "entrypoint":
            return FunctionScore(entrypoint=data["entrypoint"], arguments=data.get("with"))
        case "flow":
            return JudgeScore(flow=folder / data["flow"], written=data["flow"], inputs=data.get("with", {}))
        case _:
            return ExpectationScore(expect=parse_expectation(_plain(data)))


def _kind_of(data: Mapping[str, JSON]) -> str | None:
    return next((key for key in KINDS if key in data), None)


def _plain(data: Mapping[str, JSON]) -> dict[str, Any]:
    """Return a mapping without the author's own keys."""
    return {key: value for key, value in data.items() if not key.startswith("x-")}


# --- checks of the file alone -------------------------------------------------------------------------------------


def _check_kinds(document: Document) -> Iterator[Issue]:
    for name, data in document.value["scores"].items():
        at, kind, keys = ("scores", name), _kind_of(data), _plain(data)
        if kind is not None and (others := [key for key in keys if key != kind and key in {*WORDS, *KINDS}]):
            message = f"{kind!r} and {listed(others, 'and')} are given together"
            yield issue_at(document, "FR208", (*at, others[0]), message, "make two scores of them", key=True)
        for key, kinds in _BELONGS.items():
            if key in keys and kind not in kinds:
                yield _alone(document, (*at, key), key, kinds)
        if kind is None and not WORDS & keys.keys():
            remedy = f"give {listed(list(KINDS), 'or')}, or words of 'expect' such as 'calls'"
            yield issue_at(document, "FR208", at, f"the score {name!r} says nothing of how it is made", remedy)
        elif kind is None:
            yield from _check_words(document, at, keys)


def _alone(document: Document, at: DocumentPath, key: str, owners: Sequence[str]) -> Issue:
    """Return the issue of a key whose owner is not given."""
    message = f"{key!r} belongs to {listed(list(owners), 'or')}, which is not given"
    return issue_at(document, "FR208", at, message, f"add {owners[0]!r}, or remove it", key=True)


def _check_words(document: Document, at: DocumentPath, keys: dict[str, JSON]) -> Iterator[Issue]:
    try:
        parse_expectation({key: value for key, value in keys.items() if key in WORDS})
    except msgspec.ValidationError as exc:
        message, _, where = str(exc).partition(" - at `$.")
        word = where.partition(".")[0].partition("[")[0].rstrip("`")
        place = (*at, word) if word in keys else at
        yield issue_at(document, "FR210", place, message, "write it as in 'expect' of tests: flowrun schema --test")


def _check_files(path: Path, document: Document) -> Iterator[Issue]:
    value = document.value
    judges = [(("scores", name, "flow"), data["flow"]) for name, data in value["scores"].items() if "flow" in data]
    for at, written in [(("flow",), value["flow"]), *judges, (("rows",), value["rows"])]:
        file = path.parent / written
        if not is_file(file):
            yield issue_at(
                document, "FR706", at, f"there is no file {written!r}", "give its path relative to this file"
            )
        elif at != ("rows",) and not may_be_spec(file.read_bytes()):
            remedy = "a spec has a top-level key 'flowrun'"
            yield issue_at(document, "FR709", at, f"the file {written!r} is no spec", remedy)


def _check_gates(document: Document) -> Iterator[Issue]:
    scores = document.value["scores"]
    first = ""
    for name, gate in document.value.get("gate", {}).items():
        at = ("gate", name)
        if name not in scores:
            remedy = suggest(name, scores, "scores")
            yield issue_at(document, "FR714", at, f"there is no score {name!r}", remedy, key=True)
        if (against := gate.get("against")) is None:
            continue
        first = first or against
        if "max_drop" not in gate:
            yield _alone(document, (*at, "against"), "against", ["max_drop"])
        if against != first:
            message = f"an eval is compared with one thing, and another gate says {first!r}"
            yield issue_at(document, "FR204", (*at, "against"), message, f"write {first!r}")
