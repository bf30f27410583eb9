"""An engine that hangs, or whose socket has gone, holds nobody up, and can be ended."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from flowrun.backends.warm import client
from flowrun.backends.warm.client import end, look_at
from flowrun.backends.warm.find import connect_to_warm
from flowrun.backends.warm.records import EngineRecord, engine_folder, vllm_version, write_record
from flowrun.cli.engine import command
from flowrun.errors import BackendError
from flowrun.process_starts import started_at
from flowrun.runtime.engines import engine_model, held_model_of
from flowrun.runtime.project import Project
from flowrun.version import __version__
from tests.unit.backends.warm.test_sessions import SPEC
from tests.unit.backends.warm.warm_pair import HELD

SLEEPS = (sys.executable, "-c", "import time; print(flush=True); time.sleep(60)")
IGNORES_SIGTERM = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)",
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give warm engines a folder of their own, and little time."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(client, "_ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(client, "_END_SECONDS", 0.5)
    return engine_folder()


class Process:
    """A process that has the record of an engine, and never answers."""

    def __init__(self, command: tuple[str, ...], name: str = "tiny") -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.process.stdout.readline()
        self.record = EngineRecord(
            pid=self.process.pid,
            ticks=started_at(self.process.pid),
            digest=name,
            model=HELD,
            started=0.0,
            idle=60.0,
            flowrun=__version__,
            vllm=vllm_version(),
        )
        write_record(self.record)
        self.socket = socket.socket(socket.AF_UNIX)

    def listen(self) -> None:
        self.socket.bind(str(self.record.socket))
        self.socket.listen()

    def close(self) -> int:
        """Kill it, and return how it ended."""
        self.socket.close()
        self.process.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait()


@pytest.fixture
def sleeping() -> Iterator[Process]:
    process = Process(SLEEPS)
    yield process
    process.close()


@pytest.fixture
def stubborn() -> Iterator[Process]:
    process = Process(IGNORES_SIGTERM)
    yield process
    process.close()


def test_a_command_that_meets_an_engine_that_hangs_says_so_and_goes_without(sleeping: Process) -> None:
    sleeping.listen()
    notes: list[str] = []
    assert asyncio.run(connect_to_warm(HELD, timeout=None, note=notes.append)) is None
    hangs = f"process {sleeping.record.pid} does not answer within 0.2 s; flowrun engine down ends it"
    assert notes == [f"the warm engine of tiny is not used: {hangs}"]
    with pytest.raises(BackendError, match="does not answer within"):
        asyncio.run(look_at(sleeping.record))


def test_the_status_says_that_an_engine_hangs(sleeping: Process, capfd: pytest.CaptureFixture[str]) -> None:
    sleeping.listen()
    assert command.main(["status"], standalone_mode=False) == 0
    assert "it does not answer" in capfd.readouterr().out


def test_an_engine_that_hangs_is_not_warm_for_up(
    sleeping: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "greet.yaml").write_text(SPEC)
    model = engine_model(Project(folder=tmp_path).compile(tmp_path / "greet.yaml"), "default")
    record = msgspec.structs.replace(sleeping.record, model=held_model_of(model), digest=held_model_of(model).digest)
    write_record(record)
    sleeping.socket.bind(str(record.socket))
    sleeping.socket.listen()
    with pytest.raises(BackendError, match="does not answer within"):
        command.main(["up", str(tmp_path / "greet.yaml"), "--project-dir", str(tmp_path)], standalone_mode=False)


def test_an_engine_whose_socket_has_gone_is_ended(sleeping: Process, folder: Path) -> None:
    asyncio.run(end(sleeping.record))
    assert sleeping.close() == -signal.SIGTERM
    assert list(folder.iterdir()) == []


def test_an_engine_that_is_stopped_by_a_signal_is_killed(sleeping: Process, folder: Path) -> None:
    sleeping.listen()
    os.kill(sleeping.record.pid, signal.SIGSTOP)
    asyncio.run(end(sleeping.record))
    assert sleeping.close() in (-signal.SIGTERM, -signal.SIGKILL)
    assert list(folder.iterdir()) == []


def test_an_engine_that_heeds_no_signal_is_killed(stubborn: Process) -> None:
    asyncio.run(end(stubborn.record))
    assert stubborn.close() == -signal.SIGKILL


def test_down_ends_the_others_too(
    sleeping: Process, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    other = Process(SLEEPS, "first")
    pid, kill = other.record.pid, os.kill
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "kill", lambda to, number: None if to == pid else kill(to, number))
            with pytest.raises(BackendError, match=f"process {pid}, the warm engine of tiny, does not end"):
                command.main(["down"], standalone_mode=False)
    finally:
        other.close()
    assert f"tiny: process {sleeping.record.pid} has ended" in capfd.readouterr().err
