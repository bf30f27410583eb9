"""Entrypoints are resolved to functions, relative to the spec's file, and every error says what to do."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowrun.spec.entrypoints import EntrypointError, find_project_root, load_entrypoint, split_entrypoint

WEATHER = """\
PLACES = ["Dallas"]

def get_current_weather(city):
    return f"{city}: 85"

class Station:
    @staticmethod
    def read():
        return 85
"""


@pytest.fixture(autouse=True)
def _fresh_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore ``sys.path`` and ``sys.modules`` after the test, and hide the repository's own ``tools``."""
    known = dict(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tools"]:
        del sys.modules[name]
    yield
    for name in sys.modules.keys() - known.keys():
        del sys.modules[name]
    sys.modules.update(known)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Create a project with ``tools/weather.py`` and ``specs/weather.yaml``."""
    root = tmp_path.resolve() / "project"
    files = {
        "pyproject.toml": "",
        "specs/weather.yaml": "",
        "tools/__init__.py": "",
        "tools/weather.py": WEATHER,
        "tools/broken.py": "import os\n\nraise ValueError('no key')\n",
        "tools/leaves.py": "import sys\nsys.exit(3)\n",
        "tools/typo.py": "def f(:\n    pass\n",
        "tools/needs.py": "import a_package_that_nobody_has\n",
        "alone.py": "def f(): return 'alone'\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def refusal(entrypoint: str, root: Path, project_dir: Path | None = None) -> tuple[str, str]:
    with pytest.raises(EntrypointError) as caught:
        load_entrypoint(entrypoint, spec_file=root / "specs" / "weather.yaml", project_dir=project_dir)
    return caught.value.message.replace(str(root), "ROOT"), caught.value.remedy.replace(str(root), "ROOT")


@pytest.mark.parametrize(
    ("entrypoint", "value"),
    [
        pytest.param("tools.weather:get_current_weather", "Dallas: 85", id="function"),
        pytest.param("alone:f", "alone", id="module of its own"),
        pytest.param("tools.weather:Station.read", 85, id="method"),
    ],
)
def test_a_function_is_found_from_the_spec_s_file(entrypoint: str, value: object, project: Path) -> None:
    function = load_entrypoint(entrypoint, spec_file=project / "specs" / "weather.yaml")
    assert function(*(["Dallas"] if "get" in entrypoint else [])) == value
    assert sys.path[0] == str(project)


def test_the_project_is_on_the_path_once_and_first(project: Path) -> None:
    for _ in range(2):
        load_entrypoint("alone:f", spec_file=project / "specs" / "weather.yaml")
        sys.path.insert(0, "elsewhere")
    load_entrypoint("alone:f", spec_file=project / "specs" / "weather.yaml")
    assert (sys.path.count(str(project)), sys.path.index(str(project))) == (1, 0)


def test_entrypoints_are_split() -> None:
    assert split_entrypoint("a.b:C.d") == ("a.b", "C.d")


@pytest.mark.parametrize("entrypoint", ["", "a", "a:", ":f", "a.:f", "a:b:c", "a-b:c", "a:f()", "../a:f"])
def test_what_is_no_entrypoint_is_refused(entrypoint: str) -> None:
    with pytest.raises(EntrypointError, match=r"is not an entrypoint; write module\.path:function"):
        split_entrypoint(entrypoint)


def test_the_root_is_the_nearest_folder_that_has_the_module(project: Path) -> None:
    spec = project / "specs" / "weather.yaml"
    assert find_project_root("tools.weather:f", spec) == project
    (project / "specs" / "tools.py").touch()
    assert find_project_root("tools.weather:f", spec) == project / "specs"
    assert find_project_root("tools.weather:f", spec, project_dir=project) == project


@pytest.mark.parametrize("mark", [".git", "pyproject.toml"])
def test_no_folder_above_the_project_is_looked_into(mark: str, project: Path) -> None:
    inner = project / "inner" / "specs"
    inner.mkdir(parents=True)
    (inner.parent / mark).touch()
    with pytest.raises(EntrypointError) as caught:
        find_project_root("tools.weather:f", inner / "spec.yaml")
    assert caught.value.message == f"there is no module 'tools' in {inner} and its parents up to {inner.parent}"


@pytest.mark.parametrize(
    ("entrypoint", "message", "remedy"),
    [
        pytest.param(
            "tools.wether:f",
            "there is no module tools.wether in ROOT",
            "did you mean tools.weather?",
            id="misspelt module",
        ),
        pytest.param(
            "tools.x.y:f", "there is no module tools.x in ROOT", "create ROOT/tools/x.py", id="unknown module"
        ),
        pytest.param(
            "nowhere:f",
            "there is no module 'nowhere' in ROOT/specs and its parents up to ROOT",
            "create nowhere/__init__.py or nowhere.py there, or name the project's folder with --project-dir",
            id="unknown package",
        ),
        pytest.param(
            "specs.a:f",
            "specs/ has no __init__.py",
            "create an empty file ROOT/specs/__init__.py",
            id="folder without __init__.py",
        ),
        pytest.param(
            "tools.weather:get_curent_weather",
            "tools.weather has no function 'get_curent_weather'",
            "did you mean tools.weather:get_current_weather?",
            id="misspelt function",
        ),
        pytest.param(
            "tools.weather:wibble",
            "tools.weather has no function 'wibble'",
            "it has: Station, get_current_weather",
            id="unknown function",
        ),
        pytest.param(
            "tools.weather:Station.reed",
            "tools.weather:Station has no function 'reed'",
            "did you mean tools.weather:Station.read?",
            id="misspelt method",
        ),
        pytest.param("tools:f", "tools has no function 'f'", "define it there", id="module without functions"),
        pytest.param(
            "tools.weather:PLACES",
            "tools.weather:PLACES is not a function but of type list",
            "name a function",
            id="no function",
        ),
        pytest.param(
            "tools.broken:f",
            "tools.broken cannot be imported: ValueError: no key (tools/broken.py, line 3)",
            "importing a module of tools must do nothing else",
            id="module that raises",
        ),
        pytest.param(
            "tools.leaves:f",
            "tools.leaves cannot be imported: SystemExit: 3 (tools/leaves.py, line 2)",
            "importing a module of tools must do nothing else",
            id="module that exits",
        ),
        pytest.param(
            "tools.needs:f",
            "tools.needs cannot be imported: ModuleNotFoundError: No module named 'a_package_that_nobody_has' "
            "(tools/needs.py, line 1)",
            "install what provides 'a_package_that_nobody_has'",
            id="missing dependency",
        ),
    ],
)
def test_a_refusal_says_what_to_do(entrypoint: str, message: str, remedy: str, project: Path) -> None:
    assert refusal(entrypoint, project) == (message, remedy)


def test_a_syntax_error_is_reported_with_its_line(project: Path) -> None:
    message, _ = refusal("tools.typo:f", project)
    assert message.startswith("tools.typo cannot be imported: SyntaxError: ")
    assert message.endswith(" (tools/typo.py, line 1)")


def test_another_project_s_module_of_the_same_name_is_reported(project: Path, tmp_path: Path) -> None:
    load_entrypoint("tools.weather:get_current_weather", spec_file=project / "specs" / "weather.yaml")
    other = tmp_path.resolve() / "other"
    (other / "tools").mkdir(parents=True)
    (other / "tools" / "__init__.py").touch()
    assert refusal("tools.weather:f", project, project_dir=other) == (
        "another module 'tools' is loaded already, from ROOT/tools/__init__.py",
        f"rename 'tools' in {other}, or run the flows of different projects in processes of their own",
    )


def test_a_module_with_the_name_of_a_standard_one_is_reported(project: Path) -> None:
    (project / "json.py").touch()
    message, remedy = refusal("json:loads", project)
    assert message.startswith("another module 'json' is loaded already, from ")
    assert remedy == "rename 'json' in ROOT, or run the flows of different projects in processes of their own"


def test_a_module_that_python_finds_elsewhere_is_reported(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = project.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "late.py").write_text("def f(): pass\n")
    (project / "tools" / "__init__.py").write_text(f"__path__.append({str(elsewhere)!r})\n")
    message, remedy = refusal("tools.late:f", project)
    assert message == f"tools.late comes from {elsewhere}/late.py, outside of the project ROOT"
    assert remedy == "call it from a module of the project"


def test_a_function_of_an_installed_package_is_found(project: Path) -> None:
    assert load_entrypoint("json:dumps", spec_file=project / "specs" / "weather.yaml")([1]) == "[1]"
    assert refusal("json.nothing:f", project) == (
        "the installed packages have no module json.nothing",
        "see the package's documentation",
    )


def test_a_module_above_the_project_is_not_installed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.parent / "above.py").write_text("def f(): pass\n")
    monkeypatch.syspath_prepend(str(project.parent))
    assert refusal("above:f", project)[0] == "there is no module 'above' in ROOT/specs and its parents up to ROOT"
