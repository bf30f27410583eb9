"""Runs tests, one after the other, on one event loop: flows are prepared once, and so is what reads raw text."""

import asyncio
import json
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from flowrun.backends.scripted import ScriptedReply, view_of
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply
from flowrun.core.ports import ModelBackend
from flowrun.errors import Bug, FlowrunError, SpecError, UsageError
from flowrun.runtime.prepare import BoundModel, Flow, prepare_flow
from flowrun.runtime.runner import Runner
from flowrun.spec import mask, place_of
from flowrun.spec.model import JSON
from flowrun.spec.phrases import shorten
from flowrun.testing.cassettes import CassetteBackend
from flowrun.testing.clock import VirtualLoop
from flowrun.testing.compare import Problem, compare_run
from flowrun.testing.coverage import Coverage
from flowrun.testing.fakes import Script, ScriptedPeople, StubbedFunctions
from flowrun.testing.load import check_case
from flowrun.testing.readers import NOT_INSTALLED, Reader, Readers
from flowrun.testing.suite import Case, CaseReply, RawReply, Suite
from flowrun.testing.trace import Trace
from flowrun.testing.verdict import Conversation, Verdict, explain_error

RUN: Final = "test"
"""The id of every run in a test."""

_PATIENCE: Final = 60.0
"""So many seconds, which take no time, a task has to end."""

_SHOWN: Final = 200
"""Of a reply that is left over, so many characters are shown."""


class SpecTestSession:
    """Runs tests. ``coverage`` knows what they went through.

    Args:
        project_dir: where entrypoints start.
        environ: the variables for ``${VAR}``; those that are not there are left as they are written.
        open_reader: makes what reads raw text of a model; None if nothing can.
    """

    def __init__(
        self,
        *,
        project_dir: Path | None = None,
        environ: Mapping[str, str] = {},
        open_reader: Callable[[BoundModel], Reader] | None = None,
    ) -> None:
        self.coverage = Coverage()
        self._project_dir = project_dir
        self._environ = environ
        self._flows: dict[tuple[Path, str | None], Flow | FlowrunError] = {}
        self._loop = VirtualLoop()
        self._readers = Readers(open_reader, self._loop)

    def run(self, suite: Suite, case: Case) -> Verdict:
        """Run one test. Never raises because of what the test or its flow is like, nor for a bug that one shows."""
        begun = time.perf_counter()
        try:
            verdict = self._run(suite, case)
        except Exception as exc:
            lines = tuple("".join(traceback.format_exception(exc)).splitlines())
            problem = Problem(
                what="flowrun failed on this test: this is a bug in flowrun; please report it", lines=lines
            )
            verdict = msgspec.structs.replace(_verdict(suite, case), status="failed", problems=(problem,))
        return msgspec.structs.replace(verdict, seconds=time.perf_counter() - begun)

    def close(self) -> None:
        """Give back what was started."""
        if not self._loop.is_closed():
            self._loop.run_until_complete(self._readers.stop())
            self._loop.close()

    def __enter__(self) -> "SpecTestSession":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, suite: Suite, case: Case) -> Verdict:
        verdict = _verdict(suite, case)
        try:
            flow = self._flow(suite.flow, case.profile)
            if issues := check_case(suite, case, flow.graph):
                raise SpecError(issues)
        except FlowrunError as exc:
            return msgspec.structs.replace(verdict, status="failed", problems=tuple(explain_error(exc)))
        if not self._readers.available and any(isinstance(said.reply, RawReply) for said in case.replies):
            return msgspec.structs.replace(verdict, status="skipped", reason=NOT_INSTALLED)
        return self._play(flow, case, verdict)

    def _flow(self, path: Path, profile: str | None) -> Flow:
        key = (path, profile)
        if key not in self._flows:
            try:
                self._flows[key] = prepare_flow(
                    path,
                    profile=profile,
                    project_dir=self._project_dir,
                    environ=self._environ,
                    require_environment=False,
                )
            except FlowrunError as exc:
                self._flows[key] = exc
                raise
        flow = self._flows[key]
        if isinstance(flow, FlowrunError):
            raise UsageError(f"{path} cannot run; its first test that failed says why")
        self.coverage.expect(flow)
        return flow

    def _play(self, flow: Flow, case: Case, verdict: Verdict) -> Verdict:
        play = _TestRun(flow, case, self._readers, self._loop)
        self._loop.run_until_complete(play.run())
        problems = tuple(_masked(problem, flow.secrets) for problem in play.problems())
        self.coverage.add(flow, play.trace)
        if not problems:
            return verdict
        return msgspec.structs.replace(
            verdict,
            status="failed",
            problems=problems,
            path=tuple(play.trace.run.path),
            conversations=tuple(_conversations(play.trace)),
        )


class _TestRun:
    """One test under way."""

    def __init__(self, flow: Flow, case: Case, readers: Readers, loop: VirtualLoop) -> None:
        self.trace = Trace(flow.graph, RUN)
        self._flow = flow
        self._case = case
        self._readers = readers
        self._functions = StubbedFunctions(flow.functions, case.stubs, loop)
        self._people = ScriptedPeople(case.answers)
        self._replies = [_bound(said, self.trace) for said in case.replies]
        self._backend: Script | CassetteBackend | None = None
        self._stopped: FlowrunError | None = None

    async def run(self) -> None:
        """Run the flow until it ends, waits, or asks for what the test does not have."""
        try:
            self._backend = backend = self._make_backend()
            runner = Runner(
                backends=defaultdict[str, ModelBackend](lambda: backend),
                functions=self._functions,
                people=self._people,
                observers=[self.trace],
                chance=lambda: 0.0,
            )
            await runner.run(self._flow.graph, self._case.inputs, run_id=RUN)
        except Bug:
            raise
        except FlowrunError as exc:
            self._stopped = exc
        finally:
            await _end_others()

    def problems(self) -> Iterator[Problem]:
        """Give everything that is not as the test has it."""
        if self._stopped is not None:
            yield from explain_error(self._stopped)
            return
        yield from compare_run(self._case.expect, self.trace.run, self._functions.calls)
        yield from self._left_over()

    def _left_over(self) -> Iterator[Problem]:
        """Tell of replies and answers that nobody asked for."""
        match self._backend:
            case Script() as script:
                left = [number for number, one in enumerate(self._replies, 1) if any(one is u for u in script.unused)]
                lines = tuple(f"reply {number}: {_shown(self._replies[number - 1])}" for number in left)
                yield from _unasked(lines, "reply", "replies")
            case CassetteBackend() as cassette:
                lines = tuple(f"{self._case.cassette}:{number}" for number in cassette.unused)
                yield from _unasked(lines, "recorded reply", "recorded replies")
        answers = tuple(
            f"for state {answer.state}: {json.dumps(answer.value, ensure_ascii=False)}"
            for answer in self._people.unused
        )
        yield from _unasked(answers, "answer", "answers")

    def _make_backend(self) -> Script | CassetteBackend:
        if self._case.cassette is not None:
            return CassetteBackend(self._case.cassette, reader_of=self._reader_of)
        return Script(self._replies, read=self._read)

    async def _reader_of(self, request: AskModel) -> Reader | None:
        """Give who reads a model's raw text; nobody where that is done elsewhere, or cannot be done here."""
        bound = self._flow.models[request.model]
        if not self._readers.available or bound.model.backend != "vllm":
            return None
        return await self._readers.reader_of(bound)

    async def _read(self, request: AskModel, written: Reply) -> Reply:
        reader = await self._readers.reader_of(self._flow.models[request.model])
        return await reader.read_text(request, written)


def _verdict(suite: Suite, case: Case) -> Verdict:
    return Verdict(file=str(suite.path), name=case.name, place=place_of(suite.document, case.at), status="passed")


async def _end_others() -> None:
    """End what a run left behind, such as the other branches of one that was stopped."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=_PATIENCE)


def _bound(said: CaseReply, trace: Trace) -> ScriptedReply:
    """Give a reply whose ``when`` looks at the requests of one run and its children."""
    holds = said.holds
    if holds is None:
        return said.reply
    return msgspec.structs.replace(said.reply, when=lambda request: holds({"request": _view(request, trace)}))


def _view(request: AskModel, trace: Trace) -> dict[str, JSON]:
    """Give a request as a ``when`` sees it."""
    return {**view_of(request), "flow": trace.graphs[request.run].spec.name}


def _shown(reply: ScriptedReply) -> str:
    """Write a reply in a line, as a test file would have it."""
    said = {
        "content": reply.content,
        "tool_calls": [{"name": call.name, "arguments": call.arguments} for call in reply.tool_calls],
        "text": reply.text if isinstance(reply, RawReply) else None,
        "error": reply.error,
    }
    return shorten(json.dumps({key: value for key, value in said.items() if value}, ensure_ascii=False), _SHOWN)


def _unasked(lines: tuple[str, ...], one: str, many: str) -> Iterator[Problem]:
    if lines:
        what = f"1 {one} is left over" if len(lines) == 1 else f"{len(lines)} {many} are left over"
        yield Problem(what=what, lines=lines)


def _conversations(trace: Trace) -> Iterator[Conversation]:
    """Give the threads of a run and its children that hold messages."""
    begun = trace.begun()
    for name, run in trace.runs().items():
        child = "" if name == RUN else f" ({name.removeprefix(f'{RUN}.')})"
        for thread, messages in run.threads.items():
            if messages:
                yield Conversation(
                    of=f"messages of flow {trace.graphs[name].spec.name}{child}, thread {thread}",
                    messages=messages,
                    given=len(begun[name].threads.get(thread, ())),
                )


def _masked(problem: Problem, secrets: Mapping[str, str]) -> Problem:
    lines = tuple(mask(line, secrets) for line in problem.lines)
    return Problem(what=mask(problem.what, secrets), lines=lines)
