"""What a shell completes, asked as bash, zsh and fish ask: by variables of the environment."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flowrun.cli import VERBS

SPEC = """
flowrun: v1
name: ask
version: 1.0.0
profiles: {small: {}, server: {}}
inputs: {wait: {type: boolean, default: false}}
states:
  first: {type: route, routes: [{when: inputs.wait, to: approve}, {to: end}]}
  approve: {type: wait, prompt: ok?, next: end}
  end: {type: end}
"""


def flowrun(*words: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flowrun", *words],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, **environ},
        timeout=60,
        check=False,
    )


def complete(line: str, *, cwd: Path, **environ: str) -> list[str]:
    """Return what bash offers for a line that ends where Tab is pressed; nothing may be printed but that."""
    number = str(len(line.split(" ")) - 1)
    done = flowrun(cwd=cwd, _FLOWRUN_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=number, **environ)
    assert (done.returncode, done.stderr) == (0, "")
    return [item.removeprefix("plain,") for item in done.stdout.splitlines() if item]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "specs").mkdir()
    (folder / "specs" / "ask.yaml").write_text(SPEC)
    (folder / "specs" / "ask.test.yaml").write_text("flow: ask.yaml\ntests: []\n")
    (folder / "specs" / "broken.yaml").write_text("flowrun: v1\n  profiles: [\n")
    (folder / ".venv" / "specs").mkdir(parents=True)
    (folder / ".venv" / "specs" / "hidden.yaml").write_text(SPEC)
    return folder


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("flowrun ", [*VERBS, "specs/ask.yaml", "specs/broken.yaml"], id="the first word"),
        pytest.param("flowrun va", ["validate"], id="a verb"),
        pytest.param("flowrun specs/a", ["specs/ask.yaml"], id="a spec in place of a verb"),
        pytest.param("flowrun ./specs/a", ["./specs/ask.yaml"], id="as it is typed"),
        pytest.param("flowrun graph ", ["specs/ask.yaml", "specs/broken.yaml"], id="a spec"),
        pytest.param("flowrun --de", ["--debug"], id="an option before the verb"),
        pytest.param("flowrun specs/ask.yaml --dur", ["--durable"], id="an option"),
        pytest.param("flowrun specs/ask.yaml --profile ", ["small", "server"], id="a profile"),
        pytest.param("flowrun batch specs/ask.yaml rows.jsonl --profile se", ["server"], id="a profile of a batch"),
        pytest.param("flowrun validate specs/ask.yaml --profile sm", ["small"], id="a profile to check"),
        pytest.param("flowrun graph --format d", ["dot"], id="a choice"),
        pytest.param("flowrun specs/nothing.yaml --profile ", [], id="no such spec"),
        pytest.param("flowrun specs/broken.yaml --profile ", [], id="a broken spec"),
        pytest.param("flowrun nowhere/", [], id="no such folder"),
        pytest.param("flowrun frobnicate --pro", [], id="no such verb"),
        pytest.param("flowrun show ", [], id="no journal"),
    ],
)
def test_a_line(line: str, expected: list[str], project: Path, tmp_path: Path) -> None:
    assert complete(line, cwd=project, XDG_STATE_HOME=str(tmp_path)) == expected


def test_runs_that_a_verb_can_be_used_on(project: Path, tmp_path: Path) -> None:
    journal = str(tmp_path / "runs.sqlite")
    words = ["specs/ask.yaml", "--durable", "-q"]
    ended = flowrun(*words, cwd=project, FLOWRUN_JOURNAL=journal)
    waiting = flowrun(*words, "-i", "wait=true", cwd=project, FLOWRUN_JOURNAL=journal)
    assert (ended.returncode, waiting.returncode) == (0, 4)
    named = re.search(r"flowrun answer (\w+)", waiting.stderr)
    assert named is not None
    run = named[1]
    for verb in ("answer", "resume", "cancel"):
        assert complete(f"flowrun {verb} ", cwd=project, FLOWRUN_JOURNAL=journal) == [run]
    for verb in ("show", "replay"):
        newest, oldest = complete(f"flowrun {verb} ", cwd=project, FLOWRUN_JOURNAL=journal)
        assert newest == run != oldest
    assert complete(f"flowrun show --journal {journal} {run[:6]}", cwd=project, FLOWRUN_JOURNAL="") == [run]
    (tmp_path / "runs.sqlite").write_text("no database")
    assert complete("flowrun show ", cwd=project, FLOWRUN_JOURNAL=journal) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell(shell: str, tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "completion.md").read_text()
    assert f"_FLOWRUN_COMPLETE={shell}_source flowrun" in page
    done = flowrun(cwd=tmp_path, _FLOWRUN_COMPLETE=f"{shell}_source")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_FLOWRUN_COMPLETE={shell}_complete" in done.stdout


def test_to_complete_imports_nothing_heavy(project: Path) -> None:
    code = (
        "import sys\nfrom flowrun.cli import main\n"
        "try:\n    main([])\nexcept SystemExit as exc:\n    assert not exc.code, exc.code\n"
        "heavy = {'torch', 'vllm', 'openai', 'networkx', 'rich', 'jinja2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    for line in ("flowrun ", "flowrun specs/"):
        environ = {**os.environ, "_FLOWRUN_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": "1"}
        done = subprocess.run([sys.executable, "-c", code], cwd=project, env=environ, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
