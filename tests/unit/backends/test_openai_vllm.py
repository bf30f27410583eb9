"""The profiles ``server`` of examples against vLLM's own server: the same answers as in process."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowrun.backends.openai import OpenAIBackend
from flowrun.backends.token_ids import ids_of, numbers_of
from flowrun.backends.vllm.backend import VllmBackend
from flowrun.backends.vllm.model_files import find_model
from flowrun.core.decisions import write_question
from flowrun.core.messages import Message
from flowrun.spec.model import Model
from tests.conftest import SMALL_MODEL, SPECS
from tests.unit.backends.contract import Live, ask, said_in, seen_of, started
from tests.unit.backends.vllm.test_backend import dallas

ROOT = SPECS.parent
START_SECONDS = 180  # seconds for the server's start, on a busy machine


@pytest.fixture(scope="module")
def server(needs_vllm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start vLLM's server on the small model, as a user would, and yield its base URL."""
    tmp_path = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    model = asyncio.run(find_model(SMALL_MODEL.name, base_dir=SPECS))
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--port", str(port)]
    command += ["--host", "127.0.0.1", "--served-model-name", "small", "--dtype", "float32", "--enforce-eager"]
    command += ["--max-model-len", "4096", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    command += ["--chat-template", str(SPECS / "templates" / "chatml_tools.jinja")]
    environ = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environ)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, tmp_path / "server.log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"the server did not start in {START_SECONDS} s: {log.read_text()[-3000:]}")


@pytest.mark.vllm
def test_the_weather_flow_on_a_server(server: str) -> None:
    command = [sys.executable, "-m", "flowrun", "specs/weather.yaml", "--profile", "server", "--json"]
    environ = {**os.environ, "OPENAI_BASE_URL": server}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["output"] == {"answer": "The weather in Dallas, TX is 85 degrees fahrenheit."}
    assert result["path"] == ["ask", "look_up", "ask", "answered"]
    assert result["usage"]["prompt_tokens"] > 2000


@pytest.mark.vllm
def test_decisions_of_a_server_are_those_of_this_process(server: str, small_model: Live) -> None:
    labels = ("billing", "technical", "other")
    question = write_question("Which team should answer this message?", dict.fromkeys(labels, ""))
    mail = Message(role="system", content="A customer wrote: Our cellar is under water!")
    request = ask([mail, Message(role="user", content=question)], labels=labels)  # servers get user turns joined
    in_process = small_model.reply(request)
    with started(OpenAIBackend(Model(backend="openai", name="small", base_url=server))) as live:
        served = live.reply(request)
    assert served.probabilities == pytest.approx(in_process.probabilities, abs=1e-3)
    assert served.mass == pytest.approx(in_process.mass, abs=1e-3)


@pytest.mark.vllm
def test_a_server_of_vllm_gives_the_tokens_that_it_read_and_wrote(server: str, small_model: Live) -> None:
    model = Model(backend="openai", name="small", base_url=server)
    question = ask([Message(role="user", content="Name a colour.")])
    with started(backend := OpenAIBackend(model)) as live:
        first = live.run(backend.reply(question, keeps_tokens=True))
        assert first.tokens is not None
        answer = Message(role="assistant", content=first.content, tokens=first.tokens)
        further = ask([*question.messages, answer, Message(role="user", content="Another one.")])
        second = live.run(backend.reply(further, keeps_tokens=True))
    assert second.tokens is not None
    assert isinstance(small_model.backend, VllmBackend)
    assert small_model.backend._chat is not None
    read = small_model.run(small_model.backend._chat.render(question)).token_ids
    assert (first.tokens.begins, list(ids_of(first.tokens.prompt))) == (True, list(read))
    assert len(ids_of(first.tokens.ids)) == first.usage.completion_tokens
    assert len(numbers_of(first.tokens.logprobs)) == first.usage.completion_tokens
    new = len(ids_of(second.tokens.prompt)) + (0 if second.tokens.begins else first.tokens.end)
    assert new == second.usage.prompt_tokens


@pytest.mark.vllm
def test_the_triage_flow_on_a_server(server: str) -> None:
    command = [sys.executable, "-m", "flowrun", "specs/triage.yaml", "--profile", "server", "--json"]
    environ = {**os.environ, "OPENAI_BASE_URL": server}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["path"], result["rounds"]) == (["team", "urgent", "page"], 2)


@pytest.mark.vllm
def test_a_watched_reply_of_a_server_of_vllm_is_the_same(server: str) -> None:
    model = Model(backend="openai", name="small", base_url=server)
    with started(backend := OpenAIBackend(model)) as live:
        pieces: list[str | None] = []
        question = ask([Message(role="user", content="Name three colours.")])
        plain = live.run(backend.reply(question, keeps_tokens=True))
        watched = live.run(backend.reply(question, keeps_tokens=True, on_text=pieces.append))
        assert (said_in(pieces), len(pieces) > 3) == (watched.content, True)
        called, nothing = live.watch(dallas())
        assert ([seen_of(called), nothing]) == [seen_of(live.reply(dallas())), []]
    assert plain.tokens is not None
    assert watched.tokens is not None
    assert (seen_of(watched), watched.tokens.ids) == (seen_of(plain), plain.tokens.ids)
    assert watched.usage.completion_tokens == plain.usage.completion_tokens
    assert list(numbers_of(watched.tokens.logprobs)) == pytest.approx(list(numbers_of(plain.tokens.logprobs)), abs=1e-3)
