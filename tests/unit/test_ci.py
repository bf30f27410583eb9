"""What the documentation and the hooks run are commands that exist, with options that exist."""

import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
HOOKS: list[dict[str, Any]] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
BLOCKS = dict.fromkeys(re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = re.findall(r"(?:^|[ /`])flowrun ((?:validate|test|diff) [^`>|\n]*)", PAGE)


def parse(command: str) -> None:
    """Let click read a command's words; it raises if there is no such option."""
    verb, *words = shlex.split(command)
    import_module(f"flowrun.cli.{verb}").command.make_context(verb, words)


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_a_hook_is_a_command_of_ours(hook: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    program, verb = hook["entry"].split()
    assert program == "flowrun"
    assert set(hook) >= {"id", "name", "description", "entry", "language", "files"}
    parse(shlex.join([verb, *hook["args"]]))


PROJECTS = {
    "no specs": {},
    "specs elsewhere, and no tests": {
        "flows/a.yaml": "flowrun: v1\nname: a\nversion: 1.0.0\nstates: {b: {type: end}}\n"
    },
}


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
@pytest.mark.parametrize("files", PROJECTS.values(), ids=PROJECTS)
def test_a_hook_passes_in_any_project(hook: dict[str, Any], files: dict[str, str], tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "a", "--allow-empty"], ["branch", "origin/main"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    command = [sys.executable, "-m", *hook["entry"].split(), *hook["args"]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS))
def test_a_documented_command_is_one(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    parse(command.replace("${{ github.base_ref }}", "main"))


def test_the_documented_files_are_yaml_and_name_our_hooks() -> None:
    documents = [yaml.safe_load(text) for kind, text in BLOCKS if kind == "yaml"]
    assert [hook["id"] for document in documents for repo in document.get("repos", ()) for hook in repo["hooks"]] == [
        hook["id"] for hook in HOOKS
    ]
    assert len(documents) == 3
    assert len(COMMANDS) >= 9
