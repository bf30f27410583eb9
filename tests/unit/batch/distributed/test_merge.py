"""Shards are merged into one file, in the order of the rows."""

import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from flowrun.batch import Fingerprint, Folder, Results, merge_shards
from flowrun.core.messages import Usage
from flowrun.spec.schema import RESULT_SCHEMA, read_schema

USAGE = dict.fromkeys(Usage.__struct_fields__, 1)


def result(row: int, **more: Any) -> dict[str, Any]:
    ended = {"status": "succeeded", "output": {"n": row}, "error": None, "path": ["a", "b"], "rounds": 2}
    return {"id": row, "row": row, **ended, "usage": USAGE, **more}


def folder_of(path: Path, *results: dict[str, Any], samples: int = 1) -> Folder:
    folder = Folder(path, 3)
    file = Results(folder, Fingerprint(spec="", input="", samples=samples))
    for one in results:
        file.write(one)
    file.close()
    return folder


@pytest.mark.parametrize(
    "order",
    [
        pytest.param([], id="no row"),
        pytest.param([1, 2, 3, 4], id="in order"),
        pytest.param([7, 3, 9, 1, 2, 8, 12], id="in disorder, with gaps"),
    ],
)
def test_lines(tmp_path: Path, order: list[int]) -> None:
    folder = folder_of(tmp_path / "out", *map(result, order))
    merged = merge_shards(folder, "jsonl")
    assert merged == tmp_path / "out" / "results.jsonl"
    assert [json.loads(line) for line in merged.read_text().splitlines()] == [result(row) for row in sorted(order)]
    assert merge_shards(folder, "jsonl") == merged  # again, over the old one


def test_parquet(tmp_path: Path) -> None:
    error = {"name": "tool.failed", "message": "no", "state": "act"}
    failed = result(1, status="failed", output=None, error=error)
    folder = folder_of(tmp_path / "out", result(2, messages=[{"role": "user", "content": "ä"}]), failed)
    table = parquet.read_table(merge_shards(folder, "parquet")).to_pylist()
    not_of_batches = {"run", "wakes", "doubtful", "scores", "reasons", "trace"}
    assert set(table[0]) == set(read_schema(RESULT_SCHEMA)["properties"]) - not_of_batches
    rest = dict.fromkeys(set(table[0]) - set(failed))
    assert table == [
        {**failed, **rest},
        {**result(2), **rest, "output": '{"n":2}', "messages": '[{"role":"user","content":"ä"}]'},
    ]


def test_samples_follow_each_other(tmp_path: Path) -> None:
    order = [(2, 2), (1, 1), (2, 1), (1, 2)]
    folder = folder_of(tmp_path / "out", *(result(row, sample=sample) for row, sample in order), samples=2)
    merged = [json.loads(line) for line in merge_shards(folder, "jsonl", 2).read_text().splitlines()]
    assert [(one["row"], one["sample"]) for one in merged] == sorted(order)


def test_mixed_ids_are_text_in_parquet(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "out", result(1, id="one"), result(2))
    table = parquet.read_table(merge_shards(folder, "parquet"))
    assert table["id"].to_pylist() == ["one", "2"]
