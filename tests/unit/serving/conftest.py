"""One server for all quick tests: it needs a key, and its flows ask a model that the test session serves."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import openai
import pytest

from tests.served_flows import paths, write_flows
from tests.serving import Server, serving

if TYPE_CHECKING:
    from tests.model_server import ModelServer

KEY: Final = "sk-flowrun-of-tests"


class Served(NamedTuple):
    """The server, the model that its flows ask, and the folder that it runs in."""

    server: Server
    model: "ModelServer"
    folder: Path

    def calls(self) -> list[str]:
        """Return the calls of tools so far."""
        file = self.folder / "calls.txt"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve all flows of ``tests/served_flows.py``."""
    pytest.importorskip("uvicorn", reason="the packages of servers are not installed")
    from tests.model_server import model_server

    folder = write_flows(tmp_path_factory.mktemp("served"))
    with model_server() as model, serving(folder, *paths(), MODEL_URL=model.url, FLOWRUN_API_KEY=KEY) as server:
        yield Served(server, model, folder)


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    """Give a client of the server, as OpenAI ships it: it repeats requests by itself."""
    with openai.OpenAI(base_url=served.server.api, api_key=KEY) as client:
        yield client
