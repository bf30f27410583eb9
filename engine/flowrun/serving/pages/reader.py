"""Reads what pages show of a run from its journal."""

from typing import Any

import msgspec

from flowrun.core.events import CallFunction
from flowrun.errors import UsageError
from flowrun.journal import History, RunRow
from flowrun.runtime.flow_runs import find_pending_work, unanswered
from flowrun.runtime.project import CompiledFlow
from flowrun.runtime.run_result import InputRequest
from flowrun.serving.answers import mask_request
from flowrun.serving.pages.responses import NotFound
from flowrun.serving.shown_flows import ShownFlows
from flowrun.spec import mask
from flowrun.transcript import Transcript, build_transcript


class OpenQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """A question that waits. ``shown`` is without secrets, ``asked`` as the run asks it."""

    asked: InputRequest
    shown: InputRequest


class RunSight(msgspec.Struct, frozen=True, kw_only=True):
    """A run as a page shows it, without secrets.

    Attributes:
        row: the run in lists.
        version: changes whenever the run does.
        questions: those that have no answer yet.
        in_doubt: the calls of the run and its children that are in doubt.
        unread: answers and cancellations that the run has not read yet.
    """

    row: RunRow
    version: str
    flow: CompiledFlow
    transcript: Transcript
    questions: tuple[OpenQuestion, ...] = ()
    in_doubt: tuple[CallFunction, ...] = ()
    unread: int = 0


def find_top(history: History, name: str) -> tuple[RunRow, RunRow]:
    """Return the run that a name or its beginning means, and the run at the top of its parents.

    Raises:
        NotFound: there is none, or more than one.
    """
    try:
        return history.run(name), history.top_run(name)
    except UsageError as exc:
        raise NotFound(str(exc)) from exc


def read_run(history: History, row: RunRow, flows: ShownFlows) -> RunSight:
    """Read a top run with its children.

    Raises:
        RunDamaged: one of them is not complete.
    """
    version = history.version_of(row.id)  # before the events, so that no later one is missed
    flow = flows.flow_of(history, row)
    names = history.descendants(row.id)
    events = {name: history.events(name) for name in (row.id, *names)}
    children = {name: events[name] for name in names}
    transcript = build_transcript(flow.graph, events[row.id], children, live=row.holder is not None)
    given: dict[str, Any] = {"row": row, "version": version, "flow": flow}
    given["transcript"] = mask(transcript, flow.secrets)
    if row.ended is None:
        inboxes = {name: history.inbox(name) for name in events}
        given["unread"] = sum(map(len, inboxes.values()))
        if transcript.attention:
            pending = find_pending_work(flow.graph, row.id, lambda name: events.get(name, []))
            given["in_doubt"] = tuple(pending.in_doubt)
            given["questions"] = tuple(
                OpenQuestion(asked=ask, shown=mask_request(ask, flow.secrets))
                for ask in unanswered(pending, inboxes.__getitem__)
            )
    return RunSight(**given)
