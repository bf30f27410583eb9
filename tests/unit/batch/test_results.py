"""The results on disk after crashes of all kinds, and what a batch that is started again does with them."""

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowrun.batch import Fingerprint, Folder, OnChange, OneFile, Results, Row, Sink, count_outcomes
from flowrun.errors import StoreError, UsageError

FINGERPRINT = Fingerprint(spec="s", input="i")


def result(row: int, status: str = "succeeded", **more: Any) -> dict[str, Any]:
    error = None if status == "succeeded" else {"name": "tool.failed", "message": "no"}
    return {"id": row, "row": row, "status": status, "output": row * 2, "error": error, **more}


def write(path: Path, *results: dict[str, Any]) -> None:
    file = Results(OneFile(path), FINGERPRINT)
    for one in results:
        file.write(one)
    file.close()


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def finished(path: Path, rows: range = range(1, 10)) -> list[int]:
    file = Results(OneFile(path), FINGERPRINT)
    found = [row for row in rows if row in file.finished]
    file.close()
    return found


def test_rows_with_a_written_result_are_finished(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "out.jsonl"
    write(path, result(1), result(3, "failed"))
    write(path, result(2))
    assert read(path) == [result(1), result(3, "failed"), result(2)]
    assert finished(path) == [1, 2, 3]
    assert count_outcomes(OneFile(path)) == Counter({"succeeded": 2, "tool.failed": 1})


@pytest.mark.parametrize(
    "torn",
    [
        pytest.param(b'{"id": 9, "ro', id="within a line"),
        pytest.param(json.dumps(result(9)).encode(), id="before the line's end"),
        pytest.param(b"\0\0\0\0", id="zeros"),
        pytest.param(b"\0\0\n\xff\n{}\n", id="several lines"),
        pytest.param(json.dumps(result(1)).encode() + b"\n", id="a row that is there already"),
    ],
)
def test_lines_that_a_crash_left_incomplete_are_dropped(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "out.jsonl"
    write(path, result(1), result(2))
    with path.open("ab") as file:
        file.write(torn)
    assert finished(path) == [1, 2]
    assert read(path) == [result(1), result(2)]


def test_a_broken_line_among_others_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write(path, result(1), result(2), result(3))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\0" * 20 + b"\n" + lines[2])
    file = Results(OneFile(path), FINGERPRINT)
    assert file.mended == 1
    file.close()
    assert read(path) == [result(1), result(3)]


def test_one_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    file = Results(OneFile(path), FINGERPRINT)
    with pytest.raises(UsageError, match="another process is writing"):
        Results(OneFile(path), FINGERPRINT)
    file.close()
    Results(OneFile(path), FINGERPRINT).close()


@pytest.mark.parametrize(
    ("current", "message"),
    [
        pytest.param(Fingerprint(spec="t", input="i"), "the spec changed since", id="spec"),
        pytest.param(Fingerprint(spec="s", input="j"), "the input changed since", id="input"),
        pytest.param(Fingerprint(spec="t", input="j"), "the spec and the input changed since", id="both"),
    ],
)
def test_results_of_something_else_are_not_added_to(tmp_path: Path, current: Fingerprint, message: str) -> None:
    path = tmp_path / "out.jsonl"
    write(path, result(1))
    with pytest.raises(UsageError, match=f"{message}.*--continue.*--restart"):
        Results(OneFile(path), current)
    assert read(path) == [result(1)]

    file = Results(OneFile(path), current, on_change="continue")
    assert 1 in file.finished
    file.close()
    Results(OneFile(path), current).close()  # the new fingerprint has replaced the old one

    file = Results(OneFile(path), FINGERPRINT, on_change="restart")
    assert 1 not in file.finished
    file.close()
    assert (read(path), read(tmp_path / "out.jsonl.old")) == ([], [result(1)])


def test_a_file_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("precious\n")
    with pytest.raises(UsageError, match="nothing says what it belongs to"):
        Results(OneFile(path), FINGERPRINT)
    assert path.read_text() == "precious\n"


def test_retried_results_replace_the_old_ones(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write(path, result(1), result(2, "failed"), result(3, "failed"))
    file = Results(OneFile(path), FINGERPRINT)
    file.retry()
    assert [row for row in range(5) if row in file.failed] == [2, 3]
    file.write(result(3))
    assert read(path) == [result(1), result(2, "failed"), result(3, "failed")]
    file.close()
    assert read(path) == [result(1), result(2, "failed"), result(3)]
    assert sorted(os.listdir(tmp_path)) == ["out.jsonl", "out.jsonl.batch"]


def test_a_crash_while_retrying_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write(path, result(1), result(2, "failed"), result(3, "failed"))
    (tmp_path / "out.jsonl.retried").write_text(json.dumps(result(2)) + '\n{"id": 3, "row"')
    file = Results(OneFile(path), FINGERPRINT)
    assert [row for row in range(5) if row in file.failed] == [3]
    file.close()
    assert read(path) == [result(1), result(3, "failed"), result(2)]


OTHER = Fingerprint(spec="t", input="j")


@pytest.mark.parametrize(
    "sink_of", [pytest.param(OneFile, id="one file"), pytest.param(lambda path: Folder(path, 2), id="folder")]
)
def test_retried_results_without_the_others_are_claimed_as_those_are(
    tmp_path: Path, sink_of: Callable[[Path], Sink]
) -> None:
    def left_over() -> tuple[Sink, str]:
        sink = sink_of(tmp_path / "out")
        Results(sink, FINGERPRINT, on_change="restart").close()
        for shard in sink.shards():
            shard.unlink()
        sink.retried.write_text(json.dumps(result(2)) + "\n")
        return sink, sink.sidecar.read_text()

    def finished_rows(sink: Sink, fingerprint: Fingerprint, on_change: OnChange) -> list[int]:
        file = Results(sink, fingerprint, on_change=on_change)
        file.close()
        assert not sink.retried.exists()
        return [row for row in range(5) if row in file.finished]

    sink, sidecar = left_over()
    message = rf"the spec and the input changed since {sink.retried} was begun: --continue.*--restart removes them"
    with pytest.raises(UsageError, match=message):
        Results(sink, OTHER)
    assert (read(sink.retried), sink.sidecar.read_text()) == ([result(2)], sidecar)
    assert finished_rows(sink, OTHER, "restart") == []

    assert finished_rows(left_over()[0], OTHER, "continue") == [2]
    assert finished_rows(left_over()[0], FINGERPRINT, "refuse") == [2]

    sink, _ = left_over()
    sink.sidecar.unlink()
    with pytest.raises(UsageError, match=rf"{sink.retried} is there, and nothing says what it belongs to"):
        Results(sink, OTHER)


def test_a_backup_survives_a_restart_that_finds_only_retried_results(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out", 2)
    for row in (1, 2):
        file = Results(folder, FINGERPRINT, on_change="restart")
        file.write(result(row))
        file.close()
    folder.shard(0).unlink()
    folder.retried.write_text(json.dumps(result(3)) + "\n")
    Results(folder, FINGERPRINT, on_change="restart").close()
    assert rows_by_shard(folder) == [[]]
    assert read(folder.backup / "part-00000.jsonl") == [result(1)]


def test_a_full_disk_keeps_the_written_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.jsonl"
    file = Results(OneFile(path), FINGERPRINT)
    file.write(result(1))
    real = os.write

    def half(descriptor: int, data: bytes) -> int:
        if len(data) > 10:
            return real(descriptor, data[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: half(descriptor, data[:20]))
        with pytest.raises(StoreError, match="No space left on device; the results written before are kept"):
            file.write(result(2))
    file.close()
    assert read(path) == [result(1)]


# --- results in the shards of a folder


def rows_by_shard(folder: Folder) -> list[list[int]]:
    return [[one["row"] for one in read(shard)] for shard in folder.shards()]


def test_a_shard_has_so_many_rows(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out", 2)
    for batch in ([1, 2, 3], [4, 5]):
        file = Results(folder, FINGERPRINT)
        for row in batch:
            file.write(result(row))
        file.close()
    assert rows_by_shard(folder) == [[1, 2], [3, 4], [5]]
    assert [shard.name for shard in folder.shards()] == ["part-00000.jsonl", "part-00001.jsonl", "part-00002.jsonl"]
    assert count_outcomes(folder) == Counter({"succeeded": 5})


def test_all_shards_are_mended(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out", 2)
    file = Results(folder, FINGERPRINT)
    for row in range(1, 6):
        file.write(result(row))
    file.close()
    first, second, last = folder.shards()
    first.write_bytes(first.read_bytes().splitlines(keepends=True)[0] + b"\0\0\n")
    with second.open("ab") as torn:
        torn.write(json.dumps(result(5)).encode() + b"\n")  # a row of the next shard too: the first one counts
    with last.open("ab") as torn:
        torn.write(b'{"row": 9')
    file = Results(folder, FINGERPRINT)
    assert file.mended == 3
    assert [row for row in range(10) if row in file.finished] == [1, 3, 4, 5]
    file.close()
    assert rows_by_shard(folder) == [[1], [3, 4, 5], []]


def test_retried_results_replace_those_of_all_shards(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out", 2)
    file = Results(folder, FINGERPRINT)
    for row in range(1, 6):
        file.write(result(row, "failed" if row % 2 else "succeeded"))
    file.close()
    file = Results(folder, FINGERPRINT)
    file.retry()
    for row in (3, 1):
        file.write(result(row))
    file.close()
    assert rows_by_shard(folder) == [[2], [4], [5, 3, 1]]
    assert count_outcomes(folder) == Counter({"succeeded": 4, "tool.failed": 1})


def test_all_of_a_folder_is_backed_up(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out", 2)
    for row in (1, 2):
        file = Results(folder, FINGERPRINT, on_change="restart")
        file.write(result(row))
        file.close()
        folder.merged("jsonl").write_text("merged\n")
    assert rows_by_shard(folder) == [[2]]
    assert sorted(os.listdir(folder.backup)) == ["part-00000.jsonl", "results.jsonl"]


def row_of(number: int, row_id: str | int | None = None) -> Row:
    return Row(number=number, id=number if row_id is None else row_id)


def test_results_are_kept_by_the_ids_of_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    first, second = {**result(1), "id": "a"}, {**result(2, "failed"), "id": "b", "n": 1.0}
    write(path, first, second, result(3), {**result(4), "id": "c"})
    current = Fingerprint(spec="s", input="j", rows=4)
    rows = [row_of(1, "new"), row_of(2, "a"), row_of(3), row_of(4, "b")]
    file = Results(OneFile(path), current, on_change="continue", rows=rows)
    assert [row for row in range(6) if row in file.finished] == [2, 3, 4]
    assert ([row for row in range(6) if row in file.failed], file.gone) == ([4], 1)
    file.write({**result(1), "id": "new"})
    file.close()
    assert [(line["id"], line["row"], line.get("n")) for line in read(path)] == [
        ("a", 2, None),
        ("b", 4, 1.0),
        (3, 3, None),
        ("c", 0, None),
        ("new", 1, None),
    ]
    assert count_outcomes(OneFile(path)) == Counter({"succeeded": 3, "tool.failed": 1})

    again = Fingerprint(spec="s", input="k", rows=1)
    file = Results(OneFile(path), again, on_change="continue", rows=[row_of(1, "c")])
    assert ([row for row in range(6) if row in file.finished], file.gone) == ([1], 4)
    file.close()


@pytest.mark.parametrize(
    ("rows", "told"), [(3, "the input grew from 2 to 3 rows"), (1, "the input shrank from 2 to 1")]
)
def test_an_input_of_another_length_is_told_as_such(tmp_path: Path, rows: int, told: str) -> None:
    path = tmp_path / "out.jsonl"
    Results(OneFile(path), Fingerprint(spec="s", input="i", rows=2)).close()
    with pytest.raises(UsageError, match=told):
        Results(OneFile(path), Fingerprint(spec="s", input="j", rows=rows))


def test_lines_that_are_not_ours_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write(path, result(1), result(2, "failed"))
    with path.open("ab") as file:
        file.write(b'{"note": "mine"}\n\0\0\n{"torn')
    results = Results(OneFile(path), FINGERPRINT)
    assert (results.mended, results.foreign) == (3, 1)
    results.retry()
    results.close()
    assert read(path) == [result(1), result(2, "failed")]
    assert (tmp_path / "out.jsonl.foreign").read_text() == '{"note": "mine"}\n'


def test_result_files_are_private_unless_they_exist_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write(path, result(1), result(2, "failed"))
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert modes == {"out.jsonl": 0o600, "out.jsonl.batch": 0o600}
    path.chmod(0o644)
    file = Results(OneFile(path), FINGERPRINT)
    file.retry()
    file.write(result(2))
    file.close()
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("on_change", ["refuse", "restart", "continue"])
@pytest.mark.parametrize("special", ["out.jsonl", "out.jsonl.batch", "out.jsonl.old"])
def test_only_regular_files_are_written_and_moved(tmp_path: Path, special: str, on_change: OnChange) -> None:
    if special != "out.jsonl":
        write(tmp_path / "out.jsonl", result(1))
        (tmp_path / special).unlink(missing_ok=True)
    os.mkfifo(tmp_path / special)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(UsageError, match="is no regular file"):
        Results(OneFile(tmp_path / "out.jsonl"), OTHER, on_change=on_change)
    assert sorted(os.listdir(tmp_path)) == before


def test_results_that_are_refused_leave_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("precious\n")
    with pytest.raises(UsageError):
        Results(OneFile(tmp_path / "out.jsonl"), FINGERPRINT)
    with pytest.raises(UsageError):
        Results(OneFile(tmp_path / "out.jsonl"), FINGERPRINT, on_change="continue")
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_a_link_is_written_through_and_stays(tmp_path: Path) -> None:
    real, link = tmp_path / "real.jsonl", tmp_path / "out.jsonl"
    link.symlink_to(real)
    write(link, result(1), result(2, "failed"))
    file = Results(OneFile(link), FINGERPRINT)
    file.retry()
    file.write(result(2))
    file.close()
    assert read(real) == [result(1), result(2)]
    Results(OneFile(link), OTHER, on_change="restart").close()
    assert link.readlink() == real
    assert sorted(os.listdir(tmp_path)) == ["out.jsonl", "real.jsonl", "real.jsonl.batch", "real.jsonl.old"]


@pytest.mark.parametrize("target", ["missing/out.jsonl", "out.jsonl"], ids=["a file in the way", "itself"])
def test_a_link_that_leads_nowhere_leaves_nothing_behind(tmp_path: Path, target: str) -> None:
    (tmp_path / "missing").touch()
    (tmp_path / "out.jsonl").symlink_to(target)
    with pytest.raises(StoreError):
        Results(OneFile(tmp_path / "out.jsonl"), FINGERPRINT)
    assert sorted(os.listdir(tmp_path)) == ["missing", "out.jsonl"]


def test_a_result_is_one_line_for_every_reader(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    text = "a\x85b\u2028c\u2029d\x0b\x0c\x1c\x1d\x1ee\r\nf\\u2028"
    write(path, {**result(1), "output": text})
    assert len(path.read_text().splitlines()) == 1
    assert read(path)[0]["output"] == text


def test_a_restart_overwrites_only_what_an_earlier_one_moved_away(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out", 2)
    (folder.backup).mkdir(parents=True)
    (folder.backup / "mine.txt").write_text("precious")
    (folder.backup / "part-00007.jsonl").write_text("of an earlier restart")
    file = Results(folder, FINGERPRINT)
    file.write(result(1))
    file.close()
    Results(folder, FINGERPRINT, on_change="restart").close()
    assert sorted(os.listdir(folder.backup)) == ["mine.txt", "part-00000.jsonl"]
