"""Environments of Python with packages of others, made by tests, and what runs code there."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

Python = Callable[..., str]


def make_environment(folder: Path, *packages: str, bare: str | None = None) -> Python:
    """Make an environment with packages, and return what runs code there, with words, and returns what it prints.

    Skip the test where they cannot be had.

    Args:
        bare: a package that is installed without what it asks for.
    """
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    _install(python, *packages)
    if bare is not None:
        _install(python, "--no-deps", bare)

    def run(code: str, *words: object) -> str:
        done = subprocess.run(
            [python, "-c", textwrap.dedent(code), *map(str, words)],
            capture_output=True,
            text=True,
            cwd=folder,
            env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "PATH": str(folder / "bin")},
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


def _install(python: Path, *words: str) -> None:
    """Install packages by pip, or skip the test if they cannot be had."""
    command = [str(python), "-m", "pip", "install", "--quiet", *words]
    installed = subprocess.run(command, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"{', '.join(words)} cannot be had: {installed.stderr[-300:]}")
