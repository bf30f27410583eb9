"""``flowrun batch --samples``: several runs of each row, each with a seed of its own, resumed one by one."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.batches import SPEC, batch, results, write_rows


def run(folder: Path, *words: str) -> Any:
    ledger = folder / "ledger"
    ledger.write_text("")
    done = batch(SPEC, "in.jsonl", "-o", "out.jsonl", *words, cwd=folder, FLOWRUN_TEST_LEDGER=str(ledger))
    return done, Counter(ledger.read_text().split())


def seeds(folder: Path) -> dict[tuple[int, int], int]:
    found = results(folder / "out.jsonl")
    by_sample = {(result["row"], result["sample"]): result["seed"] for result in found}
    assert len(by_sample) == len(found)
    return by_sample


@pytest.mark.parametrize("durable", [False, True])
def test_each_sample_is_run_once_whenever_it_is_missing(durable: bool, tmp_path: Path) -> None:
    more = ["--durable", "--journal", "runs.db"] if durable else []
    write_rows(tmp_path / "in.jsonl", [1, 13, 4])
    done, made = run(tmp_path, "--samples", "3", *more)
    assert (done.returncode, made) == (1, {"1": 3, "13": 3, "4": 3})
    first = seeds(tmp_path)
    assert set(first) == {(row, sample) for row in (1, 2, 3) for sample in (1, 2, 3)}
    assert len(set(first.values())) == 9

    if not durable:  # there the journal has the ends of these runs, and calls nothing again
        lines = (tmp_path / "out.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "out.jsonl").write_text("".join(lines[:4]))
        done, made = run(tmp_path, "--samples", "3")
        assert made.total() == 5
        assert "4  of them finished before, and skipped" in done.stderr
        assert seeds(tmp_path) == first

    done, made = run(tmp_path, "--samples", "3", "--retry-failed", *more)
    assert made == {"13": 3}
    assert seeds(tmp_path) == first


def test_another_number_of_samples_is_refused_or_keeps_those_that_are_there(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", [1, 4])
    assert run(tmp_path, "--samples", "2")[0].returncode == 0
    first = seeds(tmp_path)
    refused, made = run(tmp_path, "--samples", "3")
    assert (refused.returncode, made) == (2, {})
    assert "the samples changed since out.jsonl was begun" in refused.stderr

    assert run(tmp_path, "--samples", "3", "--continue")[1] == {"1": 1, "4": 1}
    grown = seeds(tmp_path)
    assert len(grown) == 6
    assert grown.items() >= first.items()

    fewer, made = run(tmp_path, "--samples", "1", "--continue")
    assert (fewer.returncode, made) == (0, {})
    assert "4 results of rows or samples that the batch has no more are kept, and do not count" in fewer.stderr
    assert len(results(tmp_path / "out.jsonl")) == 6
