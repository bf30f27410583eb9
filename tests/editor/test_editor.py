"""An editor completes, explains and checks specs: the language server of the common editors, over the examples."""

import itertools
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.editor.lsp import LanguageServer
from tests.editor.outline import Level, Outline
from tests.npm import install_packages

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCHEMAS = {kind: ROOT / "schemas" / f"{kind}.v1.schema.json" for kind in ("flow", "test")}
OUTLINES = {kind: Outline(json.loads(path.read_text())) for kind, path in SCHEMAS.items()}
EXAMPLES = [*sorted((ROOT / "specs").glob("*.yaml")), ROOT / "tests" / "cases" / "valid" / "every_state.yaml"]
SETTINGS = {"yaml": {"schemaStore": {"enable": False}, "validate": True, "completion": True, "hover": True}}


class Indented(yaml.SafeDumper):
    """Writes block style, with lists indented below their keys."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)


examples = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)


def kind_of(path: Path) -> str:
    return "test" if path.name.endswith(".test.yaml") else "flow"


def text_of(path: Path) -> str:
    text = path.read_text()
    return text if "$schema=" in text else with_modeline(kind_of(path), text)


def with_modeline(kind: str, text: str) -> str:
    """Name the schema in the first line, as the examples do."""
    return f"# yaml-language-server: $schema={SCHEMAS[kind].as_uri()}\n{text}"


_numbers = itertools.count()


def new_uri() -> str:
    """Return the place of a document that is only in the editor."""
    return (ROOT / f"unsaved-{next(_numbers)}.yaml").as_uri()


@pytest.fixture(scope="session")
def packages() -> Path:
    """Install the pinned packages; skip where they cannot be had."""
    return install_packages(HERE)


@pytest.fixture(scope="session")
def server(packages: Path) -> Iterator[LanguageServer]:
    """Start the language server, which all tests share."""
    program = packages / "node_modules" / "yaml-language-server" / "bin" / "yaml-language-server"
    with LanguageServer(["node", str(program), "--stdio"], settings=SETTINGS) as server:
        yield server


def test_schemas_are_strict(packages: Path) -> None:
    command = ["node", str(HERE / "strict.mjs"), str(packages), *map(str, SCHEMAS.values())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stderr, done.stdout.splitlines()) == ("", [str(path) for path in SCHEMAS.values()])


@pytest.fixture(scope="session")
def with_examples(server: LanguageServer) -> LanguageServer:
    """Open all examples at once, because the server waits before it checks one."""
    for path in EXAMPLES:
        server.open(path.as_uri(), text_of(path))
    return server


@examples
def test_an_example_has_no_diagnostics(with_examples: LanguageServer, path: Path) -> None:
    assert with_examples.diagnostics(path.as_uri()) == []


@pytest.mark.parametrize(
    ("kind", "text", "line", "message"),
    [
        pytest.param("flow", "flowrun: v1\nname: a\nversion: 1.0.0\nmesages: []\n", 4, "mesages", id="key"),
        pytest.param("flow", "flowrun: v1\nname: a\n", 1, "version", id="missing key"),
        pytest.param(
            "flow", "flowrun: v1\nname: a\nversion: 1.0.0\nlimits: {max_steps: no}\n", 4, "integer", id="type"
        ),
        pytest.param(
            "flow", "flowrun: v1\nname: a\nversion: 1.0.0\nstates:\n  a: {type: chats}\n", 5, "chat", id="kind of state"
        ),
        pytest.param("test", "flow: a.yaml\ntests:\n  - {name: a, replies: [{txt: b}]}\n", 3, "txt", id="test"),
    ],
)
def test_a_mistake_is_shown_where_it_is(server: LanguageServer, kind: str, text: str, line: int, message: str) -> None:
    uri = new_uri()
    server.open(uri, with_modeline(kind, text))
    found = server.diagnostics(uri)
    server.close(uri)
    assert {one["range"]["start"]["line"] for one in found} == {line}
    assert any(message in one["message"] for one in found)


@examples
def test_every_key_is_offered_at_every_level(server: LanguageServer, path: Path) -> None:
    block = yaml.dump(yaml.load(path.read_text(), yaml.CSafeLoader), Dumper=Indented, sort_keys=False, width=10_000)
    text = with_modeline(kind_of(path), block)
    missing, seen = [], set()
    for level in OUTLINES[kind_of(path)].levels(text):
        expected = set(level.properties) - set(level.keys())
        if level.node.flow_style or (kind_of_level := (frozenset(level.properties), frozenset(expected))) in seen:
            continue
        seen.add(kind_of_level)
        line, column = place_in(level)
        lines = text.splitlines()
        lines.insert(line, " " * column)
        uri = new_uri()
        server.open(uri, "\n".join(lines) + "\n")
        offered = {item["label"] for item in server.complete(uri, (line, column))}
        server.close(uri)
        if unoffered := expected - offered:
            missing.append((line, sorted(unoffered)))
    assert missing == []
    assert seen


def place_in(level: Level) -> tuple[int, int]:
    """Return where a key can be added to a block mapping: on a new line after its first entry."""
    (key, value), *others = level.node.value
    if others:
        line = others[0][0].start_mark.line
    elif isinstance(value, yaml.CollectionNode) and not value.flow_style:
        line = value.end_mark.line
    else:
        line = value.end_mark.line + 1
    return line, key.start_mark.column


@examples
def test_every_key_is_explained(with_examples: LanguageServer, path: Path) -> None:
    outline = OUTLINES[kind_of(path)]
    unexplained = []
    for level in outline.levels(text_of(path)):
        for key, value in level.node.value:
            descriptions = outline.descriptions(level.properties.get(key.value, {}), value)
            at = (key.start_mark.line, key.start_mark.column + 1)
            shown = words(with_examples.hover(path.as_uri(), at)) if descriptions else ""
            if descriptions and not any(words(description) in shown for description in descriptions):
                unexplained.append((at[0] + 1, key.value))
    assert unexplained == []


def words(text: str) -> str:
    """Return a text's letters and digits, without the marks of Markdown."""
    return " ".join(re.findall(r"\w+", re.sub(r"&\w+;|[\\_]", " ", text)))


@pytest.mark.parametrize(
    ("text", "offered"),
    [
        pytest.param(
            "states:\n  a:\n    type: ", "chat tools call route flow map parallel wait end", id="kinds of states"
        ),
        pytest.param("states:\n  a:\n    type: tools\n    on_error: ", "return raise", id="one state"),
        pytest.param("model:\n  backend: ", "vllm openai scripted", id="backends"),
    ],
)
def test_values_are_offered(server: LanguageServer, text: str, offered: str) -> None:
    text = with_modeline("flow", f"flowrun: v1\nname: a\nversion: 1.0.0\n{text}")
    lines = text.splitlines()
    uri = new_uri()
    server.open(uri, text)
    items: Sequence[dict[str, Any]] = server.complete(uri, (len(lines) - 1, len(lines[-1])))
    server.close(uri)
    assert {item["label"] for item in items} >= set(offered.split())
