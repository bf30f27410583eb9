"""Rows of all formats, and rows that cannot be read."""

import itertools
import json
import tracemalloc
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from flowrun.batch import Row, RowFile, Survey
from flowrun.errors import UsageError
from tests.flows import spec_of

SPEC = spec_of(
    "inputs: {question: {type: string, default: why}, number: {type: [integer, 'null'], default: 1}}\n"
    "states: {done: {type: end}}\n"
)
SPEC_WITH_ID = spec_of("inputs: {id: {type: integer}}\nstates: {done: {type: end}}\n")


def rows_of(path: Path) -> list[Row]:
    file = RowFile(path, SPEC)
    rows = list(file)
    assert file.survey().count == len(rows)
    return rows


def test_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"question": "a"}\n\n{"id": "second", "number": 2}\n{"id": 7}')
    assert rows_of(path) == [
        Row(number=1, id=1, inputs={"question": "a"}),
        Row(number=3, id="second", inputs={"number": 2}),
        Row(number=4, id=7),
    ]


def test_an_id_that_the_flow_declares_is_also_an_input(tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson"
    path.write_text('{"id": 5}\n')
    assert list(RowFile(path, SPEC_WITH_ID)) == [Row(number=1, id=5, inputs={"id": 5})]


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        pytest.param("{", "line 1 is no JSON: ", id="no JSON"),
        pytest.param("[" * 5000, "line 1 is no JSON: ", id="nested too deeply"),
        pytest.param(
            '{"question": ' + "[" * 65 + "]" * 65 + "}", "line 1 is no JSON: it is nested", id="deeply nested"
        ),
        pytest.param(
            '{"number": 1, "number": 2}', "line 1 is no JSON: the key 'number' is there twice", id="a key twice"
        ),
        pytest.param("[1]", "line 1 must be a JSON object, input names to values", id="no object"),
        pytest.param('{"id": [1]}', "row 1: id must be a text or a whole number", id="a list for an id"),
        pytest.param('{"id": true}', "row 1: id must be a text or a whole number", id="a boolean for an id"),
    ],
)
def test_a_line_that_cannot_be_read_is_a_row(tmp_path: Path, line: str, wrong: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(line + '\n{"number": 2}\n')
    bad, good = rows_of(path)
    assert bad.wrong is not None
    assert bad.wrong.startswith(wrong)
    assert (bad.number, bad.id, good) == (1, 1, Row(number=2, id=2, inputs={"number": 2}))


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text('\ufeffid,question,number\nx,"two\nlines",2\ny,,\nz,1,many\nshort\n', encoding="utf-8")
    assert rows_of(path) == [
        Row(number=1, id="x", inputs={"question": "two\nlines", "number": 2}),
        Row(number=2, id="y"),
        Row(number=3, id="z", inputs={"question": "1", "number": "many"}),
        Row(number=4, id=4, wrong="record 4 has 1 cells, and the table has 3 columns"),
    ]


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    parquet.write_table(pyarrow.table({"id": ["a", "b"], "question": ["x", None], "number": [1, 2]}), path)
    assert rows_of(path) == [
        Row(number=1, id="a", inputs={"question": "x", "number": 1}),
        Row(number=2, id="b", inputs={"number": 2}),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("in.txt", b"", "rows are read from .jsonl, .ndjson, .csv, .tsv or .parquet", id="format"),
        pytest.param("no.jsonl", None, "there is no file", id="no file"),
        pytest.param("in.csv", b"question,question\n", "two columns have the same name", id="a column twice"),
        pytest.param("in.csv", b"\xff\xfe", "its first line is not in UTF-8: it holds the byte 0xff", id="encoding"),
        pytest.param("in.csv", b'question\n"a\n', "cannot be read as CSV: unexpected end of data", id="an open quote"),
        pytest.param("in.parquet", b"PAR", "cannot be read as Parquet", id="no Parquet"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        list(RowFile(tmp_path / name, SPEC))


def test_a_cell_may_be_of_any_length(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(f"question\n{'x' * 200_000}\ny\n")
    assert [len(row.inputs["question"]) for row in rows_of(path)] == [200_000, 1]


def test_what_is_no_input_passes_through(tmp_path: Path) -> None:
    rows = '{"question": "a", "city": "Dallas", "n": [1]}\n{"question": "b"}\n'
    (tmp_path / "in.jsonl").write_text(rows)
    (tmp_path / "in.csv").write_text("question,city\na,Dallas\nb,\n")
    assert [row.columns for row in RowFile(tmp_path / "in.jsonl", SPEC)] == [{"city": "Dallas", "n": [1]}, {}]
    file = RowFile(tmp_path / "in.csv", SPEC)
    assert file.survey().columns == ("city",)
    first, second = file
    assert (first.inputs, first.columns) == ({"question": "a"}, {"city": "Dallas"})
    assert (second.inputs, second.columns) == ({"question": "b"}, {})


def test_two_rows_with_one_id_are_refused_by_row(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"id": "a"}\n{"id": 4}\n{"id": "a"}\n{}\n{"id": "5"}\n{"id": "6"}\n{}\n')
    file = RowFile(path, SPEC)
    assert file.survey().count == 7
    assert [(row.id, row.wrong) for row in file] == [
        ("a", None),
        (4, None),
        (3, "row 3 has the id 'a' of row 1"),
        (4, "row 4 has the id 4 of row 2"),
        ("5", None),
        ("6", None),
        (7, None),
    ]


def test_bytes_that_are_no_text_cost_their_row(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b"number,question,city\n1,caf\xe9,a\n2,ok,b\n3,ok,\xff\xfe\n")
    assert [(row.number, row.inputs.get("question"), row.wrong) for row in RowFile(tmp_path / "in.csv", SPEC)] == [
        (1, None, "record 1 is not in UTF-8: it holds the byte 0xe9"),
        (2, "ok", None),
        (3, None, "record 3 is not in UTF-8: it holds the byte 0xff"),
    ]


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"number": 1}\n')
    before = RowFile(path, SPEC).survey()
    path.write_text('{"number": 2}\n')
    after = RowFile(path, SPEC).survey()
    assert before.digest != after.digest
    assert (before.count, after) == (1, Survey(1, after.digest))


def test_a_long_file_needs_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        path = tmp_path / f"{count}.jsonl"
        path.write_text("".join(json.dumps({"number": number}) + "\n" for number in range(count)))
        file = RowFile(path, SPEC)
        tracemalloc.start()
        file.survey()
        for _ in itertools.islice(file, count):
            pass
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(20_000) < peak(200) + 50_000
