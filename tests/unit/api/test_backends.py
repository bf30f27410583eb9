"""Backends that installed packages bring by an entry point."""

import sys
from pathlib import Path

import pytest

import flowrun
from tests.unit.api.api_flows import AGENT, add, write

PACKAGE = """
from flowrun.core.messages import Reply

class EchoBackend:
    concurrency = None

    def __init__(self, model, folder):
        if model.name == "broken":
            raise ValueError("no")
        self.text = f"{model.name} in {folder.name}"

    async def start(self):
        pass

    async def reply(self, request):
        return Reply(content=f"{self.text}: {request.messages[-1].content}")

    async def stop(self):
        pass
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package with a backend, as pip would leave it."""
    site = tmp_path / "site"
    info = site / "echo_backend-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: echo-backend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[flowrun.backends]\nacme.echo = echo_backend:EchoBackend\n")
    (site / "echo_backend.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "echo_backend", raising=False)


def with_model(folder: Path, model: str) -> Path:
    return write(folder, AGENT.replace("{backend: scripted, name: replies.yaml}", model))


@pytest.mark.usefixtures("installed")
def test_a_package_brings_a_backend(tmp_path: Path) -> None:
    spec = with_model(tmp_path, "{backend: acme.echo, name: any}")
    assert flowrun.check(spec, imports=False) == []
    with flowrun.load(spec, functions={"api_tools:add": add}) as flow:
        assert flow.run(question="Hi.").output == {"answer": f"any in {tmp_path.name}: Hi."}
    broken = with_model(tmp_path, "{backend: acme.echo, name: broken}")
    with (
        flowrun.load(broken, functions={"api_tools:add": add}) as flow,
        pytest.raises(flowrun.BackendError, match=r"'acme.echo', echo_backend:EchoBackend, fails: ValueError: no"),
    ):
        flow.run(question="Hi.")


def test_a_backend_that_is_not_installed_is_an_issue(tmp_path: Path) -> None:
    (issue,) = flowrun.check(with_model(tmp_path, "{backend: acme.eco, name: any}"), imports=False)
    assert (issue.code, issue.message, issue.place.line) == ("FR710", "there is no backend 'acme.eco'", 5)
    assert "scripted" in issue.remedy
