"""``flowrun ui``: what it refuses, and where it listens."""

from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from flowrun.cli import server_options, ui
from flowrun.errors import UsageError
from flowrun.serving.server import listen


def begin(*words: str, journal: Path) -> None:
    ui.command.main(["--journal", str(journal), "--no-open", *words], standalone_mode=False)


def test_others_need_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWRUN_API_KEY", raising=False)
    with pytest.raises(UsageError, match="set a key in FLOWRUN_API_KEY or by --api-key-file"):
        begin("--host", "0.0.0.0", journal=tmp_path / "j")
    assert not (tmp_path / "j").exists()


def test_without_its_packages_it_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_options, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'flowrun\[serve\]'"):
        begin(journal=tmp_path / "j")


def test_a_port_that_was_chosen_must_be_free(tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1, port {port}"):
            begin("--port", str(port), journal=tmp_path / "j")
        with ui._listener("127.0.0.1", port, chosen=False) as other:
            assert other.getsockname()[1] != port


@pytest.mark.parametrize(
    ("display", "terminal", "starts"), [(":0", True, True), ("", True, False), (":0", False, False)], ids=str
)
def test_a_browser_is_started_where_somebody_sees_it(
    monkeypatch: pytest.MonkeyPatch, display: str, terminal: bool, starts: bool
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    assert ui._has_browser() is starts
