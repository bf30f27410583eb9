"""An engine that cannot start reports the reason, and no process is left of an engine, however it ends."""

import asyncio
import contextlib
import gc
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flowrun.backends.vllm.backend import VllmBackend
from flowrun.backends.vllm.engine import INSTALL
from flowrun.backends.vllm.engine_process import LOADING, PROFILING
from flowrun.backends.vllm.model_files import find_model
from flowrun.errors import BackendError
from flowrun.spec.model import Model
from tests.conftest import SMALL_MODEL, SPECS
from tests.processes import alive, wait_for_end

ROOT = Path(__file__).parents[4]


def start_error(model: Model) -> str:
    """Return the error of a start that must fail, and stop the backend."""
    backend = VllmBackend(model, base_dir=SPECS)

    async def start() -> None:
        try:
            await backend.start()
        finally:
            await backend.stop()

    with pytest.raises(BackendError) as caught:
        asyncio.run(start())
    message = str(caught.value)
    with warnings.catch_warnings(action="ignore"):  # vLLM leaves its sockets to the garbage collector, which warns
        del caught
        gc.collect()
    return message


def changed(**settings: Any) -> Model:
    return msgspec.structs.replace(SMALL_MODEL, **settings)


@pytest.mark.vllm
@pytest.mark.usefixtures("needs_vllm")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param(
            {
                "engine": {"dtyp": "float32", "revision": "main"},
                "sampling": {"temprature": 1},
                "tool_call_parser": "hermez",
            },
            "vLLM has no engine argument 'dtyp'; did you mean 'dtype'?\n"
            "model.engine.revision has a place of its own: model.revision\n"
            "vLLM has no sampling parameter 'temprature'; did you mean 'temperature'?\n"
            "vLLM has no tool_call_parser 'hermez'; did you mean 'hermes'?",
            id="all names at once",
        ),
        pytest.param(
            {"engine": {"max_model_len": -5}},
            f"vLLM refuses {SMALL_MODEL.name!r} or its engine arguments: "
            "max_model_len: Input should be greater than or equal to -1",
            id="a value",
        ),
        pytest.param(
            {"tool_call_parser": "mistral"},
            f"the parsers do not fit the model {SMALL_MODEL.name!r}: "
            "Mistral parser could not locate the tool call token in the tokenizer!",
            id="another family's parser",
        ),
        pytest.param(
            {"chat_template": "{% if messages %}\n{{ messages"},
            "model.chat_template, line 2: unexpected end of template, expected 'end of print statement'.",
            id="template",
        ),
    ],
)
def test_a_start_reports_all_faults(settings: Mapping[str, Any], message: str) -> None:
    assert start_error(changed(**settings)) == message


@pytest.mark.vllm
def test_a_start_reports_the_engines_own_reason(tiny_mistral: Model) -> None:
    greedy = msgspec.structs.replace(tiny_mistral, engine={**tiny_mistral.engine, "kv_cache_memory_bytes": 1000})
    error = start_error(greedy)
    assert error.startswith("vLLM's engine did not start: ValueError: No available memory for the cache blocks.")
    assert "2 GiB" not in error


def test_a_start_explains_how_to_install_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert start_error(SMALL_MODEL) == INSTALL


@pytest.mark.vllm
@pytest.mark.usefixtures("needs_vllm")
def test_a_start_reports_missing_files(tmp_path: Path) -> None:
    folder = Path(asyncio.run(find_model(SMALL_MODEL.name, base_dir=SPECS)))
    shutil.copy(folder / "config.json", tmp_path)
    assert start_error(changed(name=str(tmp_path))).startswith(f"vLLM cannot run {str(tmp_path)!r}: ")


@contextlib.contextmanager
def program(mode: str, model: Model) -> Iterator[subprocess.Popen[str]]:
    """Run ``vllm_life`` in a process group of its own."""
    command = [sys.executable, "-m", "tests.unit.backends.vllm.vllm_life", mode, msgspec.json.encode(model).decode()]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, text=True, **streams) as running:  # type: ignore[call-overload]
        try:
            yield running
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)


@pytest.mark.vllm
def test_no_process_is_left_of_an_engine_that_dies_is_cancelled_or_interrupted(tiny_mistral: Model) -> None:
    with program("life", tiny_mistral) as running:
        assert running.stdout is not None
        reports = [json.loads(running.stdout.readline()) for _ in range(4)]
        engine = reports[-1]["running"]
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does at Ctrl-C
        rest, errors = running.communicate(timeout=60)
    died = "backend.unavailable: vLLM's engine died: its process was killed by SIGKILL, most often for lack of memory"
    assert reports[:-1] == [
        {"pending": died, "afterwards": died},
        {
            "after stop": [],
            "later": "backend.unavailable: vLLM's engine is not running: it was not started, or was stopped",
        },
        {"given up while": LOADING, "left": []},
    ]
    assert reports[-1]["stages"] == [
        f"reading the files of {tiny_mistral.name}",
        "importing vLLM",
        "reading the configuration",
        "reading the tokenizer",
        "starting the engine",
        LOADING,
        PROFILING,
    ]
    assert (rest, errors, running.returncode) == ('{"interrupted": true, "left": []}\n', "", 130)
    assert not alive(engine)


@pytest.mark.vllm
def test_an_engine_ends_with_a_parent_that_is_killed(tiny_mistral: Model) -> None:
    with program("wait", tiny_mistral) as running:
        assert running.stdout is not None
        engine = json.loads(running.stdout.readline())["running"]
        assert alive(engine)
        running.kill()
        running.communicate()
    assert wait_for_end(engine, seconds=10)
