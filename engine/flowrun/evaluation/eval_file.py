"""The content of an eval file as frozen data. No I/O, no logic."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import msgspec

from flowrun.evaluation.comparisons import Comparison
from flowrun.spec import Document
from flowrun.spec.find import EVAL_SUFFIX
from flowrun.spec.model import JSON, Template
from flowrun.testing.suite import Expectation


class ScoreScope(TypedDict):
    """What the templates and functions of scores see of a run."""

    row: Mapping[str, JSON]
    inputs: Mapping[str, JSON]
    output: JSON
    status: str
    error: Mapping[str, JSON] | None
    path: list[str]
    rounds: int
    usage: Mapping[str, JSON]
    seconds: float | None
    sample: int
    messages: list[JSON]
    threads: Mapping[str, JSON]
    calls: list[JSON]
    vars: Mapping[str, JSON]


class ConditionScore(msgspec.Struct, frozen=True, kw_only=True):
    """A score of 1 if a condition holds, else 0."""

    when: str


class ExpectationScore(msgspec.Struct, frozen=True, kw_only=True):
    """A score of 1 if an expectation is met, else 0. Its texts are templates."""

    expect: Expectation


class ComparisonScore(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison of a value with an expected one, which are templates. ``value`` left out is the output."""

    compare: Comparison
    value: Template | msgspec.UnsetType = msgspec.UNSET
    expected: Template = "{{ row.expected }}"


class FunctionScore(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a Python function. Without ``arguments``, its parameters are names of ``ScoreScope``."""

    entrypoint: str
    arguments: Mapping[str, Template] | None = None


class JudgeScore(msgspec.Struct, frozen=True, kw_only=True):
    """The output of a flow, which is run with inputs that are templates.

    Attributes:
        written: the path of the flow as the file has it.
    """

    flow: Path
    written: str
    inputs: Mapping[str, Template] = {}


Score = ConditionScore | ExpectationScore | ComparisonScore | FunctionScore | JudgeScore


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """What is enough of a score: its least mean, and how far it may lie below what it is compared with."""

    at_least: float | None = None
    max_drop: float | None = None
    against: str | None = None


def is_path(path: Path) -> bool:
    """Return whether there is a file or a folder."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


class EvalFile(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation: a flow, its rows, and the scores of what comes of them."""

    path: Path
    document: Document
    flow: Path
    rows: Path
    scores: Mapping[str, Score]
    profile: str | None = None
    samples: int = 1
    groups: tuple[str, ...] = ()
    gates: Mapping[str, Gate] = {}

    @property
    def name(self) -> str:
        """Return the name of the file without its suffix."""
        return self.path.name.removesuffix(EVAL_SUFFIX)

    @property
    def against(self) -> str | None:
        """Return what the gates compare with; a path is taken from the folder of the file, as its other paths are."""
        written = next((gate.against for gate in self.gates.values() if gate.against is not None), None)
        return written if written is None or not is_path(beside := self.path.parent / written) else str(beside)

    @property
    def judges(self) -> Mapping[str, JudgeScore]:
        """Return the scores that flows give."""
        return {name: score for name, score in self.scores.items() if isinstance(score, JudgeScore)}
