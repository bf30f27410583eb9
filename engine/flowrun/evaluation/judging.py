"""Scores that flows give. A judgement is kept by the judge and what it was asked: nothing is judged twice."""

import hashlib
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from flowrun.batch.lines import ends_within_a_line
from flowrun.core.ports import ModelBackend
from flowrun.errors import StoreError
from flowrun.evaluation.eval_file import JudgeScore
from flowrun.evaluation.scoring import UNREACHABLE, Scored, ScoredRun, as_scored
from flowrun.evaluation.sides import version_of, with_cassette
from flowrun.files import PRIVATE, file_errors
from flowrun.runtime.engines import BackendSettings
from flowrun.runtime.flow_runs import FlowRuns
from flowrun.runtime.loop import Loop
from flowrun.runtime.meter import Meter
from flowrun.runtime.project import CompiledFlow
from flowrun.runtime.run_result import guard
from flowrun.runtime.session import Session, Wrap
from flowrun.spec import mask, mask_excerpt
from flowrun.spec.model import JSON
from flowrun.templates import compile_value
from flowrun.unicode import one_json_line

FILE: Final = "judgements.jsonl"


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the file of judgements."""

    key: str
    value: float | bool | None
    reason: str = ""


class Question(NamedTuple):
    """What a judge is asked: its inputs, under the key of the judgement.

    ``seed`` is made of the inputs: the same question gets the same judgement, as far as the model allows.
    """

    key: str
    inputs: Mapping[str, JSON]
    seed: int


class Judge:
    """A flow that judges, with the inputs that it is given."""

    def __init__(self, score: JudgeScore, flow: CompiledFlow, cassette: str | None) -> None:
        self.flow = flow
        self._render = compile_value(dict(score.inputs))
        self._version = version_of(flow, cassette)

    def question(self, run: ScoredRun) -> Question:
        """Return what the judge is asked about a run.

        Raises:
            TemplateError: what its inputs read is not there.
        """
        inputs = self._render(run.scope)
        asked = msgspec.json.encode(inputs, order="deterministic")
        key = hashlib.sha256(f"{self._version}\n".encode() + asked).hexdigest()
        return Question(key, inputs, zlib.crc32(asked) & 0x7FFFFFFF)


class Judgements:
    """The judgements of a file, to which new ones are added as they are given.

    Attributes:
        failed: by the question's key, why a judge gave no judgement in this process.
    """

    def __init__(self, path: Path) -> None:
        """Read the file; lines that are none, such as one that a crash has cut, are left out."""
        self.failed: dict[str, str] = {}
        self._path = path
        self._known = {judgement.key: judgement for judgement in _read(path)}

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def score(self, judge: Judge, run: ScoredRun) -> Scored:
        """Return the score of a run. A run that did not succeed is not judged: its score is 0."""
        if not run.succeeded:
            return Scored(0.0, "a run that did not succeed is not judged")
        try:
            key = judge.question(run).key
        except UNREACHABLE as exc:
            return Scored(None, f"it cannot be judged: {exc}", is_error=True)
        if (found := self._known.get(key)) is not None:
            return Scored(found.value, found.reason)
        return Scored(None, f"it was not judged: {self.failed.get(key, 'no judgement is recorded')}", is_error=True)

    def add(self, judgement: Judgement) -> None:
        """Keep a judgement.

        Raises:
            StoreError: the file cannot be written.
        """
        self._known[judgement.key] = judgement
        with file_errors(str(self._path), StoreError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
            with os.fdopen(descriptor, "ab") as file:
                begin = b"\n" if file.tell() and ends_within_a_line(self._path) else b""  # a crash cut the last one
                file.write(begin + one_json_line(msgspec.json.encode(judgement)) + b"\n")


def questions_of(judge: Judge, runs: Iterable[ScoredRun], known: Judgements) -> Iterator[Question]:
    """Yield what a judge is to be asked: each question once, and none that has a judgement."""
    asked: set[str] = set()
    for run in runs:
        if not run.succeeded:
            continue
        try:
            question = judge.question(run)
        except UNREACHABLE:
            continue  # the score of the run says so
        if question.key not in known and question.key not in asked:
            asked.add(question.key)
            yield question


async def ask_judges(
    asked: Mapping[str, tuple[Judge, list[Question]]],
    known: Judgements,
    settings: BackendSettings,
    *,
    record: str | None = None,
    cassette: str | None = None,
) -> None:
    """Ask judges, each about its questions, as many at once as keep their models busy.

    Args:
        record, cassette: see ``SideJob``.

    Raises:
        BackendError: an engine cannot start.
        StoreError: a judgement cannot be kept.
    """
    async with Session(keep_waiting=False, settings=settings) as session:
        for name, (judge, questions) in asked.items():
            meter = Meter()
            flow, changed = with_cassette(judge.flow, record=record, cassette=cassette)
            runs = await session.runs_of(flow, wrap=_wrapped(meter, changed))

            ask = partial(_ask, name, judge, runs=runs, known=known)
            await Loop(ask, meter, max_live=meter.max_live).run(questions)


def _wrapped(meter: Meter, changed: Callable[[ModelBackend], ModelBackend]) -> Wrap:
    return lambda name, backend: meter.wrap(name, changed(backend))


async def _ask(name: str, judge: Judge, question: Question, runs: FlowRuns, known: Judgements) -> None:
    secrets = judge.flow.secrets
    run_id = f"{name}-{question.key[:16]}"
    result = await guard(f"score {name}", runs.start(question.inputs, run_id, seed=question.seed))
    if result.status != "succeeded":
        error = result.error
        why = result.status if error is None else f"{error.name}: {error.message}"
        known.failed[question.key] = mask_excerpt(why, secrets)
        return
    try:
        scored = as_scored(result.output)
    except ValueError as exc:
        known.failed[question.key] = mask_excerpt(str(exc), secrets)
        return
    known.add(Judgement(key=question.key, value=scored.value, reason=mask(scored.reason, secrets)))


def _read(path: Path) -> Iterator[Judgement]:
    if not path.exists():
        return
    with file_errors(str(path), StoreError), path.open("rb") as file:
        for line in file:
            try:
                yield msgspec.json.decode(line, type=Judgement)
            except ValueError:
                continue
