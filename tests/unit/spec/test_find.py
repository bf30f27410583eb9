"""Which files a folder stands for, and which folder stands for the project."""

from pathlib import Path

import pytest

from flowrun.spec.find import find_specs
from flowrun.spec.project import current_project
from flowrun.testing.load import find_suites

SPEC = "flowrun: v1\nname: s\nversion: 1.0.0\n"


def write(file: Path, text: str = SPEC) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_hidden_files_and_virtual_environments_are_not_the_projects_own(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "deep/er/c.yaml", ".hidden.yaml", ".venv/d.yaml", "env/lib/e.yaml"):
        write(tmp_path / name)
        write((tmp_path / name).with_suffix(".test.yaml"), "flow: b.yaml\ntests: []\n")
    write(tmp_path / "env" / "pyvenv.cfg", "")
    write(tmp_path / "f.yaml", "replies: []\n")
    assert [str(file.relative_to(tmp_path)) for file in find_specs(tmp_path)] == ["a.yml", "b.yaml", "deep/er/c.yaml"]
    assert [str(file.relative_to(tmp_path)) for file in find_suites([tmp_path])] == [
        "a.test.yaml",
        "b.test.yaml",
        "deep/er/c.test.yaml",
    ]


def test_a_folder_that_is_named_is_searched_whatever_it_is_called(tmp_path: Path) -> None:
    write(tmp_path / ".venv" / "a.yaml")
    write(tmp_path / ".venv" / "pyvenv.cfg", "")
    assert list(find_specs(tmp_path / ".venv")) == [tmp_path / ".venv" / "a.yaml"]


@pytest.mark.parametrize(
    ("mark", "current", "expected"),
    [
        pytest.param("pyproject.toml", ".", ".", id="the current folder"),
        pytest.param("pyproject.toml", "specs/deep", "../..", id="above"),
        pytest.param(".git", "specs", "..", id="git"),
        pytest.param("other", "specs", ".", id="no mark"),
    ],
)
def test_the_project_around_the_current_folder(
    mark: str, current: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / mark).touch()
    (tmp_path / current).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path / current)
    assert current_project() == Path(expected)
