"""The person at the terminal: decides which command lines come next, from what the journal says, and by chance.

Each run that is planned here is started, resumed, answered, resolved or cancelled until it has ended.
"""

import random
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from flowrun.core.events import CallFunction
from flowrun.journal import ENDED
from flowrun.runtime.run_result import InputRequest
from tests.torture.command_judge import CommandJudge, family_of
from tests.torture.command_lines import JOURNAL, Doom, Ended, Line, Moments, Terminal, write_project

Fate = Literal["sent", "accepted", "refused"]
_READERS: Final = (
    ("runs", "--all", "--children", "--json"),
    ("runs",),
    ("show", "RUN"),
    ("show", "RUN", "--json"),
    ("journal", "check"),
)
ALL: Final = ("resume", "--all")


class Planned(msgspec.Struct, eq=False):
    """A run that the person wants.

    Attributes:
        edition: the one of the project when it was started.
        run: its id, once it is in the journal.
        answers: by question, what became of each answer to it.
    """

    flow: str
    n: int
    edition: int = 0
    run: str | None = None
    answers: dict[str, dict[int, Fate]] = msgspec.field(default_factory=dict)


class Person:
    """Runs command lines in a folder until all planned runs have ended.

    Args:
        can_kill: returns whether command lines are still to be ended by signals.
    """

    def __init__(self, folder: Path, chance: random.Random, plans: list[Planned], can_kill: Callable[[], bool]) -> None:
        self.terminal = Terminal(folder)
        self.judge = CommandJudge(folder)
        self.plans = plans
        self.victim: Planned | None = None
        self.edition = 0
        self._folder = folder
        self._chance = chance
        self._moments = Moments(chance, share=0.9)
        self._can_kill = can_kill
        self._numbers = iter(range(1_000_000, 2_000_000))
        self.edit()

    def edit(self) -> None:
        """Change the specs: runs that were started keep the ones that they have."""
        self.edition += 1
        write_project(self._folder, self.edition)

    # --- what is done -------------------------------------------------------------------------------------------------

    def live(self) -> None:
        """Run command lines until all runs have ended, but one whose events are damaged."""
        while open_ones := [plan for plan in self.plans if not self.has_ended(plan)]:
            assert self.terminal.lives < 60 * len(self.plans), f"they do not end: {open_ones}"
            if self._chance.random() < 0.08:
                self.edit()
            if self.victim is None and self._chance.random() < 0.1:
                self._damage()
                continue
            lines = self.next_lines(self._chance.choice(open_ones))
            if self._chance.random() < 0.2:
                lines.append(self._reader())
            self.act(*lines)

    def act(self, *lines: Line) -> list[Ended]:
        """Run command lines at once, and check what they did."""
        ended = self.terminal.run(*lines)
        self._moments.learn(self.judge.judge_ended(ended))
        self._find_runs()
        for each in ended:
            if each.verb == "answer":
                self._note_answer(each)
            elif each.verb == "cancel" and each.code == 0:
                self.judge.cancelled.add(each.words[1])
        return ended

    def _find_runs(self) -> None:
        """Find the runs that were started by their inputs, since a killed process may not have said its run's id."""
        for row in self.judge.rows().values():
            if (
                row.parent is None
                and row.id not in {plan.run for plan in self.plans}
                and row.id not in self.judge.damaged
            ):
                n = self.judge.run(row.id).inputs["n"]
                plan = next(plan for plan in self.plans if plan.n == n)
                assert plan.run is None, f"{plan} was started twice"
                plan.run = row.id

    def _note_answer(self, ended: Ended) -> None:
        """Note what the command line said about an answer: the acknowledged one is the one that counts."""
        question, value = ended.words[1], int(ended.words[3])
        fates = next(plan.answers for plan in self.plans if plan.run == family_of(question.partition("/")[0]))
        if ended.code == 2:
            fates[question][value] = "refused"
        elif ended.code in (0, 1, 4):
            assert "accepted" not in fates[question].values(), f"{question} has two answers: {fates[question]}\n{ended}"
            fates[question][value] = "accepted"

    def _damage(self) -> None:
        """Damage the events of a run that has not ended, and see that it stops only itself, by name."""
        rows = self.judge.rows()
        open_ones = [plan for plan in self.plans if plan.run and not self.has_ended(plan)]
        if not open_ones:
            return
        self.victim = self._chance.choice(open_ones)
        run = self.victim.run
        assert run is not None
        family = [row for row in rows.values() if family_of(row.id) == run and row.status not in ENDED]
        damaged, resumed = self._chance.choice(family).id, rows[run].status != "needs_attention"
        damage_events(self._folder / JOURNAL, damaged, self._chance)
        self.judge.forget(run)
        self._see_damage(run, damaged, resumed=resumed)

    def _see_damage(self, run: str, damaged: str, *, resumed: bool) -> None:
        [check] = self.act(Line(("journal", "check")))
        assert check.code == 1, f"{damaged} is damaged, and not found: {check}"
        assert [line.split()[0] for line in check.out.splitlines()] == [damaged], f"{check}"
        self.see_list()
        for words in (("resume", run), ("show", run)):
            [refused] = self.act(Line(words))
            assert refused.code == 1, f"{refused}"
            assert f"run {damaged} is damaged" in refused.err, f"{refused}"
        [all_others] = self.act(Line(ALL))
        if resumed:
            assert all_others.code == 1, f"{all_others}"
            assert f"run {damaged} is damaged" in all_others.err, f"{all_others}"

    def check_answers(self, plan: Planned) -> None:
        """Check that the run used the answers that were acknowledged, and none that was refused."""
        used = self.judge.answers(str(plan.run))
        for name, fates in plan.answers.items():
            accepted = [value for value, fate in fates.items() if fate == "accepted"]
            assert accepted in ([], [used[name]]), f"{name}: {fates}, and {used[name]} was used"
            assert used[name] in fates, f"{name}: {fates}, and {used[name]} was used"
            assert fates[used[name]] != "refused", f"{name}: {fates}, and {used[name]} was used"

    def see_list(self) -> None:
        """See that no run is hidden."""
        [ended] = self.act(Line(_READERS[0]))
        self.judge.judge_list(ended)

    # --- what comes next ----------------------------------------------------------------------------------------------

    def has_ended(self, plan: Planned) -> bool:
        """Return whether a run has ended, or cannot."""
        return plan is self.victim or (plan.run is not None and self.judge.run(plan.run).outcome is not None)

    def _doom(self) -> Doom | None:
        return self._moments.draw() if self._can_kill() else None

    def needs_help(self, plan: Planned) -> bool:
        """Return whether a run goes on only if it is answered, or a call is resolved."""
        return self.judge.rows()[str(plan.run)].status != "running"

    def line(self, *words: str) -> Line:
        """Return a command line, with the moment at which it is ended."""
        return Line(words, self._doom())

    def _reader(self) -> Line:
        run = self._chance.choice([plan.run for plan in self.plans if plan.run] or [None])
        words = self._chance.choice([words for words in _READERS if run is not None or "RUN" not in words])
        return self.line(*(run if word == "RUN" and run else word for word in words))

    def next_lines(self, plan: Planned) -> list[Line]:
        """Return the command lines that move a run on which has not ended, or could."""
        if plan.run is None:
            plan.edition = self.edition
            return [self.line(f"flows/{plan.flow}.yaml", "--durable", "-i", f"n={plan.n}")]
        row = self.judge.rows()[plan.run]
        pending = self.judge.pending(plan.run)
        if plan.flow == "doomed" and self._chance.random() < (0.3 if row.status == "running" else 0.7):
            return self._cancel(plan.run)
        if row.status == "needs_attention" and self._chance.random() < 0.85:
            return [self._resolve(plan.run, pending.in_doubt)]
        if row.status == "waiting" and plan.flow != "doomed" and self._chance.random() < 0.85:
            return self._answer(plan, self._chance.choice(pending.pending))
        return self._resume(plan.run)

    def _resume(self, run: str) -> list[Line]:
        ways: list[list[tuple[str, ...]]] = [
            [("resume", run)],
            [ALL],
            [("resume", run), ALL],
            [ALL, ALL],
            [("resume", run, "--json", "-q")],
        ]
        return [self.line(*words) for words in self._chance.choice(ways)]

    def _resolve(self, run: str, calls: Sequence[CallFunction]) -> Line:
        """Look up what became of the calls, and say it: first of those that were made, then of the others."""
        made = [(call, value) for call in calls if (value := self._value_of(call)) is not None]
        if made:
            call, value = self._chance.choice(made)
            return self.line("resume", run, "--call", call.key, "--assume-done", "--value", str(value))
        again = calls if self._chance.random() < 0.8 else [self._chance.choice(calls)]
        self.judge.resolved |= {(self.terminal.lives, call.key) for call in again}
        return self.line("resume", run, *(word for call in again for word in ("--call", call.key)), "--run-again")

    def _value_of(self, call: CallFunction) -> int | None:
        """Look up what a call returned; None: it did not, or what it says is a secret, no word for a command line."""
        return None if call.entrypoint.endswith(":tell") else self.judge.value_of(call)

    def _answer(self, plan: Planned, ask: InputRequest) -> list[Line]:
        if self.judge.history.inbox(ask.run) and self._chance.random() < 0.6:
            return self._resume(family_of(ask.run))

        def answer(*more: str) -> Line:
            value = next(self._numbers)
            plan.answers.setdefault(ask.id, {})[value] = "sent"
            return self.line("answer", ask.id, "--value", str(value), *more)

        ways: list[Callable[[], list[Line]]] = [
            lambda: [answer()],
            lambda: [answer("--later")],
            lambda: [answer("--later"), answer("--later")],
            lambda: [answer("--later"), answer()],
            lambda: [answer(), self.line(*ALL)],
            lambda: [answer("--later"), self.line("resume", family_of(ask.run))],
        ]
        return self._chance.choice(ways)()

    def _cancel(self, run: str) -> list[Line]:
        cancel = self.line("cancel", run, "--reason", "no need")
        return [cancel, *self._chance.choice([[], [self.line("resume", run)], [self.line(*ALL)]])]


def damage_events(journal: Path, run: str, chance: random.Random) -> None:
    """Damage the events of one run, in one of the ways that a broken disk or an editor could."""
    connection = sqlite3.connect(journal)
    [(row_id,)] = connection.execute("SELECT no FROM runs WHERE id = ?", (run,))
    events = [no for (no,) in connection.execute("SELECT no FROM events WHERE run = ? ORDER BY seq", (row_id,))]
    statement, no = chance.choice(
        (
            ("DELETE FROM events WHERE no = ?", events[-1]),
            ("DELETE FROM events WHERE no = ?", chance.choice(events)),
            ("UPDATE events SET body = substr(body, 1, length(body) / 2) WHERE no = ?", chance.choice(events)),
            ("UPDATE events SET run = run + 100 WHERE no = ?", chance.choice(events)),
            ("DELETE FROM heads WHERE run = ?", row_id),
        )
    )
    with connection:
        assert connection.execute(statement, (no,)).rowcount == 1
    connection.close()
