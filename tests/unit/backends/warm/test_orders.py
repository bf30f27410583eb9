"""The start of the process of a warm engine."""

import os
from pathlib import Path

import pytest

from flowrun.backends.warm.locks import EngineLock
from flowrun.backends.warm.orders import Order, find_or_lock, start_process
from flowrun.backends.warm.records import engine_folder, take_lock
from flowrun.errors import BackendError
from flowrun.spec.model import Model
from tests.unit.backends.warm.warm_pair import HELD


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give warm engines a folder of their own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return engine_folder()


def start(folder: Path) -> str:
    """Start the engine of a model that is not there, and return the error."""
    order = Order(model=Model(name="./no-model"), folder=str(folder), adapters=(), held=HELD, idle=60.0)
    lock = take_lock(order.held.digest)
    assert lock is not None
    try:
        with pytest.raises(BackendError) as raised:
            start_process(order, lock, progress=lambda text: None, note=lambda text: None)
    finally:
        lock.close()
    return str(raised.value)


def test_what_others_print_is_in_the_log_only(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('Hello from a plugin', flush=True)\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ""))))
    error = start(folder)
    assert "no-model" in error or "vllm" in error.lower()
    assert (folder / f"{HELD.digest}.log").read_text() == "Hello from a plugin\n"


def test_a_start_that_failed_leaves_the_lock_to_the_next_one(folder: Path) -> None:
    start(folder)
    lock = find_or_lock(HELD, note=lambda text: None)
    assert isinstance(lock, EngineLock)
    lock.release()


def test_a_socket_with_too_long_a_path_is_found_before_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with pytest.raises(BackendError, match=r"and 107 are the most: set XDG_RUNTIME_DIR to a folder with a shorter"):
        find_or_lock(HELD, note=lambda text: None)
    assert list(engine_folder().iterdir()) == []
