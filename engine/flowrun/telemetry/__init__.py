"""Spans and metrics of runs for OpenTelemetry, by its conventions for generative AI. Nothing else here knows of it.

The package ``opentelemetry`` is imported only where somebody configured it: without that, a run pays nothing.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from flowrun.core.ports import Tracer
from flowrun.core.trace_context import trace_headers
from flowrun.spec.model import Model
from flowrun.telemetry.conventions import CAPTURE_VARIABLE, CAPTURING

FindTracer = Callable[[Mapping[str, Model | None], Mapping[str, str]], Tracer]
"""Returns the tracer of a flow, given its models by their names (None: a backend replaces it) and its secrets."""

_PROVIDERS = ("OTEL_PYTHON_TRACER_PROVIDER", "OTEL_PYTHON_METER_PROVIDER")
"""Variables that name a provider, which the API loads at the first use."""


def find_telemetry(environ: Mapping[str, str]) -> FindTracer | None:
    """Return what traces the runs of a flow; None if this process has no provider of traces or metrics.

    Args:
        environ: ``OTEL_SDK_DISABLED=true`` turns it off, and so does ``flowrun`` in the list
            ``OTEL_PYTHON_DISABLED_INSTRUMENTATIONS``.
    """
    disabled = environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or "flowrun" in map(str.strip, disabled):
        return None
    if not _may_be_configured(environ):
        return None
    try:
        from flowrun.telemetry.tracing import Telemetry, find_providers
    except ImportError:  # no opentelemetry, or one that lacks the API
        return None
    providers = find_providers()
    if providers is None:
        return None
    captures = environ.get(CAPTURE_VARIABLE, "").strip().lower() in CAPTURING
    return Telemetry(*providers, captures=captures).of


def _may_be_configured(environ: Mapping[str, str]) -> bool:
    """Return whether somebody may have set a provider: who does so has imported the package."""
    return "opentelemetry" in sys.modules or any(environ.get(name) for name in _PROVIDERS)


@contextmanager
def continued(headers: Mapping[str, str]) -> Iterator[None]:
    """Make the caller's span, of which a request has these headers, the parent of what begins in this block.

    It does nothing where OpenTelemetry is not in use.

    Args:
        headers: those of the request, in any case: what is no trace header is not read.
    """
    if not headers or "opentelemetry" not in sys.modules:
        yield
        return
    from opentelemetry import context, propagate

    token = context.attach(propagate.extract({name.lower(): value for name, value in headers.items()}))
    try:
        yield
    finally:
        context.detach(token)


__all__ = ["FindTracer", "continued", "find_telemetry", "trace_headers"]
