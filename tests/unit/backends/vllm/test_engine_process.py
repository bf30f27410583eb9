"""The engine's process writes only to its log, receives no Ctrl-C, and ends with its parent. Without vLLM."""

import json
import logging
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from flowrun.backends.vllm import engine_process
from flowrun.backends.vllm.engine_process import ORDERS, EngineLog, environment, silence
from tests.processes import alive, wait_for_end

PARENT = """
import json, logging, multiprocessing, os, signal, sys, time
from flowrun.backends.vllm import engine_process

logging.getLogger("vllm").addHandler(logging.StreamHandler(sys.stdout))

def engine():
    print("printed")
    os.write(1, b"written")
    logging.getLogger("vllm").warning("logged")
    signal.pause()

def other():
    print("another process may print", flush=True)

fork = multiprocessing.get_context("fork")
log = engine_process.EngineLog()
bystander = fork.Process(target=other)
with engine_process.settled_forks(log.name):
    child = fork.Process(target=engine, name="EngineCore", daemon=True)
    child.start()
bystander.start()
bystander.join()
while log.read().count("\\n") < 2:
    time.sleep(0.05)
log.take_name()
seen = {"log": log.read(), "named": os.path.exists(log.name), "leads": os.getpgid(child.pid) == child.pid}
print(json.dumps({"engine": child.pid, "stages": log.stages(), **seen}), flush=True)
{end}
"""


def run_parent(end: str) -> "subprocess.Popen[str]":
    code = PARENT.replace("{end}", end)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_settled_process_ends_with_its_parent_and_writes_nowhere() -> None:
    with run_parent("signal.pause()") as parent:
        assert parent.stdout is not None
        first, second = parent.stdout.readline(), json.loads(parent.stdout.readline())
        engine = second.pop("engine")
        parent.kill()
        rest, errors = parent.communicate()
    assert first == "another process may print\n"
    assert sorted(second.pop("log").replace("written", "written\n").split()) == ["logged", "printed", "written"]
    assert second == {"stages": ["loading the weights"], "named": False, "leads": True}
    assert (rest, errors) == ("", "")
    assert wait_for_end(engine, seconds=10)


def test_a_group_can_be_killed_with_its_workers() -> None:
    with run_parent("engine_process.kill_group(child); child.join(); print(child.exitcode)") as parent:
        rest, errors = parent.communicate()
    assert (rest.splitlines()[-1], errors) == (str(-signal.SIGKILL), "")


def test_a_spawned_process_settles_only_if_flowrun_spawned_it(monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[tuple[int, str]] = []
    monkeypatch.setattr(engine_process, "settle", lambda parent, log: settled.append((parent, log)))
    for orders in ("", f"{os.getppid() + 1}:/log", f"{os.getppid()}:/log"):
        monkeypatch.setenv(ORDERS, orders)
        engine_process.settle_spawned()  # this process has no parent in multiprocessing's sense
    monkeypatch.setattr("multiprocessing.parent_process", lambda: "a parent")
    for orders in ("", f"{os.getppid() + 1}:/log", f"{os.getppid()}:/log"):
        monkeypatch.setenv(ORDERS, orders)
        engine_process.settle_spawned()
    assert settled == [(os.getppid(), "/log")]
    assert ORDERS not in os.environ


def test_the_environment_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWRUN_TEST_MINE", "mine")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.delenv("FLOWRUN_TEST_NEW", raising=False)
    with environment({"FLOWRUN_TEST_NEW": "new"}, {"FLOWRUN_TEST_MINE": "yours", "FLOWRUN_TEST_OTHER": "other"}):
        os.environ["LD_PRELOAD"] = "set by vLLM"
        within = {name: os.environ.get(f"FLOWRUN_TEST_{name}") for name in ("MINE", "NEW", "OTHER")}
    after = {name: os.environ.get(f"FLOWRUN_TEST_{name}") for name in ("MINE", "NEW", "OTHER")}
    assert within == {"MINE": "mine", "NEW": "new", "OTHER": "other"}
    assert after == {"MINE": "mine", "NEW": None, "OTHER": None}
    assert os.environ["LD_PRELOAD"] == ""


def test_silence_ends() -> None:
    logger = logging.getLogger("torch")
    assert logger.isEnabledFor(logging.WARNING)
    with silence(verbose=False):
        warnings.warn("not an error here, as in all tests", stacklevel=1)
        logger.setLevel(logging.WARNING)  # as torch does while it is imported
        assert not logger.isEnabledFor(logging.WARNING)
        assert logger.isEnabledFor(logging.ERROR)
    assert logger.isEnabledFor(logging.WARNING)
    with pytest.raises(UserWarning, match="an error again"):
        warnings.warn("an error again", stacklevel=1)


def test_a_closed_log_is_empty() -> None:
    log = EngineLog()
    Path(log.name).write_text("output")
    assert log.read() == "output"
    log.close()
    log.close()
    assert (log.read(), Path(log.name).exists()) == ("", False)


def test_alive_is_true_for_living_processes_only(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as sleeper:
        assert alive(sleeper.pid)
        sleeper.kill()
    assert not alive(sleeper.pid)


CORE = """
import os, sys, types
from flowrun.backends.vllm import engine_process
from flowrun.backends.vllm.engine_process import EngineLog, settle

log = EngineLog()
if sys.argv[1:]:
    class EngineCore:
        def _initialize_kv_caches(self, blocks):
            return blocks
    sys.modules["vllm.v1.engine.core"] = types.SimpleNamespace(EngineCore=EngineCore)
if os.fork():
    os.wait()
    print(log.stages(), repr(log.read()))
else:
    settle(os.getppid(), log.name)
    value = EngineCore()._initialize_kv_caches(blocks=7) if sys.argv[1:] else "no such vLLM"
    print(value, flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        pytest.param(
            ["known"], r"['loading the weights', 'profiling the memory and warming up'] '7\n'", id="vLLM as it is known"
        ),
        pytest.param([], r"['loading the weights'] 'no such vLLM\n'", id="another vLLM"),
    ],
)
def test_the_process_announces_its_stages_in_the_log(arguments: list[str], seen: str) -> None:
    command = [sys.executable, "-c", CORE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.stderr) == (seen + "\n", "")
