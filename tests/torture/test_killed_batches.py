"""Batches are killed, their specs and rows change, and the same command goes on: each row has one line, with its value.

A durable batch has rows that wait; a person answers them, and resolves the calls in doubt.
"""

import json
import random
from pathlib import Path
from typing import Any, Final

import pytest

from flowrun.spec.model import JSON
from tests.torture.budget import FIRST_WORLD, kills_of, new_world
from tests.torture.command_judge import CommandJudge
from tests.torture.command_lines import Ended, Line, Moments, Terminal, write_project
from tests.torture.person import ALL, Person, Planned

ROWS: Final = 16
REFUSALS: Final = (
    "began with another spec: `flowrun resume --all`",
    "of this batch: end it first",
    "another process is writing to results.jsonl",
)
"""Why a batch does not go on: each says what to do, or that another process is at work."""

pytestmark = pytest.mark.slow


class Results:
    """The file of results, of which no line may be lost."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lines: dict[str, dict[str, Any]] = {}

    def read(self) -> None:
        """Read the complete lines; those of earlier readings must be there, each once."""
        raw = self._path.read_bytes() if self._path.exists() else b""
        lines = [json.loads(line) for line in raw.split(b"\n")[:-1] if line.endswith(b"}")]
        read = {line["id"]: line for line in lines}
        assert len(read) == len(lines), "a row has two lines"
        lost = {name for name, line in self.lines.items() if _as_begun(line) != _as_begun(read.get(name, {}))}
        assert not lost, f"lines were lost or changed: {lost}"
        self.lines = read

    def tear(self, chance: random.Random) -> None:
        """Cut the file within its last line, as a loss of power can."""
        size, last = self._path.stat().st_size, list(self.lines)[-1]
        length = len(self._path.read_bytes().rstrip(b"\n").rpartition(b"\n")[2]) + 1
        with self._path.open("r+b") as file:
            file.truncate(size - chance.randrange(1, length))
        del self.lines[last]


def _as_begun(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line without the number of its row, which changes with the rows before it."""
    return {key: value for key, value in line.items() if key != "row"}


class Rows:
    """The file of rows, which may get others before and after those that it has."""

    def __init__(self, path: Path, *, wait: bool) -> None:
        numbers = (n for n in range(1, 1000) if wait or n % 5)
        self._numbers = iter(numbers)
        self._path = path
        self.numbers: list[int] = []
        self.grow(ROWS)

    def grow(self, count: int) -> list[int]:
        """Put a row before all others and some behind them, and return their numbers."""
        new = [next(self._numbers) for _ in range(count)]
        self.numbers = [new[0], *self.numbers, *new[1:]]
        self._path.write_text("".join(json.dumps({"id": f"row {n}", "n": n}) + "\n" for n in self.numbers))
        return new


def value_of(n: int, edition: int, answer: JSON) -> JSON:
    told = f"{n}: ${{SHOP_TOKEN}}"
    return {"edition": edition, "paid": 3 * n + 1, "noted": 5 * n + 2, "told": told, "answer": answer}


def batch_words(*more: str) -> tuple[str, ...]:
    return ("batch", "flows/rows.yaml", "rows.jsonl", "-o", "results.jsonl", "-q", "--max-live", "3", *more)


def run_batch(folder: Path, chance: random.Random, kills_left: int) -> int:
    """Run a batch without a journal to its end, and return the number of kills."""
    terminal, moments = Terminal(folder), Moments(chance, share=0.9)
    write_project(folder, edition := 1)
    rows, results = Rows(folder / "rows.jsonl", wait=False), Results(folder / "results.jsonl")
    ended: Ended | None = None
    more: tuple[str, ...] = ()
    while ended is None or ended.code != 0 or edition == 1:
        if edition == 1 and len(results.lines) > ROWS / 3:
            write_project(folder, edition := 2)
            rows.grow(4)
            assert_refused_as_changed(*terminal.run(Line(batch_words())))
            more = ("--continue",)
        before = len(results.lines)
        [ended] = terminal.run(Line(batch_words(*more), moments.draw() if terminal.kills < kills_left else None))
        assert ended.code in (0, 1, 130) or ended.signals, f"{ended}"
        results.read()
        moments.learn(len(results.lines) - before)
        if results.lines and terminal.kills < kills_left and chance.random() < 0.3:
            results.tear(chance)
    assert_values(
        rows, results, {n: value_of(n, results.lines[f"row {n}"]["output"]["edition"], 0) for n in rows.numbers}
    )
    CommandJudge(folder).judge_secrets()
    return terminal.kills


def run_durable_batch(folder: Path, chance: random.Random, kills_left: int) -> int:
    """Run a durable batch to its end, and return the number of kills."""
    rows, results = Rows(folder / "rows.jsonl", wait=True), Results(folder / "results.jsonl")
    plans = [Planned("rows", n) for n in rows.numbers]
    person = Person(folder, chance, plans, lambda: person.terminal.kills < kills_left)
    ended: Ended | None = None
    more: tuple[str, ...] = ("--durable",)
    while ended is None or ended.code != 0 or person.edition == 1:
        if person.edition == 1 and len(results.lines) > ROWS / 3:
            person.edit()
            plans += [Planned("rows", n) for n in rows.grow(4)]
            assert_refused_as_changed(*person.act(Line(batch_words(*more))))
            more = (*more, "--continue")
        besides = chance.choice(([], [], [], [ALL], [batch_words(*more)]))
        ended, *_ = person.act(*(person.line(*words) for words in (batch_words(*more), *besides)))
        results.read()
        if ended.code == 2:
            assert any(refusal in ended.err for refusal in REFUSALS), f"{ended}"
            person.act(person.line(*ALL))
        for plan in chance.sample(plans, 6):
            if plan.run is not None and not person.has_ended(plan) and person.needs_help(plan):
                person.act(*person.next_lines(plan))
    answers = {plan.n: next(iter(person.judge.answers(str(plan.run)).values()), 0) for plan in plans}
    outputs = {plan.n: person.judge.output(str(plan.run)) for plan in plans}
    assert_values(rows, results, outputs)
    editions = {n: output["edition"] for n, output in outputs.items()}
    assert outputs == {n: value_of(n, editions[n], answers[n]) for n in rows.numbers}
    for plan in plans:
        person.check_answers(plan)
    person.judge.judge_secrets()
    return person.terminal.kills


def assert_refused_as_changed(ended: Ended) -> None:
    assert ended.code == 2, f"{ended}"
    assert "the spec and the input changed since results.jsonl was begun" in ended.err, f"{ended}"


def assert_values(rows: Rows, results: Results, values: dict[int, JSON]) -> None:
    found = {name: (line["row"], line["status"], line["output"]) for name, line in results.lines.items()}
    assert found == {f"row {n}": (number, "succeeded", values[n]) for number, n in enumerate(rows.numbers, 1)}
    assert {line["output"]["edition"] for line in results.lines.values()} == {1, 2}


def test_each_row_of_killed_batches_has_one_line_with_its_value() -> None:
    kills, number = 0, FIRST_WORLD
    while kills < kills_of("batches"):
        with new_world("batches", number) as (folder, chance):
            run = run_batch if number % 3 == 2 else run_durable_batch
            kills += run(folder, chance, min(25, kills_of("batches") - kills))
        number += 1
    print(f"{number - FIRST_WORLD} batches, {kills} kills")
