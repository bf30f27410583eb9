"""``flowrun init``: what it makes runs and tests at once, and where it cannot, it leaves nothing."""

import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path, PurePath
from zipfile import ZipFile

import pytest
import yaml
from click.testing import CliRunner

from flowrun.cli.init import command
from flowrun.errors import UsageError
from flowrun.starters import EXAMPLES, KINDS, copy_example, make_project, write_project
from tests.documents import ENGINE, NEEDS_A_MODEL, Shell, read_blocks, read_commands

ROOT = Path(__file__).parents[3]


def init(*words: str) -> None:
    CliRunner().invoke(command, list(words), standalone_mode=False, catch_exceptions=False)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / "work").mkdir()
    return Shell(tmp_path / "work", tmp_path / "shell")


@pytest.mark.slow
def test_the_first_minute(shell: Shell) -> None:
    shell.run("flowrun init shop && cd shop && flowrun validate && flowrun test && flowrun specs/shop.yaml", [])
    shell.run("pytest -q -p no:cacheprovider specs", ["4 passed in …"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_command_of_a_readme_and_of_its_ci(kind: str, shell: Shell) -> None:
    shell.run(f"flowrun init my-flow --kind {kind}", ["my-flow is made. Next:", "  flowrun specs/my-flow.yaml"])
    shell.run("cd my-flow", [])
    blocks = read_blocks((shell.folder / "README.md").read_text())
    assert [block.note for block in blocks] == ["", NEEDS_A_MODEL]
    shell.run_block(blocks[0])
    for line, _ in read_commands(blocks[1]):
        parse(line)
        profile = line.partition("--profile ")[2].split()[0]
        shell.run(f"flowrun validate --profile {profile}", ["1 spec checked: no issues"])
    workflow = yaml.safe_load((shell.folder / ".github/workflows/flowrun.yml").read_text())
    runs = [step["run"] for step in workflow["jobs"]["specs"]["steps"] if "run" in step]
    assert runs[0].startswith('pip install "${FLOWRUN:?')
    shell.run(runs[1], ["1 spec checked: no issues"])
    shell.run(runs[2], ["  all…100%  …", "… passed, 0 failed, 0 skipped"])


def parse(line: str) -> None:
    """Let click read a command that no test can run; it raises for an unknown option."""
    words = shlex.split(line, comments=True)
    assert words[0] == "flowrun"
    import_module("flowrun.cli.run").command.make_context("run", words[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_a_project_is_the_templates_with_its_name(kind: str) -> None:
    files = make_project("x", kind)
    assert {"README.md", ".gitignore", "pyproject.toml", ".github/workflows/flowrun.yml", "tools/__init__.py"} < {
        str(path) for path in files
    }
    assert not [path for path, content in files.items() if b"NAME" in content and path.parts[0] != "schemas"]
    assert not [path for path in files if "NAME" in str(path)]
    # `make check` reads the functions where the templates lie, so they must be the same in a project.
    package = ENGINE / "flowrun" / "starters"
    functions = [path for path in files if path.suffix == ".py"]
    assert len(functions) == 2
    templates = [path.read_bytes() for folder in (kind, "common") for path in (package / folder / "tools").glob("*.py")]
    assert sorted(files[path] for path in functions) == sorted(templates)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param([], "give the project a name: flowrun init shop", id="no name"),
        pytest.param(["--", "-x"], "'-x' cannot be the name of a project: it needs letters", id="like an option"),
        pytest.param(["a b"], "'a b' cannot be the name of a project", id="a space"),
        pytest.param(["a.test"], "'a.test' cannot be the name of a project", id="a dot"),
        pytest.param(["x" * 65], "at most 64 characters", id="too long"),
        pytest.param(["true"], "'true' cannot be the name of a project: in YAML it is no text", id="a word of YAML"),
        pytest.param(["1e999"], "in YAML it is no text", id="a number"),
        pytest.param(["no/where"], "no/where cannot be made: No such file or directory", id="no parent"),
        pytest.param(["full"], "full is not empty; name another folder", id="not empty"),
        pytest.param(["file"], "file is a file; name another folder", id="a file"),
        pytest.param(["--example", "weather", "--kind", "agent"], "do not go together", id="both"),
        pytest.param(["full", "--example", "weather"], "full is not empty", id="an example"),
    ],
)
def test_what_cannot_be_made_leaves_nothing(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").touch()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r".*") as error:
        init(*words)
    assert message in str(error.value)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["file", "full", "full/kept"]


@pytest.mark.parametrize("exists", [False, True], ids=["a new folder", "an empty folder"])
def test_a_full_disk_leaves_the_folder_as_it_was(exists: bool, tmp_path: Path) -> None:
    """A limit on the size of a file stands for the full disk: the schema is larger, and comes late."""
    if exists:
        (tmp_path / "shop").mkdir()
    words = f'ulimit -f 20; exec "{sys.executable}" -m flowrun init shop'
    done = subprocess.run(["bash", "-c", words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "flowrun: shop cannot be made: File too large" in done.stderr
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == (["shop"] if exists else [])


def test_a_project_in_the_current_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path / "shop")
    init(".")
    assert (tmp_path / "shop" / "specs" / "shop.yaml").is_file()
    assert not [path for path in (tmp_path / "shop").iterdir() if path.name.startswith("tmp")]


def test_every_example_can_be_had() -> None:
    specs = {path.name.partition(".")[0] for path in (ROOT / "specs").glob("*.yaml")}
    assert set(EXAMPLES) == specs


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_stands_alone(example: str, shell: Shell) -> None:
    """The tests of weather that vLLM reads are left out here: they are run where the example lies."""
    write_project(shell.folder / example, copy_example(example))
    shell.run(f"cd {example}", [])
    shell.run("flowrun validate", ["… no issues"])
    shell.run(f"flowrun test {'-k answers' if example == 'weather' else ''}", ["… passed, 0 failed, 0 skipped"])


def test_an_example_gives_its_folder_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    init("--example", "map_reduce")
    init("mine", "--example", "map_reduce")
    for folder in ("map_reduce", "mine"):
        assert (tmp_path / folder / "specs" / "map_reduce.yaml").read_bytes() == (
            ROOT / "specs" / "map_reduce.yaml"
        ).read_bytes()


@pytest.mark.slow
def test_a_wheel_carries_all_that_is_made_and_copied(tmp_path: Path) -> None:
    """An installed flowrun, outside of the checkout; what it depends on is taken from this environment."""
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, capture_output=True, timeout=120, check=True)
    [wheel] = tmp_path.glob("*.whl")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], timeout=60, check=True)
    [packages] = venv.glob("lib/python*/site-packages")
    ZipFile(wheel).extractall(packages)
    (packages / "outer.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    script = f"""
        set -e
        cd "{tmp_path}"
        flowrun() {{ "{venv}/bin/python" -m flowrun "$@"; }}
        "{venv}/bin/python" -c "import flowrun.starters; print(flowrun.starters.__file__)"
        for kind in {" ".join(KINDS)}; do flowrun init "my-$kind" --kind "$kind"; done
        for example in {" ".join(EXAMPLES)}; do flowrun init --example "$example"; done
        cd my-agent
        for words in validate test specs/my-agent.yaml; do flowrun $words; done
    """
    environ = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    done = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(str(packages / "flowrun" / "starters"))
    for kind in KINDS:
        assert files_of(tmp_path / f"my-{kind}") == dict(make_project(f"my-{kind}", kind))
    for example in EXAMPLES:
        assert files_of(tmp_path / example) == dict(copy_example(example))


def files_of(folder: Path) -> dict[PurePath, bytes]:
    """Return the files of a folder, without those that Python leaves there."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {PurePath(path.relative_to(folder)): path.read_bytes() for path in files}
