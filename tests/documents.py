"""Markdown pages as tests: their blocks, and a shell that runs their commands and compares what they print."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ENGINE = Path(__file__).parents[1] / "engine"
NEEDS_A_MODEL = "needs a model"
"""The comment before a block whose commands no test can run."""

_BLOCK = re.compile(
    r'^(?:<!-- (?P<note>[^\n]*?) -->\n)?```(?P<kind>\w+)(?: title="(?P<title>[^"\n]+)")?\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
_EXIT = re.compile(r"# exits with (\d+)")


class Block(NamedTuple):
    """A block of code. ``title`` is the file that it is, ``note`` the comment before it."""

    kind: str
    title: str
    note: str
    text: str


def read_blocks(page: str) -> list[Block]:
    """Return the blocks of a page in order."""
    return [Block(m["kind"], m["title"] or "", m["note"] or "", m["text"]) for m in _BLOCK.finditer(page)]


def read_commands(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Yield the commands of a block, each with the lines that it prints: in ``console``, they stand below ``$ ...``."""
    if block.kind == "sh":
        yield from ((line, []) for line in block.text.splitlines() if line.strip())
        return
    command, printed = "", list[str]()
    for line in block.text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, printed
            command, printed = line.removeprefix("$ "), []
        elif line.strip():
            printed.append(line)
    yield command, printed


class Shell:
    """A shell in a folder, in which ``flowrun`` is that of this checkout, with a journal of its own.

    Args:
        scratch: a folder for what the shell needs itself.
    """

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder = folder
        self._where = scratch / "where"
        bin_folder = scratch / "bin"
        bin_folder.mkdir(parents=True)
        for name, module in (("flowrun", "flowrun"), ("pytest", "pytest")):
            program = bin_folder / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
            program.chmod(0o755)
        self._environ = {
            **os.environ,
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ENGINE),
            "XDG_STATE_HOME": str(scratch / "state"),
            "COLUMNS": "120",
            **{
                f"GIT_{who}_{what}": "nobody@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
            },
        }

    def run(self, command: str, printed: list[str]) -> None:
        """Run a command; it must exit as its comment says, and print the given lines in this order.

        In a given line, ``…`` stands for any text, and a space for any number of spaces.
        """
        done = subprocess.run(
            ["bash", "-c", f'{command}\nstatus=$?; pwd > "{self._where}"; exit $status'],
            cwd=self.folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        code = int(commented[1]) if (commented := _EXIT.search(command)) else 0
        assert done.returncode == code, f"{command}\n{done.stdout}"
        rest = iter(done.stdout.splitlines())
        for line in printed:
            pattern = ".*".join(map(re.escape, _spaced(line).split("…")))
            found = any(re.fullmatch(pattern, _spaced(actual)) for actual in rest)
            assert found, f"{command}\ndoes not print {line!r} where it is shown, but:\n{done.stdout}"
        self.folder = Path(self._where.read_text().strip())

    def newest_run(self) -> str:
        """Return the id of the newest durable run."""
        command = [sys.executable, "-m", "flowrun", "runs", "--json", "--limit", "1"]
        done = subprocess.run(command, env=self._environ, capture_output=True, text=True, timeout=60, check=True)
        return str(json.loads(done.stdout)["id"])

    def run_block(self, block: Block) -> None:
        """Run the commands of a block; the word RUN is the newest durable run."""
        for command, printed in read_commands(block):
            words = re.sub(r"\bRUN\b", lambda _: self.newest_run(), command)
            self.run(words, printed)


def _spaced(line: str) -> str:
    return " ".join(line.split())
