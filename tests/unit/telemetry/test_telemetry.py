"""When runs are traced: if the process has a provider of traces or metrics, and nobody turned it off."""

import subprocess
import sys
from pathlib import Path

import pytest

PROVIDER = """\
from opentelemetry import {kind}
from opentelemetry.sdk.{kind} import {name}

{kind}.set_{setter}(({name}()))
"""
TRACES = PROVIDER.format(kind="trace", name="TracerProvider", setter="tracer_provider")
METRICS = PROVIDER.format(kind="metrics", name="MeterProvider", setter="meter_provider")
NO_OP = "from opentelemetry import trace\n\ntrace.set_tracer_provider(trace.NoOpTracerProvider())\n"
ONLY_THE_API = "import opentelemetry.trace\n"


def found(before: str, **environ: str) -> bool:
    """Return whether telemetry is on in a new process after some code."""
    code = f"{before}\nfrom flowrun.telemetry import find_telemetry\nprint(find_telemetry({environ}) is not None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip() == "True"


@pytest.mark.parametrize(
    ("before", "environ", "on"),
    [
        pytest.param(TRACES, {}, True, id="traces"),
        pytest.param(METRICS, {}, True, id="metrics"),
        pytest.param(TRACES, {"OTEL_SDK_DISABLED": "true"}, False, id="the SDK is disabled"),
        pytest.param(TRACES, {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "aiohttp, flowrun"}, False, id="turned off"),
        pytest.param(TRACES, {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "aiohttp"}, True, id="another is turned off"),
        pytest.param(NO_OP, {}, False, id="a provider that does nothing"),
        pytest.param(ONLY_THE_API, {}, False, id="no provider"),
    ],
)
def test_telemetry_is_on_where_somebody_set_a_provider(before: str, environ: dict[str, str], on: bool) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")
    assert found(before, **environ) is on


def test_a_process_without_opentelemetry_does_not_import_it(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("flowrun: v1\nname: t\nversion: 1.0.0\nstates: {done: {type: end}}\n")
    code = (
        f"import flowrun, sys; result = flowrun.load({str(spec)!r}).run(); "
        "print(result.status, 'opentelemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["succeeded", "False"]


def test_the_spans_of_a_command_are_exported_before_it_ends(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")
    spec = tmp_path / "spec.yaml"
    spec.write_text("flowrun: v1\nname: t\nversion: 1.0.0\nstates: {done: {type: end}}\n")
    code = f"""\
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
provider = TracerProvider()
exporter = ConsoleSpanExporter(out=sys.stderr, formatter=lambda span: f"span: {{span.name}}\\n")
provider.add_span_processor(BatchSpanProcessor(exporter))
trace.set_tracer_provider(provider)
from flowrun.cli import main
sys.argv = ["flowrun", "run", "-q", {str(spec)!r}]
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    spans = [line for line in done.stderr.splitlines() if line.startswith("span: ")]
    assert spans == ["span: state done", "span: invoke_workflow t"]
