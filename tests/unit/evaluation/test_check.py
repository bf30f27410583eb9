"""Eval files are checked against their flow and rows; each mistake is reported at its place, with what to do."""

from pathlib import Path

import pytest

from flowrun.errors import Issue
from flowrun.evaluation.check import check_evals
from flowrun.runtime.project import Project
from flowrun.spec.find import find_evals
from tests.evals import FILES, edit

FILE = FILES["shop.eval.yaml"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "pyproject.toml").write_text("")
    return tmp_path


def check(project: Path, *, imports: bool = False) -> list[Issue]:
    found = Project(require_environment=False)
    return check_evals([project / "shop.eval.yaml"], found, imports=imports)


def seen(issues: list[Issue]) -> list[tuple[str, int, str]]:
    return [(issue.code, issue.place.line, f"{issue.message}; {issue.remedy}") for issue in issues]


def test_a_valid_file_has_no_issues(project: Path) -> None:
    assert check(project, imports=True) == []
    assert find_evals([project]) == [project / "shop.eval.yaml"]


@pytest.mark.parametrize(
    ("old", "new", "code", "line", "message"),
    [
        pytest.param("flow: shop", "flow: shops", "FR706", 1, "there is no file 'shops.yaml'", id="flow"),
        pytest.param("flow: shop.yaml", "flow: replies.yaml", "FR709", 1, "is no spec", id="no-spec"),
        pytest.param("data/items", "data/item", "FR706", 2, "there is no file 'data/item.jsonl'", id="rows"),
        pytest.param("samples: 2", "samples: 0", "FR206", 3, "", id="samples"),
        pytest.param("samples: 2", "sampels: 2", "FR201", 3, "did you mean 'samples'", id="key"),
        pytest.param("[kind]", "[kinds]", "FR715", 4, "did you mean 'kind'", id="group"),
        pytest.param("row.expected | string", "row.expect | string", "FR715", 7, "'expected'?", id="column"),
        pytest.param("row.expected | string", "rows.expected", "FR402", 7, "did you mean 'row'", id="name"),
        pytest.param('output.price"}', 'output.prize"}', "FR404", 7, "did you mean 'price'", id="output"),
        pytest.param('when: "row', 'when: "{{ row', "FR403", 7, "without braces", id="braces"),
        pytest.param('when: "row.expected |', 'when: "row.expected | |', "FR401", 7, "", id="syntax"),
        pytest.param("compare: numeric", "compare: number", "FR204", 6, "numeric", id="comparison"),
        pytest.param("name: price", "name: prize", "FR702", 8, "did you mean 'price'", id="tool"),
        pytest.param("called: {calls", "called: {path: [aks], calls", "FR701", 8, "did you mean 'ask'", id="state"),
        pytest.param("called: {calls", "called: {vars: {x: 1}, calls", "FR404", 8, "variable 'x'", id="variable"),
        pytest.param("called: {calls", "called: {moves: [{how: out}], calls", "FR210", 8, "out", id="move"),
        pytest.param("called: {calls", "called: {when: x, calls", "FR208", 8, "'when' and 'calls'", id="two-kinds"),
        pytest.param("{compare: numeric, expected", "{expected", "FR208", 6, "'compare'", id="without-kind"),
        pytest.param("judge.yaml, with: {answer", "judge.yaml, with: {said", "FR708", 10, "'answer'", id="judge"),
        pytest.param("flow: judge.yaml", "flow: judges.yaml", "FR706", 10, "judges.yaml", id="no-judge"),
        pytest.param("gate:\n  right", "gate:\n  rihgt", "FR714", 12, "did you mean 'right'", id="gate"),
        pytest.param("right: {compare", "'a b': {compare", "FR209", 6, "", id="name-of-a-score"),
        pytest.param("at_least: 0.5", "against: main", "FR208", 12, "'max_drop'", id="against"),
    ],
)
def test_mistakes(project: Path, old: str, new: str, code: str, line: int, message: str) -> None:
    edit(project / "shop.eval.yaml", old, new)
    found = seen(check(project))
    assert [text for *place, text in found if place == [code, line] and message in text], found


def test_two_things_to_compare_with(project: Path) -> None:
    edit(
        project / "shop.eval.yaml",
        "{at_least: 0.5}",
        "{max_drop: 0.1, against: main}\n  said: {max_drop: 0.1, against: HEAD~1}",
    )
    assert [code for code, _, _ in seen(check(project))] == ["FR204"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"id": "e", "item": 3, "expected": 1, "kind": "x"}', "row 5 is not what the flow takes"),
        ('{"id": "e", "expected": 1, "kind": "x"}', "row 5 is not what the flow takes"),
        ('{"id": "a", "item": "x", "expected": 1, "kind": "x"}', "row 5 has the id 'a' of row 1"),
        ('{"id": "e", "item": "x", "kind": "x"}', "1 row lacks the member 'expected', such as row 5"),
        ("nonsense", "line 5 is no JSON"),
    ],
    ids=["type", "missing-input", "id-twice", "missing-column", "no-json"],
)
def test_rows(project: Path, row: str, message: str) -> None:
    rows = project / "data" / "items.jsonl"
    rows.write_text(rows.read_text() + row + "\n")
    found = seen(check(project))
    assert [code for code, _, _ in found] == ["FR715"]
    assert message in found[0][2]


def test_a_broken_flow_is_one_issue(project: Path) -> None:
    edit(project / "shop.yaml", "next: ask", "nxt: ask")
    (project / "judge.yaml").write_text("flowrun: v1\n")
    found = seen(check(project))
    assert [(code, line) for code, line, _ in found] == [("FR713", 1)]
    assert "flowrun validate" in found[0][2]


@pytest.mark.parametrize(
    ("old", "new", "code", "message"),
    [
        ("measures.text:closeness", "measures.text:close", "FR501", "did you mean measures.text:closeness"),
        ("measures.text:closeness", "measures.words:closeness", "FR501", ""),
    ],
)
def test_functions(project: Path, old: str, new: str, code: str, message: str) -> None:
    edit(project / "shop.eval.yaml", old, new)
    assert check(project) == []
    found = seen(check(project, imports=True))
    assert [one[0] for one in found] == [code]
    assert message in found[0][2]


def test_parameters_of_functions(project: Path) -> None:
    edit(project / "measures/text.py", "def closeness(output, row)", "def closeness(output, rows)")
    (issue,) = check(project, imports=True)
    assert (issue.code, issue.place.line) == ("FR504", 9)
    assert "row" in issue.remedy


def test_a_file_that_is_none(project: Path) -> None:
    (project / "shop.eval.yaml").write_text("")
    assert [issue.code for issue in check(project)] == ["FR112"]
    (project / "shop.eval.yaml").write_text("flow: [\n")
    assert all(issue.severity == "error" for issue in check(project))
