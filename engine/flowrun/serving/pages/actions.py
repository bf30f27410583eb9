"""What people do with a run: they answer its questions, resolve its calls in doubt, resume it and cancel it.

Each form leads back to the page of the run, which then shows what came of it.
"""

import asyncio
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from flowrun.core.events import CallFunction
from flowrun.errors import FlowrunError, UsageError
from flowrun.journal import History
from flowrun.journal.questions import closing_event, describe_closed, parse_question_id
from flowrun.journal.rows import RunRow
from flowrun.runtime.run_result import AssumeDone, CallAgain, Resolve
from flowrun.serving.pages.answer_fields import read_form
from flowrun.serving.pages.answer_view import CHANGE, QUESTION
from flowrun.serving.pages.reader import RunSight, read_run
from flowrun.serving.pages.responses import read_pairs, see_other
from flowrun.serving.pages.run_page import Attempt, path_of, run_response, top_row
from flowrun.serving.pages.site import Site
from flowrun.spec.model import JSON
from flowrun.spec.strict_json import parse_json
from flowrun.unicode import well_formed

_CONFLICT: Final = 409
_BEGIN_SECONDS: Final = 0.5
_LOOK_SECONDS: Final = 0.02
"""How long a page waits for a resumed run to go, so that it shows it as it goes, and how often it looks."""

_REASON: Final = 500
"""The most characters of the reason of a cancellation."""


async def back(site: Site, request: Request) -> Response:
    """Return to the page of a run: a form's address was asked for without the form."""
    return see_other(path_of((await top_row(site, request)).id))


async def post_answer(site: Site, request: Request) -> Response:
    """Answer a question of a run."""
    row = await top_row(site, request)
    posted = [(name, well_formed(text)) for name, text in await read_pairs(request)]
    wanted = next((text for name, text in posted if name == QUESTION), "")
    sight = await _sight(site, row)
    question = next((one for one in sight.questions if one.shown.id == wanted), None)
    if question is None:
        problem = await site.reader.read(lambda history: _why_not_open(history, wanted))
        return await run_response(site, row, Attempt(problem=problem, status=_CONFLICT))
    filled = read_form(question.shown, posted, action=f"{path_of(row.id)}/answers")
    if filled.form is not None:
        status = 200 if any(name == CHANGE for name, _ in posted) else 422
        return await run_response(site, row, Attempt(question=wanted, form=filled.form, status=status))
    try:
        await site.runs.answer(wanted, filled.value)
    except UsageError as exc:  # somebody else was quicker
        return await run_response(site, await _again(site, row), Attempt(problem=_sentence(exc), status=_CONFLICT))
    return await _going(site, row)


def _why_not_open(history: History, question: str) -> str:
    """Return why a question accepts no answer, with the answer that counts."""
    try:
        run, step, index = parse_question_id(question)
    except UsageError:
        return "The form names no question of this run: nothing was answered."
    known = [*(one.event for one in history.events(run)), *history.inbox(run)]
    closing = closing_event(known, step, index)
    why = f"the question {question} is not open any more" if closing is None else describe_closed(question, closing)
    return f"{why[:1].upper()}{why[1:]}."


async def post_cancel(site: Site, request: Request) -> Response:
    """Cancel a run."""
    row = await top_row(site, request)
    given = dict(await read_pairs(request))
    reason = well_formed(given.get("reason", "")).strip()[:_REASON]
    try:
        await site.runs.cancel(row.id, reason=reason)
    except UsageError as exc:
        return await run_response(site, await _again(site, row), Attempt(problem=_sentence(exc), status=_CONFLICT))
    return see_other(path_of(row.id))


async def post_resume(site: Site, request: Request) -> Response:
    """Resume a run here, in the background."""
    row = await top_row(site, request)
    if (problem := _why_not_here(row)) is not None:
        return await run_response(site, row, Attempt(problem=problem, status=_CONFLICT))
    site.runs.resume(row.id)
    return await _going(site, row)


async def post_doubt(site: Site, request: Request) -> Response:
    """Resolve one call in doubt (it was made, and gave a value), or all of them (they are made again)."""
    row = await top_row(site, request)
    given = dict(await read_pairs(request))
    key, how, text = given.get("call", ""), given.get("how", ""), well_formed(given.get("value", ""))
    if (problem := _why_not_here(row)) is not None:
        return await run_response(site, row, Attempt(problem=problem, status=_CONFLICT))
    sight = await _sight(site, row)
    if not sight.in_doubt or (how == "done" and key not in [call.key for call in sight.in_doubt]):
        return await run_response(site, row, Attempt(problem="This call is in doubt no more.", status=_CONFLICT))
    value: JSON = None
    if how == "done":
        try:
            value = parse_json(text) if text.strip() else None
        except ValueError as exc:
            return await run_response(site, row, Attempt(call=key, value=text, wrong=f"This is no JSON: {exc}"))
    elif how != "again":
        raise UsageError("the form does not say whether the call was made")
    site.runs.resume(row.id, resolve=_resolution(key, value) if how == "done" else lambda call: CallAgain())
    return await _going(site, row)


async def _going(site: Site, row: RunRow) -> Response:
    """Return to the page of a run that was resumed, once it has read its answer; its engines may take longer."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _BEGIN_SECONDS

    def goes(history: History) -> bool:
        return history.run(row.id).holder is not None and row.id not in history.inbox_counts()

    while site.runs.is_resuming(row.id) and loop.time() < deadline:
        if await site.reader.read(goes):
            break
        await asyncio.sleep(_LOOK_SECONDS)
    return see_other(path_of(row.id))


def _resolution(key: str, value: JSON) -> Resolve:
    def resolve(call: CallFunction) -> AssumeDone | CallAgain | None:
        return AssumeDone(value) if call.key == key else None

    return resolve


def _why_not_here(row: RunRow) -> str | None:
    """Return why a run cannot be resumed here."""
    if row.ended is not None:
        return f"The run has ended: {row.status}."
    if row.holder is not None:
        return f"The run is driven by process {row.holder.pid} on {row.holder.host}."
    return None


async def _sight(site: Site, row: RunRow) -> RunSight:
    return await site.reader.read(lambda history: read_run(history, row, site.runs.shown))


async def _again(site: Site, row: RunRow) -> RunRow:
    return await site.reader.read(lambda history: history.run(row.id))


def _sentence(error: FlowrunError) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
