"""Checks, after each command line, what it printed and stored against what the tools really did outside."""

import json
import os
import re
import signal
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Final

from flowrun.core.events import Answered, CallFunction, Failed, Returned
from flowrun.core.graph import Graph
from flowrun.core.recovery import recover
from flowrun.journal import ENDED, History, RunRow, open_history
from flowrun.runtime.flow_runs import find_pending_work
from flowrun.runtime.run_result import RunResult
from flowrun.runtime.stored_flow import load_stored_flow
from flowrun.spec.model import JSON
from tests.torture.command_lines import SECRETS, Ended
from tests.torture.judge import Judge, Place, StoredEvent, stored_events
from tests.torture.world import Line

OPEN: Final = ("running", "waiting", "needs_attention")
_CODES: Final[Mapping[int, tuple[str, ...]]] = {0: ("succeeded",), 1: ("failed", "cancelled"), 4: OPEN}
_CALL: Final = re.compile(r"--call (\S+)")
_ANSWER: Final = re.compile(r"flowrun answer (\S+)")


class CommandJudge(Judge):
    """Checks the command lines in one folder.

    Attributes:
        resolved: the calls that a person has decided to make again, each with the command line that says so.
        cancelled: the runs whose cancellation was acknowledged.
        damaged: the runs whose events the test has damaged, without their children.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.resolved: set[tuple[int, str]] = set()
        self.cancelled: set[str] = set()
        self.damaged: set[str] = set()
        self._graphs: dict[str, Graph] = {}
        self._flow = cache(self._load_flow)

    # --- what the journal says ----------------------------------------------------------------------------------------

    @property
    def history(self) -> History:
        """Return the copy of the journal that was judged last."""
        return open_history(self._copy)

    @property
    def _copy(self) -> Path:
        return self.folder / "copy" / "journal.db"

    def rows(self) -> dict[str, RunRow]:
        """Return all runs, children too, the oldest first."""
        if not self._copy.exists():
            return {}
        return {row.id: row for row in reversed(list(self.history.runs(children=True)))}

    def inputs(self, run: str) -> Mapping[str, JSON]:
        """Return what a run began with."""
        return self.run(run).inputs

    def pending(self, run: str) -> RunResult:
        """Return what a run waits for, and its calls in doubt."""
        return find_pending_work(self._graph_of(run), run, self.history.events)

    def answers(self, run: str) -> dict[str, JSON]:
        """Return the answers that a run and its children used, by their questions."""
        return {
            f"{name}/{event.step}/0": event.value
            for name, events in self._events.items()
            if family_of(name) == run
            for event in events
            if isinstance(event, Answered)
        }

    def output(self, run: str) -> JSON:
        """Return the output of a run that has succeeded, as it leaves flowrun: without secrets."""
        outcome = self.run(run).outcome
        assert outcome is not None
        assert outcome.status == "succeeded", f"{run}: {outcome}"
        return json.loads(json.dumps(outcome.output).replace(SECRETS["SHOP_TOKEN"], "${SHOP_TOKEN}"))

    def value_of(self, call: CallFunction) -> int | None:
        """Look up what became of a call, as a person can; None: it did not return."""
        ends = [
            line for line in self.lines if line.what == "end" and (line.key, line.attempt) == (call.key, call.attempt)
        ]
        return ends[-1].value if ends else None

    def _load_flow(self, digest: str) -> Graph:
        row = next(row for row in self.rows().values() if row.spec == digest and row.parent is None)
        return load_stored_flow(self.history, row).prepare_to_show({**os.environ, **SECRETS}).graph

    def _graph_of(self, run: str) -> Graph:
        if run not in self._graphs:
            row = self.rows().get(run)
            assert row is not None, f"work was done for run {run}, which is not in the journal"
            graph = self._flow(row.spec)
            self._graphs[run] = next(each for each in _all_graphs(graph) if each.spec.name == row.flow)
        return self._graphs[run]

    def _read(self) -> tuple[list[StoredEvent], dict[str, str]]:
        events, statuses = stored_events(self.folder)
        whole = {run: status for run, status in statuses.items() if family_of(run) not in self.damaged}
        return [event for event in events if event.run in whole], whole

    def forget(self, run: str) -> None:
        """Judge a run no more, because its events are damaged on purpose."""
        self.damaged.add(run)
        self.stored = [event for event in self.stored if family_of(event.run) != run]
        for name in [name for name in self._events if family_of(name) == run]:
            del self._events[name]

    # --- the laws -----------------------------------------------------------------------------------------------------

    def judge_ended(self, ended: Sequence[Ended]) -> int:
        """Check command lines that ran at once; return the number of new events."""
        progress = self.judge()
        rows = self.rows()
        for each in ended:
            try:
                self._judge_end(each, rows, alone=len(ended) == 1)
            except AssertionError as exc:
                exc.add_note(str(each))
                raise
        self._judge_calls()
        return progress

    def _judge_causes(self, lines: Sequence[Line]) -> None:
        super()._judge_causes([line for line in lines if family_of(line.run) not in self.damaged])

    def _judge_drivers(self, lines: Sequence[Line]) -> None:
        """Check that each run was driven by one command line at a time; some calls have a process of their own."""
        for run in {line.run for line in lines}:
            lives = [life for life, _ in groupby(line.life for line in lines if line.run == run)]
            assert len(lives) == len(set(lives)), f"{run} was driven by two command lines at once: {lives}"

    def _judge_statuses(self, statuses: Mapping[str, str]) -> None:
        for run, status in statuses.items():
            outcome = self.run(run).outcome
            if outcome is not None:
                assert status == outcome.status, f"{run} is listed as {status}, and is {outcome.status}"
            elif "." in run and statuses[family_of(run)] in ENDED:
                assert status == "cancelled", f"{run} is listed as {status}, and its parent has ended"
            else:
                assert status in OPEN, f"{run} is listed as {status}, and has not ended"
                if "." not in run and status != "running":
                    pending = self.pending(run)
                    awaited = pending.in_doubt if status == "needs_attention" else pending.waiting
                    assert awaited, f"{run} is listed as {status}, and is not"

    def _judge_calls(self) -> None:
        """Check that a call was made again only if a person said so, and that what is stored was done."""
        begun: defaultdict[tuple[Place, str], list[int]] = defaultdict(list)
        for line in self.lines:
            if line.what == "begin" and line.tool not in self._harmless:
                begun[line.place, line.key].append(line.life)
        for (place, key), lives in begun.items():
            uncalled = [life for life in lives[1:] if (life, key) not in self.resolved]
            assert not uncalled, f"{place} was made again by {uncalled}, and nobody had said so"
            assert len(lives) == len(set(lives)), f"{place} was made twice by one command line"
        done = {line.place for line in self.lines if line.what == "end"}
        tried = {line.place for line in self.lines if line.what == "begin"}
        for run, events in self._events.items():
            for event in events:
                if isinstance(event, Returned):
                    assert (run, event.step, event.index) in done, f"{run}: {event} is stored, and was not done"
                elif isinstance(event, Failed) and event.failure.name == "tool.failed":
                    assert (run, event.step, event.index) in tried, f"{run}: {event} is stored, and was not tried"

    def _judge_end(self, ended: Ended, rows: Mapping[str, RunRow], *, alone: bool) -> None:
        code = ended.code
        assert "Traceback" not in ended.err, "a traceback"
        assert "a bug in flowrun" not in ended.err, "a bug"
        if -code in (signal.SIGKILL, signal.SIGTERM):
            assert -code in ended.signals, "it ended by a signal that nobody sent"
            return
        if code == 130:
            assert signal.SIGTERM in ended.signals, "it was interrupted by nobody"
            self._judge_drained(ended)
            return
        assert code in (0, 1, 2, 4), "an exit code that says nothing"
        run = self._run_of(ended)
        if code == 2 or (code == 1 and run in self.damaged):
            assert run is None or run in ended.err, "refused, and not by name"
            return
        if run is None or "--later" in ended.words or ended.verb in ("show", "cancel"):
            return
        if "is accepted; " in ended.err:
            assert code == 0
            return
        assert run in rows, f"run {run} was acknowledged, and is not in the journal"
        status = rows[run].status
        assert status in _CODES[code] or (code == 4 and not alone), f"exit code {code}, and the run is {status}"
        assert status in ENDED or run not in self.cancelled, "its cancellation was acknowledged, and dropped"
        if code == 4 and alone:
            self._judge_next_steps(run, ended)
        if code == 0:
            printed, output = json.loads(ended.out), self.output(run)
            assert (printed["output"] if "--json" in ended.words else printed) == output, "what is printed is not so"

    def _run_of(self, ended: Ended) -> str | None:
        """Return the run that a command line is about."""
        if ended.verb in ("resume", "answer", "cancel", "show") and not ended.words[1].startswith("-"):
            return family_of(ended.words[1].partition("/")[0])
        found = re.search(r"^ *run  (\w+), stored in", ended.err, re.MULTILINE)
        return found[1] if found else None

    def _judge_drained(self, ended: Ended) -> None:
        """Check that SIGTERM left no call in doubt that could have returned."""
        for run, events in self._events.items():
            in_doubt = recover(self._graph_of(run), events).in_doubt
            left = [call.key for call in in_doubt if (ended.life, call.key) in self._begun_keys()]
            assert not left, f"SIGTERM left calls in doubt: {left}"

    def _begun_keys(self) -> set[tuple[int, str]]:
        return {(line.life, line.key) for line in self.lines if line.what == "begin"}

    def _judge_next_steps(self, run: str, ended: Ended) -> None:
        """Check that a run that has not ended says how it can."""
        pending = self.pending(run)
        assert set(_CALL.findall(ended.err)) == {call.key for call in pending.in_doubt}
        if not pending.in_doubt:
            assert set(_ANSWER.findall(ended.err)) == {ask.run for ask in pending.waiting}

    # --- lists, secrets -----------------------------------------------------------------------------------------------

    def judge_list(self, ended: Ended) -> None:
        """Check that ``flowrun runs --all --children --json`` hides no run."""
        listed = {row["id"]: row["status"] for row in map(json.loads, ended.out.splitlines())}
        rows = self.rows()
        assert set(listed) == set(rows)
        for run, row in rows.items():
            assert listed[run] in (row.status, "interrupted", "damaged")

    def judge_secrets(self) -> None:
        """Check that one secret is nowhere, and the other only in the journal, where a tool has said it."""
        quiet, said = SECRETS["QUIET_TOKEN"].encode(), SECRETS["SHOP_TOKEN"].encode()
        for file in self.folder.rglob("*"):
            if file.is_file():
                content = file.read_bytes()
                assert quiet not in content, f"{file} holds a secret"
                assert said not in content or file.name.startswith("journal.db"), f"{file} holds a secret"
        for event in self.stored:
            if said.decode() in event.body:
                kind = json.loads(event.body)["kind"]
                assert kind in ("Returned", "Failed", "ChildEnded"), f"{event} holds a secret"


def family_of(run: str) -> str:
    """Return the run at the top of a run's parents."""
    return run.partition(".")[0]


def _all_graphs(graph: Graph) -> Iterator[Graph]:
    yield graph
    for each in graph.flows.values():
        yield from _all_graphs(each)
