"""The W3C trace headers of what is being performed, for those who send requests. No tracing library is known here."""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Final

INJECT: Final[ContextVar[Callable[[], Mapping[str, str]]]] = ContextVar("flowrun_inject")
"""Returns the headers of the current span. Set by whoever traces a run, in the context that its effects run in."""


def trace_headers() -> Mapping[str, str]:
    """Return the headers (``traceparent`` and others) that a request sent now carries; none if nobody traces.

    They are those of W3C Trace Context, or whatever propagators are configured.
    """
    inject = INJECT.get(None)
    return {} if inject is None else inject()
