"""The cost of spans and metrics, microseconds a transition: off, and on with the SDK, side by side in one process.

An agent whose model calls a tool in each round makes two transitions and four spans a round. Spans go to a processor
that drops them: what an exporter costs is its own, and is paid in another thread. Metrics are aggregated in memory.
flowrun's own part is the cost with providers that do nothing.
"""

import asyncio
import time
from timeit import repeat

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import NoOpTracerProvider, set_span_in_context

from flowrun.backends.scripted import ScriptedBackend
from flowrun.collector import calm_collector
from flowrun.core.events import AskModel
from flowrun.core.graph import Graph
from flowrun.core.messages import Reply, ToolCall, Usage
from flowrun.core.ports import Tracer
from flowrun.functions.python import PythonFunctions
from flowrun.runtime.runner import Runner
from flowrun.spec.model import Model
from flowrun.telemetry.tracing import Telemetry
from tests.flows import ADD, AGENT, graph_of

_ROUNDS = 100
_PASSES = 30


def main() -> None:
    """Print the table."""
    graph = graph_of(ADD, AGENT.replace("limits: {max_rounds: 3, max_steps: 20}", "limits: {max_rounds: 1000}"))
    traces = TracerProvider()
    traces.add_span_processor(SpanProcessor())
    meters = MeterProvider([InMemoryMetricReader()])
    models = {"default": Model(backend="scripted", name="bench")}
    ways: dict[str, Tracer | None] = {
        "off": None,
        "flowrun's own part": Telemetry(NoOpTracerProvider(), NoOpMeterProvider(), captures=False).of(models, {}),
        "spans": Telemetry(traces, NoOpMeterProvider(), captures=False).of(models, {}),
        "spans and metrics": Telemetry(traces, meters, captures=False).of(models, {}),
        "with content": Telemetry(traces, meters, captures=True).of(models, {}),
    }
    calm_collector()
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(_PASSES):
        for name, tracer in ways.items():
            least[name] = min(least[name], asyncio.run(_measure(graph, tracer)))
    off = least["off"]
    least["off, and 2 spans of the SDK"] = off + _least_of_two_spans(traces)
    print(f"\nTelemetry, microseconds a transition (least of {_PASSES} interleaved passes of {_ROUNDS} rounds)\n")
    for name, seconds in least.items():
        print(f"{name:28} {seconds * 1e6:8.1f} {(seconds - off) * 1e6:+8.1f} {seconds / off:8.1f} x")


async def _add(a: int, b: int) -> int:
    return a + b


async def _reply(request: AskModel) -> Reply:
    usage = Usage(prompt_tokens=len(request.messages), completion_tokens=1)
    if len(request.messages) <= 2 * _ROUNDS:
        call = ToolCall(id="c1", name="add", arguments='{"a": 1, "b": 2}')
        return Reply(tool_calls=(call,), finish_reason="tool_calls", usage=usage)
    return Reply(content="done", usage=usage)


async def _measure(graph: Graph, tracer: Tracer | None) -> float:
    """Return the seconds that a transition of one run takes."""
    runner = Runner(
        backends={"default": ScriptedBackend.from_function(_reply, record=False)},
        functions=PythonFunctions({"tools.numbers:add": _add}),
        tracer=tracer,
    )
    begun = time.perf_counter()
    run = (await runner.run(graph, {"question": "?"}, run_id="bench")).run
    seconds = time.perf_counter() - begun
    assert run.status == "succeeded", run.outcome
    return seconds / (2 * _ROUNDS + 1)


def _least_of_two_spans(traces: TracerProvider) -> float:
    """Return the seconds that the SDK takes for two spans with a parent and six attributes: no tracer is faster."""
    tracer = traces.get_tracer("bench")
    parent = set_span_in_context(tracer.start_span("run"))
    attributes = {f"attribute.{number}": "value" for number in range(6)}

    def two_spans() -> None:
        for _ in range(2):
            tracer.start_span("span", parent, attributes=attributes).end()

    return min(repeat(two_spans, number=1000, repeat=_PASSES)) / 1000


if __name__ == "__main__":
    main()
