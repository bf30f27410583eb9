"""What the endpoints of the pages share: the runs, who may ask, the readers of the journal, and its changes."""

from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple, Self

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from flowrun.serving.gate import Access
from flowrun.serving.pages.changes import Changes
from flowrun.serving.reader import Reader
from flowrun.serving.served_runs import ServedRuns

_EVENTS: Mapping[str, str] = {
    "cache-control": "no-store",
    "x-accel-buffering": "no",
    "x-content-type-options": "nosniff",
}


class Site(NamedTuple):
    """The pages of a journal.

    Attributes:
        lists: reads lists, whose searches may take some time.
        reader: reads runs.
    """

    runs: ServedRuns
    access: Access
    lists: Reader
    reader: Reader
    changes: Changes

    @classmethod
    def of(cls, runs: ServedRuns, access: Access) -> Self:
        """Return the pages of the journal of served runs. See ``page_routes``."""

        def work_of(run: str) -> str:
            return f"{runs.is_resuming(run)} {runs.refused.get(run, '')}"

        changes = Changes(runs.make_reader(), stopped=lambda: runs.draining, extra=work_of)
        return cls(runs, access, runs.make_reader(), runs.make_reader(), changes)

    @staticmethod
    def seen_by(request: Request) -> str:
        """Return the version that a page shows which asks for changes."""
        return request.headers.get("last-event-id") or request.query_params.get("since", "")

    def stream(self, request: Request, run: str | None) -> Response:
        """Return the stream of the changes of a run (None: of any run) as server-sent events.

        Its data are versions: the page that shows another one is to be asked for anew.
        """
        seen = self.seen_by(request)

        async def events() -> AsyncIterator[str]:
            yield "retry: 3000\n\n"
            async for version in self.changes.follow(run, seen):
                yield f"id: {version}\nevent: changed\ndata: {version}\n\n" if version else ": still here\n\n"

        return StreamingResponse(events(), media_type="text/event-stream", headers=dict(_EVENTS))
