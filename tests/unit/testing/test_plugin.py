"""The pytest plugin, in its own pytest process."""

import os
import subprocess
import sys
from pathlib import Path

from tests.unit.testing.flows import write_tests

TESTS = """\
- name: talks
  replies: [{content: a}, {content: b}]
  expect: {output: b}
- name: talks otherwise
  replies: [{content: a}, {content: b}]
  expect: {output: c}
"""
PLUGIN = "flowrun.testing.plugin"


def pytest_in(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    options = ["-p", PLUGIN, "-p", "no:cacheprovider", "-W", "error", f"--rootdir={folder}", "--color=no", "-q"]
    command = [sys.executable, "-m", "pytest", *options, *arguments]
    # The plugin is named here because it may not be installed as an entry point.
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_test_files_are_collected_and_a_failure_shows_the_report(tmp_path: Path) -> None:
    write_tests(tmp_path, TESTS)
    completed = pytest_in(tmp_path, ".")
    lines = completed.stdout.splitlines()
    report = lines[lines.index("talk.test.yaml:6:3  talks otherwise") :][:9]
    assert completed.returncode == 1, completed.stderr
    assert report == [
        "talk.test.yaml:6:3  talks otherwise",
        "  the output is not as expected",
        '    expected  "c"',
        '    actual    "b"',
        "  path: ask > ask_again > done",
        "  messages of flow talk, thread main:",
        "    user: Say something about rain.",
        "    assistant: a",
        "    user: More.",
    ]
    assert lines[-1].startswith("1 failed, 1 passed")
    assert pytest_in(tmp_path, "talk.test.yaml::talks").stdout.splitlines()[-1].startswith("1 passed")


def test_a_test_file_with_errors_is_a_collection_error(tmp_path: Path) -> None:
    (tmp_path / "talk.test.yaml").write_text("flow: talk.yaml\ntests: [{name: a}]\n")
    completed = pytest_in(tmp_path, ".")
    assert completed.returncode == 2
    assert "talk.test.yaml:1:7  FR706  flow\n  there is no file 'talk.yaml'\n" in completed.stdout


def test_loading_the_plugin_imports_nothing_of_flowrun() -> None:
    code = f"import sys, pytest, {PLUGIN}; print(sorted(name for name in sys.modules if name.startswith('flowrun')))"
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert completed.stdout.strip() == "['flowrun', 'flowrun.testing', 'flowrun.testing.plugin', 'flowrun.version']"
