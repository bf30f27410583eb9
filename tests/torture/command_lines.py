"""Starts command lines of flowrun as a user does, and ends some of them by signals at moments drawn by chance."""

import os
import random
import shlex
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import Final, NamedTuple

from flowrun.durations import spell_duration

PROJECT: Final = Path(__file__).parent / "project"
JOURNAL: Final = "journal.db"
PATIENCE: Final = 90.0
"""The seconds after which a command line that nobody ended hangs."""

_WATCHED: Final = (f"{JOURNAL}-wal", "ledger", "results.jsonl")
_TICK: Final = 0.0005
SECRETS: Final = {"SHOP_TOKEN": "shop-5ecf0b12c7", "QUIET_TOKEN": "quiet-77ad90e3"}


class Doom(NamedTuple):
    """When a command line is ended, and by which signal: after some writes of its work, and some seconds more.

    Attributes:
        writes: the number of changes of the journal, the ledger or the results that are awaited.
        grace: after SIGTERM, the seconds until SIGKILL; None: it may take its time.
    """

    writes: int
    seconds: float
    signal: Signals = SIGKILL
    grace: float | None = None


class Line(NamedTuple):
    """A command line without ``flowrun``."""

    words: tuple[str, ...]
    doom: Doom | None = None


class Ended(NamedTuple):
    """A command line that has ended, and the signals that it got."""

    life: int
    words: tuple[str, ...]
    code: int
    out: str
    err: str
    signals: tuple[Signals, ...]

    def __str__(self) -> str:
        return f"{self.life}: flowrun {shlex.join(self.words)}: {self.code} {self.signals}\n{self.out}{self.err}"

    @property
    def verb(self) -> str:
        """The first word; for a flow that is started, its path."""
        return self.words[0]


class Terminal:
    """A folder with a project, and the command lines that were started in it, one after the other or at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kills = 0
        self.terminations = 0
        self.lives = 0
        (folder / "lives").mkdir()

    def run(self, *lines: Line) -> list[Ended]:
        """Start command lines at once, end them at their moments, and return them once all have ended."""
        started = [_Started(self, line) for line in lines]
        while [each for each in started if each.is_live()]:
            time.sleep(_TICK)
        ended = [each.end() for each in started]
        self.kills += sum(each.code == -SIGKILL for each in ended)
        self.terminations += sum(SIGTERM in each.signals for each in ended)
        return ended


class _Started:
    """A command line that was started."""

    def __init__(self, terminal: Terminal, line: Line) -> None:
        self._line = line
        self._life, terminal.lives = terminal.lives, terminal.lives + 1
        folder = terminal.folder
        self._watched = [folder / name for name in _WATCHED]
        self._logs = [folder / "lives" / f"{self._life:04}.{name}" for name in ("out", "err")]
        environ = {
            **os.environ,
            **SECRETS,
            "FLOWRUN_JOURNAL": str(folder / JOURNAL),
            "FLOWRUN_TORTURE_LEDGER": str(folder / "ledger"),
            "FLOWRUN_TORTURE_LIFE": str(self._life),
            "COLUMNS": "200",
        }
        out, err = (path.open("wb") for path in self._logs)
        with out, err:
            command = [sys.executable, "-m", "flowrun", *line.words]
            self._process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environ
            )
        self._started_at = time.monotonic()
        self._seen = self._sizes()
        self._writes = 0
        self._due: float | None = None
        self._signals: list[Signals] = []

    def _sizes(self) -> list[int]:
        sizes = []
        for path in self._watched:
            try:
                sizes.append(path.stat().st_size)
            except FileNotFoundError:
                sizes.append(-1)
        return sizes

    def is_live(self) -> bool:
        """Return whether the process lives; end it if its moment has come."""
        if self._process.poll() is not None:
            return False
        now, doom = time.monotonic(), self._line.doom
        if now - self._started_at > PATIENCE:
            self._process.kill()
            self._process.wait()
            what = shlex.join(self._line.words)
            raise AssertionError(f"{self._life}: flowrun {what} hangs: no end after {spell_duration(PATIENCE)}")
        if doom is None:
            return True
        sizes = self._sizes()
        self._writes += sum(new != old for new, old in zip(sizes, self._seen, strict=True))
        self._seen = sizes
        if self._due is None and self._writes >= doom.writes:
            self._due = now + doom.seconds
        if self._due is not None and now >= self._due:
            again = bool(self._signals)
            self._send(SIGKILL if again else doom.signal)
            rest = None if again or doom.signal == SIGKILL else doom.grace
            self._due = float("inf") if rest is None else now + rest
        return True

    def _send(self, number: Signals) -> None:
        self._process.send_signal(number)
        self._signals.append(number)

    def end(self) -> Ended:
        out, err = (path.read_text(encoding="utf-8", errors="replace") for path in self._logs)
        code, words = self._process.wait(), self._line.words
        ended = Ended(self._life, words, code, out, err, tuple(self._signals))
        with self._logs[0].with_name("all").open("a") as log:
            seconds = time.monotonic() - self._started_at
            log.write(f"{self._life}: {shlex.join(words)}: {code} {[*ended.signals]} {seconds:.2f} s\n")
        return ended


class Moments:
    """Draws the moments at which command lines are ended: later ones while nothing moves on."""

    def __init__(self, chance: random.Random, *, share: float) -> None:
        self._chance = chance
        self._share = share
        self._patience = 1.0

    def draw(self, *, long: float = 0.4, share: float | None = None) -> Doom | None:
        """Return a moment; None: the command line ends by itself.

        Args:
            long: the seconds in which such a command line usually ends.
            share: the share of command lines that are ended; by default that of all.
        """
        chance = self._chance
        if chance.random() > (self._share if share is None else share):
            return None
        by_term = chance.random() < 0.2
        grace = chance.choice((None, chance.random() * 0.2))
        number = SIGTERM if by_term else SIGKILL
        if chance.random() < 0.7:
            return Doom(chance.randrange(1, int(6 * self._patience) + 1), chance.random() ** 2 * 0.01, number, grace)
        return Doom(0, chance.uniform(0.02, long * self._patience), number, grace)

    def learn(self, progress: int) -> None:
        """Adjust to the number of events that the last command lines wrote."""
        self._patience = 1.0 if progress else min(8.0, 1.5 * self._patience)


def write_project(folder: Path, edition: int) -> None:
    """Write the project's files; ``edition`` stands in each spec, and so in the output of each run."""
    for file in PROJECT.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            to = folder / file.relative_to(PROJECT)
            to.parent.mkdir(exist_ok=True)
            to.write_text(file.read_text(encoding="utf-8").replace("EDITION", str(edition)), encoding="utf-8")
