"""The page on the Python API: its files are written, its blocks run in order, and print what their comments say."""

import ast
import asyncio
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.documents import read_blocks

PAGE = Path(__file__).parents[3] / "docs" / "python.md"
PRINTS = re.compile(r"^\s*print\(.*\)  # (?P<text>.*)$", re.MULTILINE)


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    names: dict[str, Any] = {}
    blocks = read_blocks(PAGE.read_text())
    assert len(blocks) == 16
    for block in blocks:
        text = block.text
        if block.kind == "toml":
            continue
        if block.title:
            file = tmp_path / block.title
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
            continue
        code = compile(text, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        running = eval(code, names)
        if inspect.iscoroutine(running):
            asyncio.run(running)
        printed = list(dict.fromkeys(capsys.readouterr().out.splitlines()))  # a loop prints a line more than once
        assert printed == [match["text"] for match in PRINTS.finditer(text)], text
    names["flow"].close()
    monkeypatch.delitem(sys.modules, "shop")
