"""A session whose spans and metrics are kept in memory, by the SDK's own exporter and reader."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import flowrun
from flowrun.runtime import session
from flowrun.telemetry.tracing import Telemetry


class Traces:
    """What the SDK received of the sessions that ``run`` opens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self._meters = MeterProvider([self.reader])
        self._patch = monkeypatch
        self.capture(False)

    def capture(self, captures: bool) -> None:
        """Set whether the spans of further sessions have content."""
        telemetry = Telemetry(self.provider, self._meters, captures=captures)
        self._patch.setattr(session, "find_telemetry", lambda environ: telemetry.of)

    def run(self, work: Callable[[flowrun.Session], Awaitable[Any]], **options: Any) -> Any:
        """Do some work in a session."""

        async def go() -> Any:
            async with flowrun.Session(**options) as opened:
                return await work(opened)

        return asyncio.run(go())

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended, in the order in which they began."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def span(self, name: str) -> ReadableSpan:
        """Return the only span of a name."""
        (found,) = (span for span in self.spans if span.name == name)
        return found

    def tree(self) -> list[str]:
        """Return the names of the spans, each indented below its parent, in the order in which they began."""
        spans = self.spans
        known = {span.context.span_id for span in spans if span.context}
        tops = [span for span in spans if span.parent is None or span.parent.span_id not in known]
        return [line for top in tops for line in self._lines(top, spans, 0)]

    def _lines(self, span: ReadableSpan, spans: list[ReadableSpan], depth: int) -> Iterator[str]:
        yield "  " * depth + span.name
        for child in spans:
            if child.parent is not None and span.context and child.parent.span_id == span.context.span_id:
                yield from self._lines(child, spans, depth + 1)

    def metrics(self) -> Mapping[str, Any]:
        """Return the metrics by their names."""
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


def own(span: ReadableSpan) -> dict[str, Any]:
    """Return the attributes of a span, without its run's conversation."""
    return {name: value for name, value in (span.attributes or {}).items() if name != "gen_ai.conversation.id"}
