"""A journal's path, and other processes that use it."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Child = Callable[[str], "subprocess.Popen[str]"]

_ROOT = Path(__file__).parents[3]


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests with asyncio, by the plugin of anyio."""
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def child(path: Path) -> Iterator[Child]:
    """Start processes that run a verb of ``child.py`` on the journal; kill them at the end of the test."""
    children: list[subprocess.Popen[str]] = []

    def start(verb: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "tests.unit.journal.child", verb, str(path)]
        pipe = subprocess.PIPE
        children.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=_ROOT))
        return children[-1]

    yield start
    for process in children:
        process.kill()
        process.communicate()
