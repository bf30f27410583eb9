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


@pytest.mark.parametrize(
    ("sampling", "samples", "warned"),
    [("{temperature: 0}", "2", 1), ("{temperature: 0}", "1", 0), ("{}", "2", 0)],
    ids=["alike", "one sample", "no temperature"],
)
def test_samples_that_will_be_alike_are_said_once(sampling: str, samples: str, warned: int, tmp_path: Path) -> None:
    (tmp_path / "replies.yaml").write_text("replies: [{content: Hello., repeat: true}]\n")
    (tmp_path / "spec.yaml").write_text(
        "flowrun: v1\nname: greet\nversion: 1.0.0\ninputs: {number: {type: integer}}\n"
        f"model: {{backend: scripted, name: replies.yaml}}\nsampling: {sampling}\n"
        'messages: [{role: user, content: "{{ inputs.number }}"}]\n'
        "states: {ask: {type: chat, next: done}, done: {type: end}}\n"
    )
    write_rows(tmp_path / "in.jsonl", [1, 2])
    done = batch("spec.yaml", "in.jsonl", "-o", "out.jsonl", "--samples", samples, "-q", cwd=tmp_path)
    assert done.returncode == 0
    warning = "all chats of greet have temperature 0, so the 2 samples of a row will be alike: set sampling.temperature"
    assert done.stderr.count(warning) == warned
