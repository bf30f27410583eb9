"""``flowrun results`` as a command: what it prints, and the page that it writes."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.batches import SPEC, batch, environment, write_rows
from tests.records import failed_record, record_of, said_messages, write_records


def flowrun(*words: str | Path, cwd: Path, columns: int = 100) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flowrun", "results", *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=environment(COLUMNS=str(columns)),
        timeout=60,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the results of four rows."""
    messages = said_messages("How hot?\x1b[2J", "Dallas", "Hot.")
    records = [
        record_of(1, scores={"right": True, "close": 1 / 3}, messages=messages),
        failed_record(2, id="b"),
        record_of(3, sample=1),
        record_of(3, sample=2),
    ]
    write_records(tmp_path / "out.jsonl", records)
    return tmp_path


def test_counts_and_a_table(folder: Path) -> None:
    done = flowrun("out.jsonl", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.rstrip() for line in done.stdout.splitlines()] == [
        "records  status     error",
        "      3  succeeded",
        "      1  failed     tool.failed",
        "      4  in all",
        "right: mean 1 of 1, close: mean 0.333 of 1, 8 rounds, 400 + 9 tokens",
        "",
        "record  sample  status       right  close  rounds  seconds  output or error",
        "1            1  succeeded      yes  0.333       2      2.0  It is 1 degrees.",
        "b            1  tool.failed                     2      2.0  it broke",
        "3            1  succeeded                       2      2.0  It is 3 degrees.",
        "3            2  succeeded                       2      2.0  It is 3 degrees.",
    ]


def test_a_narrow_terminal_cuts_the_outputs_and_says_so(tmp_path: Path) -> None:
    write_records(tmp_path / "out.jsonl", [record_of(1, id="houston", output={"answer": "It is hot. " * 9})])
    *_, header, line = flowrun("out.jsonl", cwd=tmp_path, columns=60).stdout.splitlines()
    assert header.split() == ["record", "status", "rounds", "seconds", "output", "or", "error"]
    assert line.split()[:2] == ["houston", "succeeded"]
    assert line.rstrip().endswith("…")


def test_some_records(folder: Path) -> None:
    with (folder / "out.jsonl").open("a") as file:
        file.write("nonsense\n")
    done = flowrun("out.jsonl", "--where", "status == 'succeeded'", "--limit", "1", cwd=folder)
    assert "      3  in all" in done.stdout
    assert done.stderr.splitlines() == [
        "1 of 3 records are shown: --limit N shows more, --html OUT all on a page, --json prints them",
        "out.jsonl: 1 line is no record",
    ]
    lines = flowrun("out.jsonl", "--where", "error", "--json", cwd=folder).stdout.splitlines()
    assert [json.loads(line) for line in lines] == [failed_record(2, id="b")]


def test_one_row(folder: Path) -> None:
    done = flowrun("out.jsonl", "--row", "1", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(
        'user  How hot?�[2J\nassistant  calls temperature({"city": "Dallas"})\ntool temperature  31\nassistant  Hot.\n'
    )
    done = flowrun("out.jsonl", "--row", "3", cwd=folder)
    assert done.stdout.startswith("row 3  sample 1  succeeded\n")
    assert done.stdout.endswith("it has no messages: flowrun batch --messages keeps them\n")
    assert done.stderr == "the row has other records: --sample 2\n"
    assert flowrun("out.jsonl", "--row", "3", "--sample", "2", cwd=folder).stdout.startswith("row 3  sample 2")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["--row", "9"], "no record has the id or the row number '9', or it is not selected", id="row"),
        pytest.param(
            ["--row", "b", "--sample", "2"],
            "no record has the id or the row number 'b' and the sample 2, or it is not selected",
            id="sample",
        ),
        pytest.param(
            ["--where", "scores.right"],
            "out.jsonl:2: --where: in 'scores.right': 'None' has no attribute 'right'; 'scores' is null in this "
            'record: write "scores and ..."',
            id="where",
        ),
        pytest.param(
            ["--html", "out.jsonl"], "--html out.jsonl: this is no place for a page: name another file", id="itself"
        ),
        pytest.param(["--html", "p.html", "--json"], "--html and --json: choose one of them", id="two at once"),
        pytest.param(["--html", "no/page.html"], "--html no/page.html: No such file or directory", id="no folder"),
    ],
)
def test_what_is_wrong(folder: Path, words: list[str], message: str) -> None:
    before = (folder / "out.jsonl").read_bytes()
    done = flowrun("out.jsonl", *words, cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"flowrun: {message}\n")
    assert (folder / "out.jsonl").read_bytes() == before


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = flowrun("out.jsonl", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "flowrun: out.jsonl: there is no such file\n")


def test_a_page_is_private_and_whole(folder: Path) -> None:
    page = folder / "page.html"
    done = flowrun("out.jsonl", "--html", page, cwd=folder)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"{page} shows 4 records ({page.stat().st_size / 1e6:.1f} MB)\n"
    assert stat.S_IMODE(page.stat().st_mode) == 0o600

    page.write_text("old")
    page.chmod(0o644)
    (folder / "link.html").symlink_to(page)
    assert flowrun("out.jsonl", "--html", "link.html", "--row", "b", cwd=folder).returncode == 0
    assert stat.S_IMODE(page.stat().st_mode) == 0o644
    assert page.read_text().endswith("</html>")
    assert (folder / "link.html").is_symlink()

    before = page.read_text()
    assert flowrun("out.jsonl", "--html", page, "--where", "error.name == 'x'", cwd=folder).returncode == 2
    assert page.read_text() == before
    assert sorted(os.listdir(folder)) == ["link.html", "out.jsonl", "page.html"]


def test_the_results_of_a_batch(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", [1, 13])
    batch(SPEC, "in.jsonl", "-o", "out.jsonl", "--messages", cwd=tmp_path)
    counts = flowrun("out.jsonl", cwd=tmp_path).stdout
    assert ["1", "failed", "tool.failed"] in [line.split() for line in counts.splitlines()]
    shown = flowrun("out.jsonl", "--row", "1", cwd=tmp_path).stdout
    for said in ("Double 1.", "I will.", "It is 2.", "Well done."):
        assert said in shown
    assert flowrun("out.jsonl", "--html", "page.html", cwd=tmp_path).returncode == 0
    assert "Well done." in (tmp_path / "page.html").read_text()
