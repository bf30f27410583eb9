"""Flows as models, asked by OpenAI's client for Node, from npm, with a node of its own."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.model_server import model_server
from tests.npm import install_packages
from tests.served_flows import paths, write_flows
from tests.serving import serving

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent / "openai_node"


def test_the_client_for_node(tmp_path: Path) -> None:
    packages = install_packages(FOLDER)
    node = next(packages.glob("node_modules/node-linux-*/bin/node"), None)
    if node is None:
        pytest.skip("npm has no node 22 for this system")
    shutil.copy(FOLDER / "ask.mjs", packages)  # it finds the package from where it lies
    write_flows(tmp_path)
    with model_server() as model, serving(tmp_path, *paths(), MODEL_URL=model.url) as server:
        done = subprocess.run(
            [node, packages / "ask.mjs", server.api], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "models": ["parrot", "history", "weather", "fails", "asks", "rests", "pays", "repeats"],
        "whole": ["You said hi", 12, "stop"],
        "run": True,
        "stream": ["I look it up.\n\nIt is 21 degrees.", "stop", 0],
        "helper": "You said you",
        "errors": {
            "temperature": ["BadRequestError", 400, "unsupported_parameter", "temperature"],
            "nothing": ["NotFoundError", 404, "model_not_found", "model"],
            "fails": ["InternalServerError", 500, "tool.failed", None],
            "stream": ["I try.", "APIError", "tool.failed"],
        },
    }
    assert (tmp_path / "calls.txt").read_text().splitlines() == ["look Rome", "fail bread", "fail bread"]
