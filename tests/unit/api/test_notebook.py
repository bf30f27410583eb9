"""Flows in a real notebook kernel, whose thread runs an event loop already."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api.api_flows import AGENT, write

pytest.importorskip("ipykernel")
pytest.importorskip("jupyter_client")


class Kernel:
    """A kernel, whose cells are run one after the other."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def run(self, code: str) -> str:
        """Run a cell, and return what it prints.

        Raises:
            AssertionError: the cell raised an exception.
        """
        printed: list[str] = []

        def output(message: dict[str, Any]) -> None:
            content = message["content"]
            assert message["msg_type"] != "error", "\n".join(content.get("traceback", ()))
            if message["msg_type"] == "stream":
                printed.append(content["text"])

        self._client.execute_interactive(code, output_hook=output, timeout=60)
        return "".join(printed)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    """Return a kernel that runs in a folder with a spec and its tool."""
    from jupyter_client.manager import KernelManager

    write(tmp_path, AGENT)
    (tmp_path / "api_tools.py").write_text("def add(a: int, b: int) -> int:\n    return a + b\n")
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(tmp_path))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield Kernel(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.context.destroy(0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_flows_run_in_cells(kernel: Kernel) -> None:
    kernel.run(
        "import flowrun\n"
        "from flowrun.testing import ScriptedModel\n"
        "call = {'tool_calls': [{'name': 'add', 'arguments': {'a': 1, 'b': 2}}]}\n"
        "flow = flowrun.load('spec.yaml').with_model('default', ScriptedModel([call, 'It is 3.'] * 3))\n"
    )
    assert kernel.run("print(flow.run(question='1 + 2?').output['answer'])") == "It is 3.\n"
    cell = (
        "async with flowrun.Session() as session:\n"
        "    result = await session.run(flow, {'question': '?'})\n"
        "print(result.output['answer'])\n"
    )
    assert kernel.run(cell) == "It is 3.\n"
    assert kernel.run("print(flow.run(question='again?').status)\nflow.close()") == "succeeded\n"
