"""``flowrun diff`` compares two files, or files with those of a commit, and checks their versions."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flowrun.changes.git import Repository
from flowrun.cli.diff import command
from flowrun.errors import UsageError

SPEC = """\
flowrun: v1
name: greet
version: 1.0.0
inputs: {who: {type: string, default: you}}
model: {name: small}
messages:
  - {role: user, content: "Greet {{ inputs.who }}."}
"""


def diff(*words: str | Path) -> Result:
    return CliRunner().invoke(command, [str(word) for word in words], standalone_mode=False)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    return tmp_path


@pytest.fixture
def git(files: Path) -> Callable[..., None]:
    """Return a function that runs git in a new repository of the folder; its only commit has ``specs/greet.yaml``."""

    def run(*words: str) -> None:
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.invalid", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *words], cwd=files, check=True, capture_output=True)

    (files / "specs").mkdir()
    (files / "specs" / "greet.yaml").write_text(SPEC)
    (files / "specs" / "other.yaml").write_text("no: spec\n")
    run("init", "--quiet")
    run("add", ".")
    run("commit", "--quiet", "-m", "first")
    return run


def test_two_files(files: Path) -> None:
    (files / "old.yaml").write_text(SPEC)
    changed = SPEC.replace(", default: you", "").replace("Greet", "Please greet").replace("name: small", "name: large")
    (files / "new.yaml").write_text(changed)
    done = diff("old.yaml", "new.yaml")
    assert (done.return_value, done.stdout) == (
        1,
        "new.yaml\n"
        '  breaking    inputs.who.default   default removed, so the input is required now: "you"\n'
        '  internal    model.name           changed: "small" -> "large"\n'
        '  internal    messages[0].content  changed: "Greet {{ inputs.who }}." -> "Please greet {{ inputs.who }}."\n'
        "  version is still 1.0.0: a breaking change needs 2.0.0\n",
    )
    assert done.stderr == "1 spec compared: 0 unchanged, 1 with issues or too low a version\n"


def test_a_version_that_was_raised_enough(files: Path) -> None:
    (files / "old.yaml").write_text(SPEC)
    (files / "new.yaml").write_text(SPEC.replace("Greet", "Please greet").replace("1.0.0", "1.0.1"))
    done = diff("old.yaml", "new.yaml")
    assert done.return_value == 0
    assert done.stdout.splitlines()[-1] == "  version 1.0.0 -> 1.0.1 says enough for an internal change"


def test_another_notation_is_no_change(files: Path) -> None:
    (files / "old.yaml").write_text(SPEC)
    (files / "new.yaml").write_text("# A comment.\n" + SPEC.replace("{name: small}", '\n  "name": "small"'))
    done = diff("old.yaml", "new.yaml")
    assert (done.return_value, done.stdout, done.stderr) == (0, "", "1 spec compared: 1 unchanged\n")


def test_long_texts_are_shown_where_they_differ(files: Path) -> None:
    long = "Say something nice, and then " * 4
    (files / "old.yaml").write_text(SPEC.replace("Greet", f"{long}hello to"))
    (files / "new.yaml").write_text(SPEC.replace("Greet", f"{long}goodbye to"))
    assert diff("old.yaml", "new.yaml").stdout.splitlines()[1] == (
        '  internal    messages[0].content  changed: "…hing nice, and then hello to {{ inputs.who }}." -> '
        '"…hing nice, and then goodbye to {{ inputs.who }}."'
    )


def test_as_json(files: Path) -> None:
    (files / "old.yaml").write_text(SPEC)
    (files / "new.yaml").write_text(SPEC.replace("small", "large"))
    done = diff("old.yaml", "new.yaml", "--format", "json")
    assert json.loads(done.stdout) == [
        {
            "file": "new.yaml",
            "passes": False,
            "note": "",
            "verdict": {
                "old": "1.0.0",
                "new": "1.0.0",
                "impact": "internal",
                "raised_enough": False,
                "needed": "1.0.1",
                "sentence": "version is still 1.0.0: an internal change needs 1.0.1",
            },
            "changes": [
                {"impact": "internal", "path": "model.name", "what": "changed", "old": "small", "new": "large"}
            ],
            "evals": [],
            "issues": [],
        }
    ]


def test_a_new_version_that_is_not_valid_fails(files: Path) -> None:
    (files / "old.yaml").write_text(SPEC)
    (files / "new.yaml").write_text(SPEC.replace("version: 1.0.0\n", ""))
    done = diff("old.yaml", "new.yaml")
    assert done.return_value == 1
    assert done.stdout.splitlines()[:2] == [
        "new.yaml  is not valid, so it was not compared",
        "new.yaml:1:1  FR202",
    ]


def test_an_invalid_old_version_is_not_compared(files: Path) -> None:
    (files / "old.yaml").write_text(SPEC.replace("version: 1.0.0\n", ""))
    (files / "new.yaml").write_text(SPEC)
    done = diff("old.yaml", "new.yaml")
    assert done.return_value == 0
    assert done.stdout.startswith("new.yaml  old.yaml was no valid spec (")


def test_with_a_commit(files: Path, git: Callable[..., None]) -> None:
    (files / "specs" / "greet.yaml").write_text(SPEC.replace("small", "large"))
    (files / "specs" / "new.yaml").write_text(SPEC.replace("1.0.0", "0.1.0"))
    done = diff("--git", "HEAD", "specs")
    assert (done.return_value, done.stdout) == (
        1,
        "specs/greet.yaml\n"
        '  internal    model.name  changed: "small" -> "large"\n'
        "  version is still 1.0.0: an internal change needs 1.0.1\n"
        "\n"
        "specs/new.yaml  new since HEAD, at version 0.1.0\n",
    )


def test_a_text_in_a_file_is_compared_as_a_message(files: Path, git: Callable[..., None]) -> None:
    prompt = files / "prompts" / "greet.md"
    prompt.parent.mkdir()
    prompt.write_text("Greet.\n")
    message = '{role: user, content: "Greet {{ inputs.who }}."}'
    assert message in SPEC
    in_file = SPEC.replace(message, "{role: user, content: {file: ../prompts/greet.md}}")
    (files / "specs" / "greet.yaml").write_text(in_file)
    git("add", ".")
    git("commit", "--quiet", "-m", "second")
    prompt.write_text("Greet kindly.\n")
    done = diff("--git", "HEAD", "specs")
    assert (done.return_value, done.stdout) == (
        1,
        "specs/greet.yaml\n"
        '  internal    messages[0].content  changed: "Greet." -> "Greet kindly."\n'
        "  version is still 1.0.0: an internal change needs 1.0.1\n",
    )
    (files / "specs" / "greet.yaml").write_text(SPEC.replace("Greet {{ inputs.who }}.", "Greet."))
    assert diff("--git", "HEAD", "specs/greet.yaml").return_value == 0
    (files / "specs" / "greet.yaml").write_text(
        in_file.replace("role: user", "from: inputs.who, x-was").replace(", content: {file: ../prompts/greet.md}", "")
    )
    done = diff("--git", "HEAD", "specs/greet.yaml")
    assert [line.split()[1] for line in done.stdout.splitlines()[1:-1]] == [
        "messages[0].role",
        "messages[0].content",
        "messages[0].from",
    ]


def test_a_deleted_spec_is_reported(files: Path, git: Callable[..., None]) -> None:
    (files / "specs" / "greet.yaml").unlink()
    expected = "specs/greet.yaml  deleted since HEAD: whoever runs it has to change\n"
    assert [
        (done.return_value, done.stdout)
        for done in (diff("--git", "HEAD", path) for path in ("specs", "specs/greet.yaml"))
    ] == [
        (0, expected),
        (0, expected),
    ]


def test_a_commit_before_the_last_one_from_another_folder(
    files: Path, git: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (files / "specs" / "greet.yaml").write_text(SPEC.replace("small", "large").replace("1.0.0", "1.0.1"))
    git("commit", "--quiet", "-a", "-m", "second")
    monkeypatch.chdir(files / "specs")
    done = diff("--git", "HEAD~1")
    assert done.return_value == 0
    assert done.stdout.splitlines() == [
        "greet.yaml",
        '  internal    model.name  changed: "small" -> "large"',
        "  version 1.0.0 -> 1.0.1 says enough for an internal change",
    ]
    assert diff("--git", "HEAD").stderr == "1 spec compared: 1 unchanged\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param([], "name two files, OLD and NEW, or --git BASE", id="nothing"),
        pytest.param(["a.yaml"], "name two files, OLD and NEW, or --git BASE", id="one file"),
        pytest.param(["a.yaml", "b.yaml"], "there is no file a.yaml", id="no file"),
        pytest.param(["specs", "specs"], "specs cannot be read: Is a directory", id="folders"),
        pytest.param(["--git", "nope", "specs"], "'nope' names no commit of ", id="no commit"),
        pytest.param(["--git=--output=x", "specs"], "'--output=x' names no commit of ", id="an option of git"),
        pytest.param(["--git", "HEAD", "none.yaml"], "there is no none.yaml, neither here nor at HEAD", id="no path"),
        pytest.param(["--git", "HEAD", "/"], "/ is not in a", id="outside"),
    ],
)
def test_wrong_usage(git: Callable[..., None], words: list[str], message: str) -> None:
    done = diff(*words)
    assert isinstance(done.exception, UsageError)
    assert str(done.exception).startswith(message)


def test_names_of_files_are_not_patterns(files: Path, git: Callable[..., None]) -> None:
    (files / "specs" / "a[b] *ü.yaml").write_text(SPEC)
    git("add", ".")
    git("commit", "--quiet", "-m", "odd names")
    repository = Repository.around(files)
    commit = repository.commit("HEAD")
    assert repository.yaml_files(commit, files / "specs" / "a[b] *ü.yaml") == ["specs/a[b] *ü.yaml"]
    assert repository.show(commit, "specs/a[b] *ü.yaml").decode() == SPEC
