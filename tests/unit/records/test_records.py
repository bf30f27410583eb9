"""Records are read from files and folders, counted, and selected by conditions, rows and samples."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from flowrun.core.messages import Message, ToolCall
from flowrun.errors import UsageError
from flowrun.records import RecordFiles, Selection, Tally, gist_of, render_record, render_table_page
from flowrun.records.record import Record, parse_record
from tests.records import failed_record, record_of, require_record, said_messages, write_records


def names(path: Path, **selection: Any) -> list[str]:
    return [entry.record.name for entry in Selection(**selection).select(RecordFiles(path))]


def parsed(record: dict[str, Any]) -> Record:
    found = parse_record(json.dumps(record).encode())
    assert found is not None
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    records = [
        record_of(1, scores={"right": True, "close": 0.5}),
        failed_record(2, id="b", scores={"right": False}),
        record_of(3, id="2", sample=1),
        record_of(3, id="2", sample=2),
        failed_record(4, "model.truncated", status="cancelled"),
    ]
    for record in records:
        require_record({name: value for name, value in record.items() if name != "scores"})
    return write_records(tmp_path / "out.jsonl", records)


# --- reading --------------------------------------------------------------------------------------------------------


def test_broken_lines_are_counted_and_empty_ones_are_not(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'\n{"row": 5}\n[1]\nnonsense\n{"a": ' + b"[" * 100_000 + b"\n")
        file.write(b'{"status": "failed", "output": "\xff"}\n{"status": "failed", "output": "\\ud800"}\n')
        file.write(b'{"status": "succeeded", "row":')
    files = RecordFiles(path)
    assert [[entry.line for entry in files.entries()] for _ in range(2)] == [[1, 2, 3, 4, 5]] * 2
    assert files.broken == 7


def test_a_record_without_a_line_break_is_one(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text(json.dumps(record_of(1)))
    assert names(tmp_path / "out.jsonl") == ["1"]


def test_the_record_of_one_run_is_one(tmp_path: Path) -> None:
    record = {name: value for name, value in record_of(1).items() if name not in ("row", "id")}
    assert names(write_records(tmp_path / "run.json", [{**record, "run": "r1"}])) == ["r1"]


def test_a_folder_has_parts_until_they_are_merged(tmp_path: Path) -> None:
    write_records(tmp_path / "part-00000.jsonl", [record_of(2)])
    write_records(tmp_path / "part-00001.jsonl", [record_of(1)])
    assert names(tmp_path) == ["2", "1"]
    write_records(tmp_path / "results.jsonl", [record_of(1), record_of(2)])
    assert names(tmp_path) == ["1", "2"]


def test_a_folder_without_results_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no results: a batch writes results.jsonl or part-\*.jsonl"):
        RecordFiles(tmp_path)


def test_results_of_retried_rows_are_named(path: Path) -> None:
    assert RecordFiles(path).retried is None
    write_records(path.with_name("out.jsonl.retried"), [record_of(2)])
    assert RecordFiles(path).retried == path.with_name("out.jsonl.retried")


# --- counts ---------------------------------------------------------------------------------------------------------


def test_counts(path: Path) -> None:
    tally = Tally()
    for entry in RecordFiles(path).entries():
        tally.add(entry.record)
    assert tally.sorted_outcomes() == [
        ("succeeded", "", 3),
        ("cancelled", "model.truncated", 1),
        ("failed", "tool.failed", 1),
    ]
    assert (tally.count, tally.rounds, tally.usage.prompt_tokens, tally.usage.completion_tokens) == (5, 10, 500, 13)
    assert tally.scores == {"right": (2, 1.0), "close": (1, 0.5)}


# --- selections -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "found"),
    [
        pytest.param("status == 'failed'", ["b"], id="status"),
        pytest.param("error", ["b", "4"], id="a bare member"),
        pytest.param("error and error.name == 'model.truncated'", ["4"], id="error"),
        pytest.param("scores and scores.right", ["1"], id="a score"),
        pytest.param("sample == 2", ["2"], id="a member that most records lack"),
        pytest.param("'3 degrees' in (output.answer if output else '')", ["2", "2"], id="output"),
        pytest.param("usage.completion_tokens > 3", ["4"], id="figures"),
    ],
)
def test_conditions(path: Path, where: str, found: list[str]) -> None:
    assert names(path, where=where) == found


@pytest.mark.parametrize(
    ("where", "message"),
    [
        pytest.param("statu == 'failed'", "--where: a record has no 'statu'; did you mean 'status'?", id="no member"),
        pytest.param("status ==", "--where: in 'status ==': unexpected ')'; it is an expression, such as", id="syntax"),
        pytest.param("status | nothing", "--where: in 'status | nothing': No filter named 'nothing'", id="filter"),
        pytest.param(
            "error.name == 'x'",
            "out.jsonl:1: --where: in \"error.name == 'x'\": 'None' has no attribute 'name'; 'error' is null in this "
            'record: write "error and ..."',
            id="null",
        ),
        pytest.param("rounds", "--where: 'rounds' gave 2, which is neither true nor false: compare", id="no condition"),
    ],
)
def test_conditions_that_are_wrong(path: Path, where: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        names(path, where=where)
    assert message in str(caught.value)


def test_a_row_is_found_by_its_id_and_else_by_its_number(path: Path) -> None:
    assert names(path, row="b") == ["b"]
    assert names(path, row="2") == ["2", "2"]
    assert names(path, row="3") == ["2", "2"]
    assert [entry.line for entry in Selection(row="3", sample=2).select(RecordFiles(path))] == [4]
    assert names(path, row="9") == []


def test_memory_does_not_grow_with_the_records(tmp_path: Path) -> None:
    long = said_messages("?", "Dallas", "word " * 1000)
    path = write_records(tmp_path / "out.jsonl", (record_of(row, messages=long) for row in range(1, 2001)))
    tracemalloc.start()
    for piece in render_table_page("out", Selection(where="rounds == 2").select(RecordFiles(path))):
        assert piece
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < path.stat().st_size / 4


# --- one record -----------------------------------------------------------------------------------------------------


def test_the_beginning_of_a_record() -> None:
    assert gist_of(parsed(record_of(1))) == "It is 1 degrees."
    assert gist_of(parsed(record_of(1, output={"a": 1, "b": "\u202e"}))) == '{"a": 1, "b": "\N{REPLACEMENT CHARACTER}"}'
    assert gist_of(parsed(record_of(1, output=None))) == ""
    assert gist_of(parsed(failed_record(1, message="it\nbroke"))) == "it broke"


def test_the_threads_of_a_record() -> None:
    record = parsed(record_of(1, messages=said_messages("?", "Dallas", "Hot."), threads={"judge": []}))
    threads = record.all_threads()
    assert threads is not None
    assert threads["main"][1] == Message(
        role="assistant",
        content=None,
        tool_calls=(ToolCall(id="c1", name="temperature", arguments='{"city": "Dallas"}'),),
    )
    assert list(threads) == ["main", "judge"]
    assert parsed(record_of(1)).all_threads() is None


def test_a_record_as_text() -> None:
    record = failed_record(
        7, id="b\x1b[31m", sample=2, scores={"right": True}, messages=said_messages("How\u202e?", "Dallas", "Hot.")
    )
    assert list(render_record(parsed(record))) == [
        "row 7  id b�[31m  sample 2  failed",
        "2026-11-23T12:00:00Z · 2.00 s · 2 rounds · 100 + 7 tokens",
        "error",
        "  tool.failed in state ask: it broke",
        "inputs",
        "  {",
        '    "question": "How hot is it in 7?"',
        "  }",
        "scores",
        "  right: true",
        "path",
        "  ask → answered",
        "",
        "user  How�?",
        'assistant  calls temperature({"city": "Dallas"})',
        "tool temperature  31",
        "assistant  Hot.",
    ]


def test_a_record_in_which_secrets_are_replaced_says_so() -> None:
    facts = list(render_record(parsed(record_of(1, masked=True))))[1]
    assert facts.endswith(" · secrets are replaced in it")


def test_a_record_without_messages_says_so() -> None:
    assert list(render_record(parsed(record_of(1))))[-1] == "it has no messages: flowrun batch --messages keeps them"
    broken = parsed(record_of(1, messages=[{"role": "nobody"}]))
    assert "the messages cannot be read: message 1 has the role 'nobody'" in list(render_record(broken))[-1]
