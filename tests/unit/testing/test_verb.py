"""``flowrun test`` as users run it: its exit codes, the selection of tests, and the JUnit file for CI."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from flowrun.cli.test import command
from flowrun.errors import UsageError
from tests.unit.testing.flows import write_tests

TESTS = """\
- name: talks
  replies: [{content: a}, {content: b}]
  expect: {output: b}
- name: talks otherwise \\e
  replies: [{content: a}, {content: b}]
  expect: {output: "<c> & \\u0007"}
"""


def run(*arguments: str | Path) -> tuple[int, list[str]]:
    result = CliRunner().invoke(command, list(map(str, arguments)), catch_exceptions=False, standalone_mode=False)
    return result.return_value, result.stdout.splitlines()


def test_a_failed_test_is_reported_and_exits_with_1(tmp_path: Path) -> None:
    file = write_tests(tmp_path, TESTS)
    code, lines = run(tmp_path)
    assert code == 1
    assert lines[0] == f"{file} .F"
    assert lines[-1] == "1 passed, 1 failed, 0 skipped"


def test_tests_are_selected_by_a_part_of_their_name(tmp_path: Path) -> None:
    file = write_tests(tmp_path, TESTS)
    assert run(file, "-k", "TALKS OTHER")[1][-1] == "0 passed, 1 failed, 0 skipped"
    assert run(file, "-k", "talk.test.yaml")[1][-1] == "1 passed, 1 failed, 0 skipped"


def test_verbose_output_names_every_test(tmp_path: Path) -> None:
    file = write_tests(tmp_path, TESTS)
    assert run(file, "-v")[1][:3] == [str(file), "  passed   talks", "  failed   talks otherwise \\e"]


@pytest.mark.parametrize("arguments", [(), ("-k", "nothing")], ids=["no-file", "no-name"])
def test_no_test_is_wrong_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    if arguments:
        write_tests(tmp_path, TESTS)
    with pytest.raises(UsageError, match="no test"):
        run(tmp_path, *arguments)


def test_a_spec_selects_its_test_file(tmp_path: Path) -> None:
    file = write_tests(tmp_path, TESTS)
    assert run(tmp_path / "talk.yaml")[1][0] == f"{file} .F"


def test_tests_in_hidden_folders_are_left_out(tmp_path: Path) -> None:
    hidden = tmp_path / ".venv"
    hidden.mkdir()
    write_tests(hidden, TESTS)
    with pytest.raises(UsageError, match="no tests in"):
        run(tmp_path)
    assert run(hidden, "-k", "otherwise")[0] == 1


def test_junit_holds_every_test(tmp_path: Path) -> None:
    file = write_tests(tmp_path, TESTS)
    code, _ = run(file, "--junit", tmp_path / "junit.xml")
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    cases = [(case.get("name"), case.get("line"), [child.tag for child in case]) for case in root.iter("testcase")]
    assert code == 1
    assert {key: root.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "2",
        "failures": "1",
        "errors": "0",
        "skipped": "0",
    }
    assert cases == [("talks", "3", []), ("talks otherwise \\e", "6", ["failure"])]
    assert [failure.get("message") for failure in root.iter("failure")] == ["the output is not as expected"]
