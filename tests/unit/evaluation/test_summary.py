"""What an evaluation says of scores: means by row, groups, paired differences, gates; rows that changed come first."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flowrun.batch.rows import Row
from flowrun.core.messages import Usage
from flowrun.evaluation.eval_file import ConditionScore, EvalFile, Gate
from flowrun.evaluation.report import as_data, notes_of, table_of
from flowrun.evaluation.scored_side import Rows, RunScores, ScoredSide, SideRecords, write_scored
from flowrun.evaluation.scoring import as_scored
from flowrun.evaluation.summary import changes_of, summarize
from flowrun.spec import Document

pytest.importorskip("scipy", reason="scipy (the extra eval) is not installed")

ROWS: Rows = {
    name: Row(number=number, id=name, inputs={"q": number}, columns={"kind": "odd" if number % 2 else "even"})
    for number, name in enumerate("abcd", 1)
}


def side(scores: dict[str, list[float | None]], **more: Any) -> ScoredSide:
    """Return a side whose rows have these scores of ``right``, one a sample."""
    runs = [
        RunScores(
            id=row,
            sample=sample,
            status="succeeded",
            scores={"right": value},
            errors={"right": "it cannot be scored"} if value is None else {},
            usage=Usage(prompt_tokens=100, completion_tokens=10),
            seconds=2.0,
            offset=0,
            line=1,
        )
        for row, values in scores.items()
        for sample, value in enumerate(values, 1)
    ]
    return ScoredSide(Path("records.jsonl"), runs, **more)


def only(*names: str) -> Rows:
    """Return some of the rows."""
    return {name: ROWS[name] for name in names}


def file(*, samples: int = 1, groups: tuple[str, ...] = (), gate: Gate | None = None) -> EvalFile:
    return EvalFile(
        path=Path("shop.eval.yaml"),
        document=Document(file="shop.eval.yaml", text=""),
        flow=Path("shop.yaml"),
        rows=Path("items.jsonl"),
        scores={"right": ConditionScore(when="true")},
        samples=samples,
        groups=groups,
        gates={} if gate is None else {"right": gate},
    )


def test_a_mean_is_that_of_rows() -> None:
    ours = side({"a": [1, 1, 1, 1], "b": [0], "c": [0]})
    (score,) = summarize(file(samples=4), ROWS, ours).scores
    assert score.estimate is not None
    assert (round(score.estimate.mean, 3), score.estimate.rows, score.estimate.samples) == (0.333, 3, 6)
    assert score.pass_at is None  # a row has fewer samples


def test_pass_at_k_is_for_scores_that_pass_or_not() -> None:
    (whole,) = summarize(file(samples=2), ROWS, side({"a": [1, 0], "b": [1, 1]})).scores
    assert (whole.pass_at, whole.pass_all) == (1.0, 0.5)
    (parts,) = summarize(file(samples=2), ROWS, side({"a": [0.5, 0], "b": [1, 1]})).scores
    assert (parts.pass_at, parts.pass_all) == (None, None)


def test_a_difference_is_that_of_the_rows_that_both_have() -> None:
    summary = summarize(
        file(groups=("kind",)), ROWS, side({"a": [1], "b": [0], "c": [1]}), side({"b": [1], "c": [0], "d": [1]}), "main"
    )
    (score,) = summary.scores
    assert summary.paired == 2
    assert score.difference is not None
    assert (score.difference.mean, score.difference.won, score.difference.lost) == (0, 1, 1)
    assert score.theirs is not None
    assert score.theirs.mean == 0.5  # of b and c only
    groups = [(one.value, one.estimate.mean, one.difference and one.difference.mean) for one in score.groups]
    assert groups == [("even", 0.0, -1.0), ("odd", 1.0, 1.0)]


def test_rows_that_lost_come_first() -> None:
    ours = side({"a": [1], "b": [0.5], "c": [0], "d": [1]})
    theirs = side({"a": [1], "b": [1], "c": [1], "d": [0]})
    assert [change.id for change in changes_of(ROWS, ours, theirs, ["right"])] == ["c", "b", "d"]


@pytest.mark.parametrize(
    ("gate", "status"),
    [
        (Gate(at_least=0.5), "passed"),
        (Gate(at_least=0.51), "failed"),
        (Gate(max_drop=0.5), "passed"),
        (Gate(max_drop=0.4), "failed"),
    ],
)
def test_gates(gate: Gate, status: str) -> None:
    summary = summarize(file(gate=gate), only("a", "b"), side({"a": [1], "b": [0]}), side({"a": [1], "b": [1]}), "main")
    assert ([one.status for one in summary.gates], summary.passes) == ([status], status == "passed")


def test_a_gate_without_anything_to_compare_with_is_not_checked() -> None:
    summary = summarize(file(gate=Gate(max_drop=0.1)), only("a"), side({"a": [1]}))
    assert [(gate.status, "--against" in gate.message) for gate in summary.gates] == [("unchecked", True)]
    assert summary.passes


def test_a_gate_of_a_score_that_no_run_has_is_not_passed() -> None:
    summary = summarize(file(gate=Gate(at_least=0)), ROWS, side({"a": [None]}))
    assert [gate.message for gate in summary.gates] == ["right at least 0: no run has this score"]
    assert not summary.passes
    assert "right: 1 runs have no score: it cannot be scored" in list(notes_of(summary))


def test_a_run_without_a_record_is_missing() -> None:
    summary = summarize(file(samples=2), only("a", "b"), side({"a": [1, 1], "b": [1]}))
    assert (summary.missing, summary.passes) == (1, False)
    assert "1 runs have no record yet: run the same command again" in list(notes_of(summary))


def test_groups_are_of_ids_too_and_their_values_differ_by_type() -> None:
    rows = {str(number): Row(number=number, id=number, columns={"kind": kind}) for number, kind in [(1, 1), (2, "1")]}
    summary = summarize(file(groups=("id", "kind")), rows, side({"1": [1], "2": [0]}))
    assert [row[0] for row in table_of(summary).body[1:]] == [
        "  id 1 (1 row)",
        "  id 2 (1 row)",
        '  kind "1" (1 row)',
        "  kind 1 (1 row)",
    ]


def test_the_table_and_the_data() -> None:
    summary = summarize(file(), ROWS, side({"a": [1], "b": [0]}), side({"a": [1], "b": [1]}), "main")
    table = table_of(summary)
    assert list(table.head) == ["score", "mean", "main", "difference", "won", "lost", "p"]
    assert [row[0] for row in table.body] == ["right"]
    data = as_data(summary)
    assert data["scores"]["right"]["difference"]["interval"] == pytest.approx([-6.853, 5.853], abs=1e-3)
    assert data["costs"] == {
        "runs": 2,
        "failed": 0,
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "seconds": 2.0,
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, (1.0, "")),
        (0.25, (0.25, "")),
        (True, (True, "")),
        (None, (None, "")),
        ({"score": 0.5, "reason": "so"}, (0.5, "so")),
        ({"grade": 3}, (3.0, "")),
    ],
)
def test_what_functions_and_judges_may_give(value: Any, expected: tuple[Any, str]) -> None:
    assert as_scored(value)[:2] == expected


@pytest.mark.parametrize(
    "value", ["good", [1], {"a": 1, "b": 2}, float("nan"), float("inf"), {"score": "high"}, 1e101, 10**400]
)
def test_what_is_no_score(value: Any) -> None:
    with pytest.raises(ValueError, match="a score is a number"):
        as_scored(value)


def test_what_was_locked_is_said_of_both_sides() -> None:
    ours, theirs = side({"a": [1.0]}, locked=["default org/model, lock 1f"]), side({"a": [1.0]}, locked=["x", "y"])
    summary = summarize(file(), only("a"), ours, theirs, "main")
    assert [note for note in notes_of(summary) if note.startswith("models")] == [
        "models, as they were locked: default org/model, lock 1f",
        "models of main, as they were locked: x; y",
    ]
    assert as_data(summary)["their_locked"] == ["x", "y"]
    bare = summarize(file(), only("a"), side({"a": [1.0]}))
    assert [note for note in notes_of(bare) if note.startswith("models")] == []


def test_each_lock_of_the_records_is_named_once(tmp_path: Path) -> None:
    locked = {"digest": "1f", "commit": "0123456789abcdef" * 2, "vllm": "0.33.0"}
    models = {
        "a": {"default": {"backend": "vllm", "name": "org/model", "locked": locked}},
        "b": {"default": {"backend": "vllm", "name": "org/model", "locked": {"digest": "2f"}}},
        "c": {"default": {"backend": "vllm", "name": "org/model"}},
        "d": {"default": {"backend": "vllm", "name": "org/model", "locked": locked}},
    }
    lines = [
        json.dumps({"id": name, "row": row.number, "status": "succeeded", "inputs": row.inputs, "models": models[name]})
        for name, row in ROWS.items()
    ]
    results = tmp_path / "results.jsonl"
    results.write_text("".join(f"{line}\n" for line in lines))
    with closing(SideRecords(results, ROWS, 1)) as records:
        written = write_scored(records, tmp_path / "records.jsonl", {}, {})
    assert written.locked == [
        "default org/model, commit 0123456789ab, vLLM 0.33.0, lock 1f",
        "default org/model, lock 2f",
    ]
