"""``tests/cases/tests/``: each folder with a spec and test files is a test; ``expected.txt`` is the expected report.

To rewrite ``expected.txt``, run pytest with ``FLOWRUN_WRITE_EXPECTED=1`` in the environment, and review the diff.
"""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flowrun.cli import test as verb

CASES = Path(__file__).parents[2] / "cases" / "tests"
ALL = sorted(path for path in CASES.iterdir() if path.is_dir() and not path.name.startswith("_"))


def run_tests(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    """Run ``flowrun test`` as on a machine without vLLM."""
    monkeypatch.setattr(verb, "find_vllm_reader", lambda: None)
    return CliRunner().invoke(verb.command, arguments, catch_exceptions=False, standalone_mode=False)


@pytest.mark.parametrize("case", ALL, ids=lambda path: path.name)
def test_report(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = case / "expected.txt"
    monkeypatch.chdir(case)
    report = run_tests(monkeypatch, ".", "--coverage").stdout
    if os.environ.get("FLOWRUN_WRITE_EXPECTED"):
        expected.write_text(report, encoding="utf-8")
    assert report == expected.read_text(encoding="utf-8")
