"""The files of an engine that lives are its own: none is deleted by others, whatever its record says."""

import asyncio
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flowrun.backends.warm.client import WarmBackend
from flowrun.backends.warm.find import connect_to_warm
from flowrun.backends.warm.locks import EngineLock
from flowrun.backends.warm.orders import find_or_lock
from flowrun.backends.warm.records import EngineRecord, engine_folder, engine_records, take_lock, write_record
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply
from flowrun.errors import BackendError
from flowrun.process_starts import started_at
from tests.unit.backends.contract import ask
from tests.unit.backends.warm.warm_pair import HELD, FakeHeld, host, record_of_host

DEAD = 2**22 + 1
"""A process that cannot be: Linux has no larger ids than 2^22."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give warm engines a folder of their own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return engine_folder()


def hi(request: AskModel) -> Reply:
    return Reply(content="Hi")


def record(pid: int = DEAD) -> EngineRecord:
    return EngineRecord(
        pid=pid,
        ticks=started_at(pid) or 1,
        digest=HELD.digest,
        model=HELD,
        started=0.0,
        idle=1.0,
        flowrun="x",
        vllm="y",
    )


def written(folder: Path, change: Callable[[dict[str, Any]], object], pid: int) -> Path:
    """Write a record in another form."""
    fields = msgspec.to_builtins(record(pid))
    change(fields)
    path = folder / f"{HELD.digest}.json"
    path.write_text(json.dumps(fields))
    return path


def test_what_a_process_that_was_killed_left_is_deleted(folder: Path) -> None:
    write_record(record())
    record().socket.touch()
    assert list(engine_records()) == []
    assert list(folder.iterdir()) == []


def test_what_a_process_that_was_killed_left_stays_while_another_one_starts(folder: Path) -> None:
    write_record(record())
    lock = take_lock(HELD.digest)
    assert lock is not None
    assert list(engine_records()) == []
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".lock"]
    lock.release()


def test_a_record_that_cannot_be_read_now_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    write_record(record(os.getpid()))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        assert list(engine_records()) == []
    assert list(engine_records()) == [record(os.getpid())]


def test_what_is_no_record_is_left_alone(folder: Path) -> None:
    (folder / "0.json").write_text("{")
    assert list(engine_records()) == []
    assert (folder / "0.json").exists()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda fields: fields.update(format=99), id="a later format"),
        pytest.param(lambda fields: [fields.pop("digest"), fields.pop("format")], id="an earlier format"),
        pytest.param(lambda fields: fields.update(idle="15m", model={"name": "tiny", "engine": 1}), id="other types"),
    ],
)
def test_a_record_of_another_format_is_of_another_version(
    folder: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    path = written(folder, change, os.getpid())
    [found] = engine_records()
    assert (found.pid, found.model.name, found.socket.stem, found.is_of(HELD)) == (
        os.getpid(),
        "tiny",
        HELD.digest,
        True,
    )
    notes: list[str] = []
    assert asyncio.run(connect_to_warm(HELD, timeout=None, note=notes.append)) is None
    assert notes == [
        "the warm engine of tiny is not used: it is of another version of flowrun; end it by flowrun engine down"
    ]
    assert path.exists()
    written(folder, change, DEAD)
    assert list(engine_records()) == []
    assert list(folder.iterdir()) == []


def test_a_folder_that_others_can_read_is_refused(folder: Path) -> None:
    folder.chmod(0o755)
    with pytest.raises(BackendError, match="must be a folder that only you can read"):
        engine_folder()


# --- locks ------------------------------------------------------------------------------------------------------------


def test_one_process_has_the_lock(folder: Path) -> None:
    lock = take_lock("0")
    assert lock is not None
    assert take_lock("0") is None
    passed_on = EngineLock(folder / "0.lock", os.dup(lock.fileno()))
    lock.close()
    assert take_lock("0") is None
    passed_on.release()
    again = take_lock("0")
    assert again is not None
    again.release()
    assert list(folder.iterdir()) == []


def test_a_second_engine_of_a_model_harms_not_the_first() -> None:
    async def work() -> Reply:
        hosting = asyncio.create_task(host(FakeHeld(hi)))
        backend = WarmBackend(await record_of_host(), timeout=None)
        with pytest.raises(BackendError, match="an engine of tiny is warm already"):
            await host(FakeHeld(hi))
        await backend.start()
        reply = await backend.reply(ask())
        await backend.stop()
        hosting.cancel()
        await asyncio.wait({hosting})
        return reply

    assert asyncio.run(work()).content == "Hi"


def test_who_comes_while_an_engine_starts_gets_that_one() -> None:
    notes: list[str] = []

    async def work() -> tuple[EngineRecord | EngineLock, EngineRecord]:
        loop, noted = asyncio.get_running_loop(), asyncio.Event()

        def note(text: str) -> None:
            notes.append(text)
            loop.call_soon_threadsafe(noted.set)

        first = find_or_lock(HELD, note=notes.append)
        assert isinstance(first, EngineLock)
        second = asyncio.create_task(asyncio.to_thread(find_or_lock, HELD, note=note))
        await noted.wait()
        hosting = asyncio.create_task(host(FakeHeld(hi), lock=first))
        found, record = await second, await record_of_host()
        hosting.cancel()
        await asyncio.wait({hosting})
        first.release()
        return found, record

    found, record = asyncio.run(work())
    assert found == record
    assert notes == ["an engine of tiny is being started or ended by another command"]
