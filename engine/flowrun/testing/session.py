"""Runs tests one after the other on one event loop; flows and readers of raw text are prepared once per session."""

import asyncio
import math
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from json import dumps
from pathlib import Path
from typing import Final

import msgspec

from flowrun.backends.scripted import ScriptedReply, request_variables
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply
from flowrun.core.ports import ModelBackend
from flowrun.errors import Bug, FlowrunError, SpecError, UsageError
from flowrun.excerpts import cut
from flowrun.functions.python import CallPool, PythonFunctions
from flowrun.functions.watchdog import pause_watch
from flowrun.runtime.project import BoundModel, CompiledFlow, Project
from flowrun.runtime.runner import Runner
from flowrun.spec import mask, mask_excerpt, place_of
from flowrun.testing.cassettes import CassetteBackend
from flowrun.testing.clock import VirtualLoop, virtual_clock
from flowrun.testing.compare import Problem, compare, observe
from flowrun.testing.coverage import Coverage
from flowrun.testing.fakes import Script, ScriptedHumanInput, StubbedFunctions
from flowrun.testing.load import check_case
from flowrun.testing.readers import NOT_INSTALLED, Reader, Readers
from flowrun.testing.suite import Case, CaseReply, GivenAnswer, RawReply, Suite
from flowrun.testing.trace import Trace
from flowrun.testing.verdict import Conversation, Verdict, explain_error

RUN: Final = "test"
"""The id of the run of each test."""

_CANCEL_TIMEOUT: Final = 60.0
"""The seconds, in virtual time, that a cancelled task has to end."""

_MAX_REPLY: Final = 200
"""The number of characters of a leftover reply that are shown."""


class SpecTestSession:
    """A session of tests. ``coverage`` collects the states and edges that they take.

    Args:
        project_dir: the folder from which entrypoints are imported.
        environ: the variables for ``${VAR}``; a reference to a missing variable is left as it is written.
        open_reader: builds the reader of a model's raw text; None if raw text cannot be parsed here.
        hide: called with the secrets of each flow, before it runs.
    """

    def __init__(
        self,
        *,
        project_dir: Path | None = None,
        environ: Mapping[str, str] = {},
        open_reader: Callable[[BoundModel], Reader] | None = None,
        hide: Callable[[Mapping[str, str]], None] = lambda secrets: None,
    ) -> None:
        self.coverage = Coverage()
        self._hide = hide
        self._project = Project(folder=project_dir, environ=environ, require_environment=False)
        self._flows: dict[tuple[Path, str | None], CompiledFlow | FlowrunError] = {}
        self._loop = VirtualLoop()
        self._readers = Readers(open_reader, self._loop)
        self._pool = CallPool()

    def run(self, suite: Suite, case: Case) -> Verdict:
        """Run one test. Errors of the test or its flow, and bugs of flowrun, become the verdict; none is raised."""
        started = time.perf_counter()
        try:
            verdict = self._run(suite, case)
        except Exception as exc:
            lines = tuple("".join(traceback.format_exception(exc)).splitlines())
            problem = Problem(
                what="flowrun failed on this test: this is a bug in flowrun; please report it", lines=lines
            )
            verdict = msgspec.structs.replace(_verdict(suite, case), status="failed", problems=(problem,))
        return msgspec.structs.replace(verdict, seconds=time.perf_counter() - started)

    def close(self) -> None:
        """Stop the readers and the worker processes, and close the event loop."""
        self._pool.close()
        if not self._loop.is_closed():
            self._loop.run_until_complete(self._readers.stop())
            self._loop.close()

    def __enter__(self) -> "SpecTestSession":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self, suite: Suite, case: Case) -> Verdict:
        verdict = _verdict(suite, case)
        try:
            flow = self._flow(suite.flow, case.profile)
            if issues := check_case(suite, case, flow.graph):
                raise SpecError(issues)
        except FlowrunError as exc:
            return msgspec.structs.replace(verdict, status="failed", problems=tuple(explain_error(exc)))
        if not self._readers.available and any(isinstance(reply.reply, RawReply) for reply in case.replies):
            return msgspec.structs.replace(verdict, status="skipped", reason=NOT_INSTALLED)
        return self._run_case(flow, case, verdict)

    def _flow(self, path: Path, profile: str | None) -> CompiledFlow:
        key = (path, profile)
        if key not in self._flows:
            try:
                self._flows[key] = flow = self._project.compile(path, profile=profile)
                self._hide(flow.secrets)
            except FlowrunError as exc:
                self._flows[key] = exc
                raise
        found = self._flows[key]
        if isinstance(found, FlowrunError):
            raise UsageError(f"{path} cannot run; its first test that failed says why")
        self.coverage.expect(found)
        return found

    def _run_case(self, flow: CompiledFlow, case: Case, verdict: Verdict) -> Verdict:
        test_run = _TestRun(flow, case, self._readers, self._loop, self._pool)
        try:
            self._loop.run_until_complete(test_run.run())
        finally:
            pause_watch()
        problems = tuple(_masked(problem, flow.secrets) for problem in test_run.problems())
        self.coverage.add(flow, test_run.trace)
        if not problems:
            return verdict
        return msgspec.structs.replace(
            verdict,
            status="failed",
            problems=problems,
            path=tuple(test_run.trace.run.path),
            conversations=tuple(mask(one, flow.secrets) for one in _conversations(test_run.trace)),
        )


class _TestRun:
    """A test in progress."""

    def __init__(self, flow: CompiledFlow, case: Case, readers: Readers, loop: VirtualLoop, pool: CallPool) -> None:
        self.trace = Trace(flow.graph, RUN)
        self._flow = flow
        self._case = case
        self._readers = readers
        self._functions = StubbedFunctions(PythonFunctions(flow.functions, pool), case.stubs, loop)
        self._human_input = ScriptedHumanInput(case.answers)
        self._replies = [_bind_reply(reply) for reply in case.replies]
        self._backend: Script | CassetteBackend | None = None
        self._error: FlowrunError | None = None

    async def run(self) -> None:
        """Run the flow until it ends, waits, or requests a reply or an answer that the test does not have.

        Raises:
            Bug: flowrun itself has a bug.
        """
        try:
            self._backend = backend = self._make_backend()
            runner = Runner(
                backends=defaultdict[str, ModelBackend](lambda: backend),
                functions=self._functions,
                human_input=self._human_input,
                observers=[self.trace],
                chance=lambda: 0.0,
                now=virtual_clock(),
                tick=math.inf,
            )
            await runner.run(self._flow.graph, self._case.inputs, run_id=RUN)
        except Bug:
            raise
        except FlowrunError as exc:
            self._error = exc
        finally:
            await _cancel_other_tasks()

    def problems(self) -> Iterator[Problem]:
        """Yield the differences between the run and the expectations of the test."""
        if self._error is not None:
            yield from explain_error(self._error)
            return
        yield from compare(self._case.expect, observe(self.trace, self._functions))
        yield from self._leftovers()

    def _leftovers(self) -> Iterator[Problem]:
        """Yield a problem for replies and for answers that were not requested."""
        match self._backend:
            case Script() as script:
                left = [number for number, one in enumerate(self._replies, 1) if any(one is u for u in script.unused)]
                lines = tuple(f"reply {number}: {_as_line(self._replies[number - 1])}" for number in left)
                yield from _leftover_problems(lines, "reply", "replies")
            case CassetteBackend() as cassette:
                lines = tuple(f"{self._case.cassette}:{number}" for number in cassette.unused)
                yield from _leftover_problems(lines, "recorded reply", "recorded replies")
        answers = tuple(map(_answer_as_line, self._human_input.unused))
        yield from _leftover_problems(answers, "answer", "answers")

    def _make_backend(self) -> Script | CassetteBackend:
        if self._case.cassette is not None:
            return CassetteBackend(self._case.cassette, reader_of=self._reader_of, secrets=self._flow.secrets)
        return Script(self._replies, parse=self._parse)

    async def _reader_of(self, request: AskModel) -> Reader | None:
        """Return the reader of a model's raw text; None for a model not run by vLLM, or if vLLM is not installed."""
        bound = self._flow.models[request.model]
        if not self._readers.available or not bound.model.capabilities.raw_text:
            return None
        return await self._readers.reader_of(bound)

    async def _parse(self, request: AskModel, raw: Reply) -> Reply:
        reader = await self._readers.reader_of(self._flow.models[request.model])
        return await reader.read_text(request, raw)


def _verdict(suite: Suite, case: Case) -> Verdict:
    return Verdict(file=str(suite.path), name=case.name, place=place_of(suite.document, case.at), status="passed")


async def _cancel_other_tasks() -> None:
    """Cancel the tasks that a run left behind, such as the other branches of a stopped run."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=_CANCEL_TIMEOUT)


def _bind_reply(case_reply: CaseReply) -> ScriptedReply:
    """Return a scripted reply with its ``when``."""
    holds = case_reply.holds
    if holds is None:
        return case_reply.reply
    return msgspec.structs.replace(
        case_reply.reply, when=lambda request: holds({"request": request_variables(request)})
    )


def _as_line(reply: ScriptedReply) -> str:
    """Return a reply as one line, in the form of a test file."""
    fields = {
        "content": reply.content,
        "tool_calls": [{"name": call.name, "arguments": call.arguments} for call in reply.tool_calls],
        "text": reply.text if isinstance(reply, RawReply) else None,
        "probabilities": reply.probabilities,
        "error": reply.error,
    }
    return cut(dumps({key: value for key, value in fields.items() if value}, ensure_ascii=False), _MAX_REPLY)


def _answer_as_line(answer: GivenAnswer) -> str:
    called = "" if answer.call is None else f", call {answer.call}"
    return f"for state {answer.state}{called}: {dumps(answer.value, ensure_ascii=False)}"


def _leftover_problems(lines: tuple[str, ...], singular: str, plural: str) -> Iterator[Problem]:
    if lines:
        what = f"1 {singular} is left over" if len(lines) == 1 else f"{len(lines)} {plural} are left over"
        yield Problem(what=what, lines=lines)


def _conversations(trace: Trace) -> Iterator[Conversation]:
    """Yield the threads of a run and its children that hold messages."""
    started = trace.begun()
    for name, run in trace.runs().items():
        child = "" if name == RUN else f" ({name.removeprefix(f'{RUN}.')})"
        for thread, messages in run.threads.items():
            if messages:
                yield Conversation(
                    of=f"messages of flow {trace.graphs[name].spec.name}{child}, thread {thread}",
                    messages=messages,
                    given=len(started[name].threads.get(thread, ())),
                )


def _masked(problem: Problem, secrets: Mapping[str, str]) -> Problem:
    lines = tuple(mask_excerpt(line, secrets) for line in problem.lines)
    return Problem(what=mask_excerpt(problem.what, secrets), lines=lines)
