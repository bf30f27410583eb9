"""The list of runs: found by words and filters that stand in its address, a page at a time."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from flowrun.journal import History
from flowrun.journal.rows import RunRow
from flowrun.journal.search import COUNTED, OPEN_STATUSES, STATUS_FILTERS, RunPage, RunQuery
from flowrun.serving.pages.responses import base_page, follow_script
from flowrun.serving.pages.site import Site
from flowrun.transcript import formatting

_MAX_TEXT: Final = 200
"""The most characters of a filter."""

_URGENT: Final = {
    "waiting": ("waits for an answer", "wait for an answer"),
    "needs_attention": ("has a call in doubt", "have a call in doubt"),
    "interrupted": ("was interrupted", "were interrupted"),
}
"""What people may have to do something about, in words for one run and for several."""


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    page: RunPage
    counts: Mapping[str, int]
    flows: list[str]
    batches: list[str]
    version: str


async def show_list(site: Site, request: Request) -> Response:
    """Return the list of runs."""
    query = read_query(request.query_params)

    def find(history: History) -> _Found:
        version = history.version_of(None)
        flows, batches = history.filters()
        counts = history.open_counts()
        return _Found(page=history.search(query), counts=counts, flows=flows, batches=batches, version=version)

    found = await site.lists.read(find)
    now, zone = time.time(), datetime.now().astimezone().tzinfo or UTC
    follows = {} if query.before else {"data-changes": "/changes"}
    return base_page(
        "list",
        title="Runs",
        script=follow_script(),
        home=True,
        keyed=bool(site.access.keys),
        attributes={
            **follows,
            "data-version": site.changes.version_of(None, found.version),
            "data-announce": "; ".join(words for _, words in _urgent(found.counts)) or "no run waits",
        },
        query=query,
        page=found.page,
        rows=[_shown(row, now) for row in found.page.rows],
        urgent=[(link_to(status=status), words) for status, words in _urgent(found.counts)],
        statuses=list(_chips(query, found.counts)),
        flows=sorted({*found.flows, query.flow} - {""}),
        batches=found.batches,
        newest=_link(query, before=None),
        older=_link(query, before=found.page.older),
        filtered=query != RunQuery(before=query.before),
        journal=str(site.runs.history.path),
        zone=zone,
    )


def read_query(params: Mapping[str, str]) -> RunQuery:
    """Return what the address of a list asks for; what is not understood asks for nothing."""
    text = {name: params.get(name, "").strip()[:_MAX_TEXT] for name in ("q", "status", "flow", "batch", "before")}
    return RunQuery(
        words=text["q"],
        status=text["status"] if text["status"] in STATUS_FILTERS else "",
        flow=text["flow"],
        batch=text["batch"],
        before=int(text["before"]) if text["before"].isdecimal() and len(text["before"]) < 19 else None,
    )


def link_to(**filters: object) -> str:
    """Return the address of a list."""
    given = {name: value for name, value in filters.items() if value}
    return f"/?{urlencode(given)}" if given else "/"


def _link(query: RunQuery, **changed: Any) -> str:
    new = msgspec.structs.replace(query, **changed)
    return link_to(q=new.words, status=new.status, flow=new.flow, batch=new.batch, before=new.before)


def _urgent(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    return [
        (status, f"{_count(counts[status])} {'run' if counts[status] == 1 else 'runs'} {words[counts[status] != 1]}")
        for status, words in _URGENT.items()
        if counts[status]
    ]


def _count(count: int) -> str:
    return f"{COUNTED:,} or more" if count >= COUNTED else f"{count:,}"


def _chips(query: RunQuery, counts: Mapping[str, int]) -> list[dict[str, object]]:
    """Return the links that choose a status: all, those of open runs that there are, and those of ended ones."""
    shown = [
        status for status in STATUS_FILTERS if status not in OPEN_STATUSES or counts[status] or query.status == status
    ]
    return [
        {
            "name": formatting.status_words(status) if status else "all",  # type: ignore[arg-type]
            "count": _count(counts[status]) if status in counts else "",
            "link": _link(query, status=status, before=None),
            "chosen": query.status == status,
        }
        for status in ("", *shown)
    ]


def _shown(row: RunRow, now: float) -> dict[str, object]:
    status = "damaged" if row.damaged else "interrupted" if row.interrupted else row.status
    end = now if status == "running" else row.ended
    return {"row": row, "status": status, "age": now - row.created, "took": None if end is None else end - row.created}
