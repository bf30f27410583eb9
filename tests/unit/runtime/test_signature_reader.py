"""``validate`` imports in a process of its own: a module that ends, hangs or floods it costs only its own specs."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowrun.errors import Issue, SpecError
from flowrun.runtime.project import Project
from flowrun.runtime.signature_reader import Request, SignatureReader
from flowrun.spec.entrypoints import EntrypointError
from flowrun.spec.signatures import Signature, signature_of

HEADER = "flowrun: v1\nname: t\nversion: 1.0.0\n"


def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


ADD = 'def add(a: int, b: int = 1) -> int:\n    """Add two numbers."""\n    return a + b\n'

HARMFUL = {
    "exits.py": "import os\nos._exit(0)\n",
    "crashes.py": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
    "hangs.py": "import time\ntime.sleep(3600)\n",
    "holds.py": "import re\nre.match('(a*)*b', 'a' * 40)\n",
    "interrupts.py": "raise KeyboardInterrupt\n",
    "annotated.py": "def f(a: 'print(1 / 0)'): pass\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").touch()
    for name, text in {"good.py": ADD, **HARMFUL}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def read(project: Path, *entrypoints: str, seconds: int = 2) -> list[Signature | str]:
    """Read the functions of one flow; an error as its message."""
    with SignatureReader(None, seconds=seconds) as reader:
        found = reader.read([Request(entrypoint, project / "spec.yaml") for entrypoint in entrypoints])
    return [one if isinstance(one, Signature) else one.message for one in found.values()]


def test_a_signature_is_the_same_from_another_process(project: Path) -> None:
    assert read(project, "good:add") == [signature_of(add)]


@pytest.mark.parametrize(
    ("entrypoint", "message"),
    [
        ("exits:f", "exits cannot be imported: it ends the process, with exit code 0"),
        ("crashes:f", "crashes cannot be imported: it ends the process, by SIGSEGV"),
        ("hangs:f", "hangs cannot be imported: it takes longer than 2 seconds"),
        ("holds:f", "holds cannot be imported: it takes longer than 2 seconds"),
        ("interrupts:f", "interrupts:f cannot be read: KeyboardInterrupt: "),
    ],
)
def test_a_module_that_harms_costs_only_itself(project: Path, entrypoint: str, message: str) -> None:
    assert read(project, entrypoint, "good:add", entrypoint.replace(":f", ":g")) == [
        message,
        signature_of(add),
        message if ":" not in message.partition(" ")[0] else message.replace(":f", ":g"),
    ]


def test_a_module_that_hangs_is_waited_for_once(project: Path) -> None:
    begun = time.monotonic()
    with SignatureReader(None, seconds=1) as reader:
        for name in ("a.yaml", "b.yaml", "c.yaml"):
            (error,) = reader.read([Request("hangs:f", project / name)]).values()
            assert isinstance(error, EntrypointError)
    assert time.monotonic() - begun < 30  # 1 s of waiting, and a start or two of Python on a busy machine


def test_an_annotation_that_cannot_be_read_is_part_of_the_signature(project: Path) -> None:
    (found,) = read(project, "annotated:f")
    assert isinstance(found, Signature)
    assert found.unreadable is not None
    assert "ZeroDivisionError" in found.unreadable[0]


def test_what_a_module_prints_reads_and_starts_does_no_harm(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (project / "loud.py").write_text(
        "import os, subprocess, sys\nprint('hello')\nos.write(1, b'{}\\n')\n"
        f"child = subprocess.Popen(['sleep', '600'])\nopen('{project}/pid', 'w').write(str(child.pid))\n"
        f"read = sys.stdin.read()\n{ADD}"
    )
    assert read(project, "loud:add", "good:add") == [signature_of(add), signature_of(add)]
    assert "hello" in capfd.readouterr().err
    assert _ended(int((project / "pid").read_text()))


def _ended(pid: int) -> bool:
    """Wait until a process has ended; a process that nobody waits for counts as ended."""
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_flows_of_different_projects_may_have_modules_of_one_name(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pyproject.toml").touch()
        (tmp_path / name / "same.py").write_text(ADD.replace("Add", name))
    with SignatureReader(None) as reader:
        found = [
            reader.read([Request("same:add", tmp_path / name / "spec.yaml")]).popitem()[1]
            for name in ("one", "two", "one")
        ]
    assert [one.description for one in found if isinstance(one, Signature)] == [
        "one two numbers.",
        "two two numbers.",
        "one two numbers.",
    ]


def write(folder: Path, name: str, entrypoint: str) -> Path:
    file = folder / name
    file.write_text(
        f'{HEADER}states:\n  go: {{type: call, entrypoint: "{entrypoint}", with: {{a: 1}}, next: done}}\n'
        "  done: {type: end}\n"
    )
    return file


def test_validate_reports_each_spec_by_itself(project: Path) -> None:
    files = [write(project, f"{name}.yaml", f"{name}:add") for name in ("exits", "good", "hangs")]
    issues = Project(import_seconds=1).check_all(files)
    assert [(Path(issue.place.file).name, issue.code) for issue in issues] == [
        ("exits.yaml", "FR501"),
        ("hangs.yaml", "FR501"),
    ]


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the processes that are started."""
    started: list[int] = []
    popen = subprocess.Popen

    def counted(*args: Any, **kwargs: Any) -> Any:
        started.append(os.getpid())
        return popen(*args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", counted)
    return started


CHECKS: dict[str, tuple[Callable[[Path], list[Issue]], int]] = {
    "nothing to import": (
        lambda folder: Project().check_all([_without_functions(folder, f"{number}.yaml") for number in range(3)]),
        0,
    ),
    "not to be imported": (lambda folder: Project().check(write(folder, "a.yaml", "exits:f"), imports=False), 0),
    "many specs": (
        lambda folder: Project().check_all([write(folder, f"{n}.yaml", "good:add") for n in range(20)]),
        1,
    ),
}


def _without_functions(folder: Path, name: str) -> Path:
    (folder / name).write_text(f"{HEADER}states: {{done: {{type: end}}}}\n")
    return folder / name


@pytest.mark.parametrize("case", CHECKS)
def test_as_few_processes_as_possible_are_started(project: Path, starts: list[int], case: str) -> None:
    check, expected = CHECKS[case]
    assert check(project) == []
    assert len(starts) == expected


def test_a_run_has_the_signatures_that_validate_has(project: Path) -> None:
    file = write(project, "spec.yaml", "good:add")
    file.write_text(file.read_text().replace("{a: 1}", "{c: 1}"))
    (issue,) = Project().check(file)
    assert (issue.code, issue.message) == ("FR504", "the function has no parameter 'c'")


def test_modules_of_a_project_that_this_process_has_run_are_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", list(sys.path))
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        (folder / "pyproject.toml").touch()
    (first / "only_in_first.py").write_text(ADD)
    Project().compile(write(first, "spec.yaml", "only_in_first:add"))
    assert str(first) in sys.path
    file = write(second, "spec.yaml", "only_in_first:add")
    (issue,) = Project().check(file)
    with pytest.raises(SpecError) as refused:
        Project().compile(file)
    assert issue == refused.value.issues[0]
    assert (issue.code, issue.message) == ("FR501", f"there is no module 'only_in_first' in {second}")
