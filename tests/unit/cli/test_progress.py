"""What a batch says of itself: what it is doing, how fast, and how long it still takes."""

import asyncio
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flowrun.batch import Batch, Fingerprint, Meter, OneFile, Options, Results, Row
from flowrun.cli import progress
from flowrun.cli.progress import BatchFigures, BatchView, Counts
from flowrun.core.messages import Usage


def test_the_figures_of_a_batch() -> None:
    figures = BatchFigures()
    assert figures.update(Counts(at=0, done=0, live=8, in_flight=8), 1000) == (
        "running",
        "8 live (8 with the model, 0 with tools), 0 failed",
    )
    usage = Usage(prompt_tokens=12000, completion_tokens=2000, cached_tokens=9000)
    now = Counts(at=10, done=20, failed=1, live=8, in_flight=3, rounds=45, usage=usage)
    assert figures.update(now, 1000) == (
        "running",
        "8 live (3 with the model, 5 with tools), 1 failed, 2.0 rows/s, 4.5 rounds/s, 1,200 + 200 tokens/s, "
        "75% cached, about 8 min 10 s left",
    )
    last = Counts(at=500, done=980, failed=1, open={"needs_attention": 16}, live=4, in_flight=2, rounds=2000)
    assert figures.update(last, 1000)[0] == "finishing the last 4"


def test_the_figures_of_a_batch_whose_models_are_elsewhere() -> None:
    figures = BatchFigures()
    assert figures.update(Counts(at=0, done=0, live=8), 5) == ("finishing the last 5", "8 live, 0 failed")
    now = Counts(at=2, done=0, live=5, open={"waiting": 3}, rounds=6)
    assert figures.update(now, 100) == ("running", "5 live, 0 failed, 3 waiting, 1.5 rows/s, 3.0 rounds/s")


class Screen:
    """What a view has shown so far, without the colours and moves of a terminal."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.text = ""

    async def until(self, pattern: str) -> None:
        """Wait until the pattern is shown."""
        async with asyncio.timeout(60):
            while not re.search(pattern, self.text):
                await asyncio.sleep(0.02)
                self.text += re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", self._capsys.readouterr().err)


async def run_twelve_rows(view: BatchView, path: Path, screen: Screen, signs: list[str]) -> None:
    """Run twelve rows under the eyes of a view, four at once; each four end when one of the signs is shown."""
    shown = [asyncio.Event() for _ in signs]

    async def run_row(row: Row) -> dict[str, Any]:
        await shown[(row.number - 1) // 4].wait()
        return {"status": "succeeded", "error": None}

    results, meter = Results(OneFile(path), Fingerprint(spec="", input="")), Meter()
    batch = Batch(run_row, results, meter, Options(max_live=4))
    watching = asyncio.create_task(view.watch(batch, meter, total=12))
    running = asyncio.create_task(batch.run(Row(number=number, id=number, inputs={}) for number in range(1, 13)))
    for sign, event in zip(signs, shown, strict=True):
        await screen.until(sign)
        event.set()
    await running
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    results.close()


def test_plain_lines_on_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.05)
    signs = [
        r"running: 0/12 done, 4 live, 0 failed, 0\.0 rows/s, 0\.0 rounds/s\n",
        r"running: 4/12 done, 4 live, 0 failed, [\d.]+ rows/s, 0\.0 rounds/s\n",
        r"finishing the last 4: 8/12 done, 4 live, 0 failed, [\d.]+ rows/s, 0\.0 rounds/s\n",
    ]
    with BatchView(quiet=False, secrets={}) as view:
        asyncio.run(run_twelve_rows(view, tmp_path / "out.jsonl", Screen(capsys), signs))


def test_a_bar_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "100"}.items():
        monkeypatch.setenv(name, value)
    signs = [
        r"running [━╸╺]+ +0/12 *\n  4 live",
        r"running [━╸╺]+ +4/12 *\n  4 live",
        r"last 4 [━╸╺]+ +8/12 *\n  4 live",
    ]
    with BatchView(quiet=False, secrets={}) as view:
        view.progress("loading \x1b[2K")
        screen = Screen(capsys)
        asyncio.run(screen.until(r"loading �\[2K, \d+ s"))
        asyncio.run(run_twelve_rows(view, tmp_path / "out.jsonl", screen, signs))


def test_quiet_and_important_messages(capsys: pytest.CaptureFixture[str]) -> None:
    with BatchView(quiet=True, secrets={"sesame-sesame": "${TOKEN}"}) as view:
        view.progress("loading")
        view.say("ready")
        view.say("sesame-sesame is wrong", important=True)
    assert capsys.readouterr().err == "${TOKEN} is wrong\n"


def test_a_stage_has_a_line_if_it_takes_long(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 0.5, 0.5, 65.0])
    with BatchView(quiet=False, secrets={}, clock=lambda: next(times)) as view:
        view.progress("reading the rows")
        view.progress("loading the weights")
        view.say("ready after 1 min 5 s")
    assert capsys.readouterr().err == "loading the weights  (1 min 4 s)\nready after 1 min 5 s\n"
