"""The page of one run: that of ``flowrun show --html``, with what waits for a person before it, and as the run goes."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import msgspec
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from flowrun.core.events import CallFunction
from flowrun.journal.rows import RunRow
from flowrun.serving.pages.answer_fields import form_script, form_style, render_form
from flowrun.serving.pages.reader import RunSight, find_top, read_run
from flowrun.serving.pages.responses import NotFound, follow_script, own_style, page_response, render_part, see_other
from flowrun.serving.pages.site import Site
from flowrun.spec import mask
from flowrun.spec.masking import mask_excerpt
from flowrun.transcript import formatting
from flowrun.transcript.html import Frame, render_html, script_of, style_of
from flowrun.transcript.page_parts import mark_json

_REFRESH: Final = Markup('<noscript><meta http-equiv="refresh" content="3"></noscript>')
"""How a page without a script follows its run; it would wipe what is typed into a form."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a form of a run's page that was not accepted.

    Attributes:
        problem: what is said at the top of the page.
        question: the id of the question whose form is shown again.
        form: that form.
        call: the key of the call in doubt whose value was wrong.
        value: what was typed for it.
        wrong: what is wrong with that.
        status: of the response.
    """

    problem: str = ""
    question: str = ""
    form: Markup = Markup("")
    call: str = ""
    value: str = ""
    wrong: str = ""
    status: int = 422


async def show_run(site: Site, request: Request) -> Response:
    """Return the page of a run; for the beginning of an id or a child run, a redirect to it."""
    name = request.path_params["run"]
    row, top = await site.reader.read(lambda history: find_top(history, name))
    if row.id != top.id:
        return see_other(f"{path_of(top.id)}#{quote(row.id)}/1")
    if name != top.id:
        return see_other(path_of(top.id))
    return await run_response(site, top)


def path_of(run: str) -> str:
    """Return the path of a run's page."""
    return f"/runs/{quote(run)}"


async def run_response(site: Site, row: RunRow, attempt: Attempt | None = None) -> Response:
    """Return the page of a top run.

    Args:
        attempt: a form that was not accepted.
    """
    sight = await site.reader.read(lambda history: read_run(history, row, site.runs.shown))
    frame = frame_of(site, sight, attempt)
    zone = datetime.now().astimezone().tzinfo or UTC
    graph, transcript = sight.flow.graph, sight.transcript
    html = await site.reader.read(lambda _: render_html(graph, transcript, zone=zone, frame=frame))
    status = 200 if attempt is None else attempt.status
    return page_response(html, style=style_of(frame), script=script_of(frame), status=status)


def frame_of(site: Site, sight: RunSight, attempt: Attempt | None) -> Frame:
    """Return what the server adds to the page of a run."""
    row, path = sight.row, path_of(sight.row.id)
    moves = _moves(site, sight)
    has_form = bool(sight.questions or sight.in_doubt)
    secrets = sight.flow.secrets
    below = render_part(
        "below",
        path=path,
        problem=mask_excerpt(attempt.problem, secrets) if attempt is not None else "",
        refused=mask_excerpt(site.runs.refused.get(row.id, ""), secrets),
        questions=[_question(sight, path, number, attempt) for number in range(len(sight.questions))],
        doubts=[_doubt(sight, call, attempt) for call in sight.in_doubt],
        note=_note(site, sight),
        resumable=_is_resumable(site, sight),
        open=row.ended is None,
    )
    attributes = {
        "data-version": site.changes.version_of(row.id, sight.version),
        "data-announce": _announcement(sight),
    }
    if row.ended is None:
        attributes["data-changes"] = f"{path}/changes"
    return Frame(
        head=_REFRESH if moves and not has_form and attempt is None else Markup(""),
        above=render_part("bar", home=False, keyed=bool(site.access.keys)),
        below=below,
        attributes=attributes,
        style=f"{own_style()}\n{form_style()}",
        script=f"{form_script()}\n{follow_script()}",
    )


def _question(sight: RunSight, path: str, number: int, attempt: Attempt | None) -> Mapping[str, Any]:
    ask = sight.questions[number].shown
    again = attempt is not None and attempt.question == ask.id
    form = attempt.form if again and attempt is not None else render_form(ask, action=f"{path}/answers")
    about = (one.visit for one in sight.transcript.attention if f"{one.run}/{one.step}/{one.about.index}" == ask.id)
    step = next(about, 1)
    return {
        "id": ask.id,
        "run": ask.run,
        "state": ask.state,
        "step": step,
        "link": f"{ask.run}/{step}",
        "child": ask.run != sight.row.id,
        "form": form,
    }


def _doubt(sight: RunSight, call: CallFunction, attempt: Attempt | None) -> Mapping[str, Any]:
    again = attempt if attempt is not None and attempt.call == call.key else None
    return {
        "key": call.key,
        "name": call.tool or call.entrypoint,
        "state": call.state,
        "run": call.run,
        "child": call.run != sight.row.id,
        "arguments": mark_json(mask(dict(call.arguments), sight.flow.secrets)) if call.arguments else "",
        "value": "" if again is None else again.value,
        "wrong": "" if again is None else again.wrong,
    }


def _moves(site: Site, sight: RunSight) -> bool:
    """Return whether the run goes on without a person."""
    row = sight.row
    return row.ended is None and (row.holder is not None or site.runs.is_resuming(row.id))


def _is_resumable(site: Site, sight: RunSight) -> bool:
    row = sight.row
    if row.ended is not None or row.holder is not None or sight.in_doubt or site.runs.is_resuming(row.id):
        return False
    return bool(sight.unread) or sight.transcript.status in ("interrupted", "sleeping", "running")


def _note(site: Site, sight: RunSight) -> str:
    """Return what is to be said about a run that seems to stand still."""
    row, status = sight.row, sight.transcript.status
    if row.ended is not None:
        return ""
    if site.runs.is_resuming(row.id) and row.holder is None:
        return "The run is about to go on here."
    if status == "interrupted":
        return "The process that drove this run has ended before the run did."
    if sight.unread and row.holder is None:
        return "An answer was accepted, and the run has not read it yet."
    if sight.unread and sight.transcript.status == "waiting":
        return "An answer was accepted; the run reads it once its other branches have ended or wait too."
    return ""


def _announcement(sight: RunSight) -> str:
    """Return what a screen reader says when it changes."""
    status = formatting.status_words(sight.transcript.status)
    last = sight.transcript.visits[-1:] if sight.row.ended is None else ()
    where = "".join(f", step {visit.step}, {visit.state}" for visit in last)
    asks = f", {formatting.counted(len(sight.questions), 'question')} for you" if sight.questions else ""
    return f"{status}{where}{asks}"


async def follow_run(site: Site, request: Request) -> Response:
    """Return the stream of the changes of a run; no content if there will be none: a browser then asks no more."""
    top = await top_row(site, request)
    if top.ended is not None:
        version = site.changes.version_of(top.id, await site.reader.read(lambda history: history.version_of(top.id)))
        if site.seen_by(request) == version:
            return Response(status_code=204)
    return site.stream(request, top.id)


async def top_row(site: Site, request: Request) -> RunRow:
    """Return the row of the run that a request is about. One that changes something names it by its whole id.

    Raises:
        NotFound: there is none.
    """
    name = request.path_params["run"]
    row, top = await site.reader.read(lambda history: find_top(history, name))
    if request.method == "POST" and row.id != name:
        raise NotFound(f"there is no run {name!r}")
    return top
