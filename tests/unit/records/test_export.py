"""Exports of records: their forms, which records are chosen, and what is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from flowrun.errors import UsageError
from flowrun.records.export import Choice, export
from flowrun.records.training_forms import Form
from tests.records import require_record

CALL = {"id": "call00001", "type": "function", "function": {"name": "look", "arguments": {"city": "Rome"}}}
TOOL = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}}}
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Is it hot?"},
    {"role": "assistant", "content": None, "reasoning": "Hm.", "tool_calls": [CALL]},
    {"role": "tool", "content": "85", "tool_call_id": "call00001", "name": "look"},
    {"role": "assistant", "content": "Yes."},
]
TOKENS = {
    "thread": "main",
    "states": ["ask"],
    "finish_reasons": ["stop"],
    "ids": [1, 2, 3],
    "mask": [0, 1, 1],
    "logprobs": [None, -0.5, -0.25],
}


def record(row: int = 1, sample: int = 1, **more: Any) -> dict[str, Any]:
    made = {
        "id": f"r{row}",
        "row": row,
        "sample": sample,
        "seed": 5,
        "status": "succeeded",
        "inputs": {},
        "output": {"answer": "Yes."},
        "error": None,
        "path": ["ask"],
        "rounds": 1,
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "cached_tokens": 3, "rerendered": 0},
        "flow": {"name": "weather", "version": "1.0.0", "digest": "0" * 64},
        "models": {"default": {"backend": "vllm", "name": "small"}},
        "sampling": {},
        "tools": [TOOL],
        "messages": MESSAGES,
        **more,
    }
    require_record({name: value for name, value in made.items() if name != "scores"})
    return made


def exported(folder: Path, form: Form, *records: Mapping[str, Any], **choice: Any) -> tuple[list[Any], dict[str, int]]:
    file, output = folder / "results.jsonl", folder / "train.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in records))
    counts = export(file, form, output, Choice(**choice))
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert counts.pop("written", 0) == len(rows)
    return rows, dict(counts)


ORIGIN = {"id": "r1", "row": 1, "sample": 1, "seed": 5, "flow": "weather", "digest": "0" * 64}


def test_messages(tmp_path: Path) -> None:
    rows, _ = exported(tmp_path, "messages", record(threads={"judge": [{"role": "user", "content": "?"}]}))
    assert rows == [{"messages": MESSAGES, "tools": [TOOL], "thread": "main", **ORIGIN}]


def test_tokens_and_what_trl_reads_of_them(tmp_path: Path) -> None:
    tokens = record(tokens=[TOKENS, {**TOKENS, "child": "3.0", "ids": [7, 8, 9]}])
    rows, _ = exported(tmp_path, "tokens", tokens)
    assert rows == [{**TOKENS, **ORIGIN}, {**TOKENS, "child": "3.0", "ids": [7, 8, 9], **ORIGIN}]
    rows, _ = exported(tmp_path, "trl", tokens)
    assert rows[0] == {"input_ids": [1, 2, 3], "assistant_masks": [0, 1, 1], **ORIGIN}
    rows, _ = exported(tmp_path, "trl", record())
    assert rows[0]["messages"] == MESSAGES


def test_a_trajectory(tmp_path: Path) -> None:
    rows, _ = exported(tmp_path, "atif", record())
    steps = rows[0]["steps"]
    assert [(step["step_id"], step["source"], step["message"]) for step in steps] == [
        (1, "system", "Be short."),
        (2, "user", "Is it hot?"),
        (3, "agent", ""),
        (4, "agent", "Yes."),
    ]
    assert steps[2]["tool_calls"] == [
        {"tool_call_id": "call00001", "function_name": "look", "arguments": {"city": "Rome"}}
    ]
    assert steps[2]["observation"] == {"results": [{"source_call_id": "call00001", "content": "85"}]}
    assert (rows[0]["session_id"], rows[0]["agent"]["model_name"]) == ("1.1", "small")


def test_parquet_has_the_same_columns_whatever_the_first_row_lacks(tmp_path: Path) -> None:
    file, output = tmp_path / "results.jsonl", tmp_path / "train.parquet"
    records = [record(), record(2, scores={"right": True}, tokens=[TOKENS])]
    file.write_text("".join(json.dumps(one) + "\n" for one in records))
    assert export(file, "messages", output, Choice())["written"] == 2
    rows = parquet.read_table(output).to_pylist()
    assert [row["scores"] for row in rows] == [None, '{"right":true}']
    assert rows[0]["messages"][2]["tool_calls"][0]["function"]["arguments"] == '{"city":"Rome"}'
    assert json.loads(rows[0]["tools"]) == [TOOL]
    assert output.stat().st_mode & 0o777 == 0o600


def scored(row: int, sample: int, score: object, **more: Any) -> dict[str, Any]:
    return record(row, sample, scores={"right": score}, **more)


def test_the_best_sample_of_each_row_wherever_its_lines_stand(tmp_path: Path) -> None:
    records = [scored(1, 1, 0.5), scored(2, 1, 1), scored(1, 2, 0.75), scored(1, 3, 0.75), scored(2, 2, 0.5)]
    rows, counts = exported(tmp_path, "messages", *records, best_of="right")
    assert [(row["row"], row["sample"]) for row in rows] == [(2, 1), (1, 2)]
    assert counts == {"not the best of its row": 3}


def test_only_what_is_good_enough_and_true(tmp_path: Path) -> None:
    records = [
        scored(1, 1, True),
        scored(2, 1, False),
        scored(3, 1, True, masked=True),
        scored(4, 1, True, status="failed", error={"name": "tool.failed", "message": "no"}),
    ]
    rows, counts = exported(tmp_path, "messages", *records, min_scores={"right": 1.0})
    assert [row["row"] for row in rows] == [1]
    assert counts == {"below --min-score": 1, "holds a masked secret": 1, "did not succeed": 1}


def test_what_another_row_equals_is_left_out(tmp_path: Path) -> None:
    other = [*MESSAGES[:-1], {"role": "assistant", "content": "No."}]
    rows, counts = exported(tmp_path, "messages", record(), record(2), record(3, messages=other), dedupe=True)
    assert [row["row"] for row in rows] == [1, 3]
    assert counts == {"equal to another": 1}


@pytest.mark.parametrize(
    ("form", "records", "choice", "message"),
    [
        ("tokens", [record()], {}, "the record of row r1 has no tokens: make the results with --tokens"),
        (
            "messages",
            [{name: value for name, value in record().items() if name != "messages"}],
            {},
            "the record of row r1 has no messages: make the results with --messages",
        ),
        ("messages", [record()], {"best_of": "right"}, "the record of row r1 has no score 'right'; it has: none"),
        ("trl", [record(), record(2, tokens=[TOKENS])], {}, "some records have tokens and others have none"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    form: Form, records: list[Any], choice: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        exported(tmp_path, form, *records, **choice)
    assert [file.name for file in tmp_path.iterdir()] == ["results.jsonl"]


def test_broken_lines_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text(f'{json.dumps(record())}\n{{"row": \nnothing\n')
    assert export(file, "messages", tmp_path / "out.jsonl", Choice()) == {"written": 1, "no record": 2}


@pytest.mark.parametrize("name", ["out.csv", "out"])
def test_another_suffix_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="an export is written to"):
        export(tmp_path / "results.jsonl", "messages", tmp_path / name, Choice())
