"""A project, a journal with its runs, and their pages."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.shop import run_shop, write_shop

if TYPE_CHECKING:
    from tests.served import Pages

Run = Callable[..., str]


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project that no test changes: Python imports its modules once."""
    return write_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def run(shop: Path, journal: Path) -> Run:
    """Run a flow of the project in the journal, and return the id of the run."""

    def start(name: str, inputs: Mapping[str, Any] | None = None, **session: Any) -> str:
        return run_shop(shop, journal, name, inputs, **session)

    return start


@pytest.fixture
def pages(journal: Path) -> "Iterator[Pages]":
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    from tests.served import served_pages

    with served_pages(journal) as opened:
        yield opened
