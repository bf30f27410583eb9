"""``flowrun test`` as users run it: its exit codes, the selection of tests, and the JUnit file for CI."""

from pathlib import Path
from xml.etree import ElementTree

import click
import pytest
from click.testing import CliRunner

from flowrun.cli.test import command
from flowrun.errors import UsageError
from flowrun.testing.selection import parse_selection
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


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        pytest.param("not otherwise", ["talks", "walks and talks", "it's 3 o'clock"], id="not"),
        pytest.param("talks and otherwise", ["talks otherwise"], id="and"),
        pytest.param("otherwise or walks", ["talks otherwise", "walks and talks"], id="or"),
        pytest.param("not (otherwise or walks)", ["talks", "it's 3 o'clock"], id="parentheses"),
        pytest.param("not not walks and not other", ["walks and talks"], id="not binds before and"),
        pytest.param("walks or talks and otherwise", ["talks otherwise", "walks and talks"], id="and binds before or"),
        pytest.param("talks  OTHERWISE", ["talks otherwise"], id="words side by side are one text"),
        pytest.param("'walks and'", ["walks and talks"], id="a quoted text"),
        pytest.param("o'clock", ["it's 3 o'clock"], id="a quote in a word"),
        pytest.param("Not", [], id="an operator is written small"),
        pytest.param("", ["talks", "talks otherwise", "walks and talks", "it's 3 o'clock"], id="all"),
    ],
)
def test_an_expression_selects_tests(expression: str, names: list[str]) -> None:
    selects = parse_selection(expression)
    tests = ["talks", "talks otherwise", "walks and talks", "it's 3 o'clock"]
    assert [name for name in tests if selects(name)] == names


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        pytest.param("a and", "-k a and: a text is missing at the end", id="nothing after and"),
        pytest.param("or a", "-k or a: a text is missing before 'or'", id="nothing before or"),
        pytest.param("not", "a text is missing at the end", id="nothing after not"),
        pytest.param("(a or b", "a parenthesis is not closed", id="not closed"),
        pytest.param("a)", "')' comes too early", id="not opened"),
    ],
)
def test_what_is_no_expression_is_refused(tmp_path: Path, expression: str, message: str) -> None:
    write_tests(tmp_path, TESTS)
    with pytest.raises(UsageError) as raised:
        run(tmp_path, "-k", expression)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        pytest.param(["--coverage"], 0, id="alone"),
        pytest.param(["--coverage", "100"], 0, id="reached"),
        pytest.param(["--coverage=66.6%"], 0, id="percent"),
    ],
)
def test_coverage_takes_a_threshold(tmp_path: Path, words: list[str], code: int) -> None:
    file = write_tests(tmp_path, TESTS)
    assert run("-k", "not otherwise", *words, file)[0] == code
    assert "coverage of states and edges" in run("-k", "not otherwise", *words, file)[1]


def test_less_coverage_than_asked_for_fails(tmp_path: Path) -> None:
    file = tmp_path / "fork.test.yaml"
    (tmp_path / "fork.yaml").write_text(
        "flowrun: v1\nname: fork\nversion: 1.0.0\ninputs: {n: {type: integer}}\nstates:\n"
        "  a: {type: route, routes: [{when: inputs.n > 1, to: b}, {to: c}]}\n"
        "  b: {type: end}\n  c: {type: end}\n"
    )
    file.write_text("flow: fork.yaml\ntests: [{name: to b, inputs: {n: 2}}]\n")
    assert run(file, "--coverage", "60")[0] == 0
    code, lines = run(file, "--coverage", "60.1")
    assert (code, lines[-3:]) == (
        1,
        ["FAILED less than 60.1% is covered", "", "1 passed, 0 failed, 0 skipped"],
    )


@pytest.mark.parametrize("share", ["101", "100.5%"])
def test_no_more_than_all_can_be_covered(tmp_path: Path, share: str) -> None:
    with pytest.raises(click.BadParameter, match="is no number from 0 to 100"):
        run(write_tests(tmp_path, TESTS), f"--coverage={share}")


def test_a_project_without_tests_passes_if_any(tmp_path: Path) -> None:
    assert run(tmp_path, "--if-any") == (0, [f"no tests in {tmp_path}"])


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
