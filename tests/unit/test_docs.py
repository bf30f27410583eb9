"""The pages in docs/ say what is so: their files are written, their commands run, and what they show is compared."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from flowrun.backends.scripted import ScriptedReply, load_replies
from flowrun.cli import VERBS
from flowrun.spec.schema import TEST_SCHEMA, read_schema
from flowrun.starters import copy_example, write_project
from tests.bench.lines import table
from tests.documents import NEEDS_A_MODEL, Block, Shell, read_blocks, read_commands
from tests.serving import serving

DOCS = Path(__file__).parents[2] / "docs"
AT_THE_END = "at the end of "
TESTS_OF_MAIL = "tests of mail.yaml"
INSTALLS = "installs flowrun"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / "work").mkdir()
    return Shell(tmp_path / "work", tmp_path / "shell")


def write_file(shell: Shell, block: Block) -> None:
    """Write the file that a block is, or add to it."""
    file = shell.folder / block.title.removeprefix(AT_THE_END)
    before = file.read_text() if block.title.startswith(AT_THE_END) else ""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(before + block.text)


def parse_commands(block: Block) -> None:
    """Let click read the commands that no test can run; it raises for a verb or an option that does not exist."""
    for line, _ in read_commands(block):
        program, *words = shlex.split(line, comments=True)
        assert program == "flowrun"
        parse_words(words)


def parse_words(words: list[str]) -> None:
    """Let click read the words behind ``flowrun``."""
    command, name, rest = import_module("flowrun.cli.run").command, "run", words
    if words[0] in VERBS:
        name, *rest = words
        command = import_module(f"flowrun.cli.{name}").command
    if isinstance(command, click.Group):
        name, *rest = rest
        command = command.commands[name]
    command.make_context(name, rest)


def perform(shell: Shell, blocks: list[Block]) -> Iterator[Block]:
    """Write the files and run the commands of a page, in order; yield the other blocks when it is their turn."""
    for block in blocks:
        if block.note == NEEDS_A_MODEL:
            parse_commands(block)
        elif block.title:
            write_file(shell, block)
        elif block.kind == "console":
            shell.run_block(block)
        else:
            yield block


@pytest.mark.slow
def test_the_tutorial(shell: Shell) -> None:
    blocks = read_blocks((DOCS / "tutorial.md").read_text())
    others = []
    for block in perform(shell, blocks):
        others.append((block.kind, block.note))
        if block.kind == "yaml":
            assert block.text in (shell.folder / "specs" / "shop.yaml").read_text()
    assert others == [("sh", INSTALLS), ("yaml", "")]
    assert sum(block.kind == "console" for block in blocks) == 11


@pytest.mark.slow
def test_the_page_on_pages(shell: Shell) -> None:
    assert list(perform(shell, read_blocks((DOCS / "pages.md").read_text()))) == []
    program, verb, *words = shlex.split((shell.folder / "start").read_text())
    assert (program, verb) == ("flowrun", "ui")
    import_module("flowrun.cli.ui").command.make_context(verb, words)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_page_on_serving(shell: Shell) -> None:
    first, python, *others = perform(shell, read_blocks((DOCS / "serve.md").read_text()))
    program, verb, *words = shlex.split((shell.folder / "start").read_text())
    assert (program, verb, words[-2:]) == ("flowrun", "serve", ["--port", "8765"])
    with serving(shell.folder, *words[:-2]) as server:
        said = _outputs(first.text.replace("http://127.0.0.1:8765", server.url), shell.folder)
        models, completion = map(json.loads, said)
        assert [model["id"] for model in models["data"]] == ["desk"]
        assert completion["choices"][0]["message"]["content"] == "It is on its way."
        run = completion["flowrun"]["run"]
        record = get_json(f"{server.api}/runs/{run}")
        assert record["inputs"] == {"question": "Where is my order?", "history": [], "customer": 7}
        assert record["messages"][0]["content"] == "You help customer 7."
        program_text = python.text.replace("http://127.0.0.1:8765", server.url)
        done = subprocess.run([sys.executable, "-c", program_text], capture_output=True, text=True, check=True)
        assert done.stdout == "It is on its way."
    assert ["RUN" in block.text for block in others] == [True]


def _outputs(commands: str, folder: Path) -> list[str]:
    """Return what each command of a block writes; one may have several lines."""
    lines = commands.replace("\\\n", " ").splitlines()
    run = ["bash", "-c"]
    return [
        subprocess.run([*run, f"{line} --silent"], cwd=folder, capture_output=True, text=True, check=True).stdout
        for line in lines
        if line.strip()
    ]


def get_json(address: str) -> Any:
    with urllib.request.urlopen(address) as response:
        return json.load(response)


def test_the_page_on_warm_engines() -> None:
    [block] = read_blocks((DOCS / "engine.md").read_text())
    for line, _ in read_commands(block):
        program, *words = shlex.split(line, comments=True)
        assert program == "flowrun"
        parse_words(words)


def test_the_page_on_scripted_models(shell: Shell) -> None:
    blocks = read_blocks((DOCS / "scripted.md").read_text())
    [example] = perform(shell, blocks)
    (shell.folder / "example.yaml").write_text(example.text)
    assert len(load_replies(shell.folder / "example.yaml")) == 4
    shell.run(
        "flowrun validate --profile demo specs/hello.yaml && flowrun validate specs", ["2 specs checked: no issues"]
    )
    page = (DOCS / "scripted.md").read_text()
    assert not [name for name in ScriptedReply.__struct_fields__ if f"`{name}`" not in page]


@pytest.mark.slow
def test_the_page_on_tests(shell: Shell) -> None:
    """Each fragment is the tests of a file of its own, beside the spec of a new project."""
    shell.run("flowrun init shop && flowrun init mail --kind approval && cd shop", [])
    root = shell.folder.parent
    fragments = 0
    for number, block in enumerate(perform(shell, read_blocks((DOCS / "tests.md").read_text()))):
        flow = "mail" if block.note == TESTS_OF_MAIL else "shop"
        tests = yaml.safe_load(block.text)
        file = root / flow / "specs" / f"{number}.test.yaml"
        file.write_text(json.dumps({"flow": f"{flow}.yaml", "tests": tests}))
        shell.run(f"flowrun test {file}", [f"{len(tests)} passed, 0 failed, 0 skipped"])
        fragments += 1
    assert fragments == 4


def test_the_page_on_tools(shell: Shell) -> None:
    assert list(perform(shell, read_blocks((DOCS / "tools.md").read_text()))) == []


def test_the_page_on_calls_says_what_is_so(shell: Shell) -> None:
    assert list(perform(shell, read_blocks((DOCS / "calls.md").read_text()))) == []


def test_the_page_on_messages(shell: Shell) -> None:
    assert list(perform(shell, read_blocks((DOCS / "messages.md").read_text()))) == []


def test_the_page_on_failures(shell: Shell) -> None:
    assert list(perform(shell, read_blocks((DOCS / "failures.md").read_text()))) == []


def test_the_page_on_decisions(shell: Shell) -> None:
    assert list(perform(shell, read_blocks((DOCS / "decisions.md").read_text()))) == []


def test_the_page_on_training_shows_lines_of_its_script(shell: Shell) -> None:
    """They need a model and a quarter of an hour, so click reads those of flowrun; and the spec is a valid one."""
    script = (DOCS / "training" / "circle.sh").read_text().splitlines()
    blocks = [block for block in read_blocks((DOCS / "training.md").read_text()) if block.kind == "sh"]
    commands = [line for block in blocks for line, _ in read_commands(block)]
    assert [line for line in commands if line not in ("docs/training/circle.sh", *script)] == []
    for program, verb, *words in map(shlex.split, commands[1:]):
        if program == "flowrun":
            import_module(f"flowrun.cli.{verb}").command.make_context(verb, words)
    for folder in ("docs/training", "specs/templates", "tools"):
        shutil.copytree(DOCS.parent / folder, shell.folder / folder, ignore=shutil.ignore_patterns("out"))
    shell.run("flowrun validate docs/training # exits with 1", ["…FR706  model.adapter"])
    (shell.folder / "docs" / "training" / "out" / "adapter").mkdir(parents=True)
    shell.run("flowrun validate docs/training", ["1 spec and 2 evals checked: no issues"])


def test_the_page_on_telemetry(shell: Shell) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")
    [printed] = perform(shell, read_blocks((DOCS / "telemetry.md").read_text()))
    shell.run(f"{sys.executable} traces.py", printed.text.splitlines())


def test_the_page_on_langgraph_has_the_lines_of_today() -> None:
    assert "\n\n{}\n\n".format("\n".join(table())) in (DOCS / "langgraph.md").read_text()


def test_the_first_step_of_the_readme(shell: Shell) -> None:
    """And the spec that it shows is one: beside the function and the schema that the example weather has."""
    blocks = read_blocks((DOCS.parent / "README.md").read_text())
    spec, first_step = blocks[:2]
    shell.run_block(first_step)
    write_project(shell.folder / "weather", copy_example("weather"))
    (shell.folder / "weather" / "specs" / "weather.yaml").write_text(spec.text)
    shell.run("flowrun validate weather", ["1 spec checked: no issues"])


def test_every_command_of_the_readme_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DOCS.parent)
    blocks = [block for block in read_blocks((DOCS.parent / "README.md").read_text()) if block.kind == "sh"]
    commands = [line.partition("&&")[0] for block in blocks for line, _ in read_commands(block) if "flowrun " in line]
    for command in commands:
        program, verb, *words = shlex.split(command, comments=True)
        assert program in ("flowrun", ".venv/bin/flowrun")
        verb, words = (verb, words) if verb in VERBS else ("run", [verb, *words])
        import_module(f"flowrun.cli.{verb}").command.make_context(verb, words)
    assert len(commands) >= 15


def properties_of(schema: Any) -> set[str]:
    """Return the names of all properties in a schema."""
    if isinstance(schema, list):
        return set().union(*map(properties_of, schema))
    if not isinstance(schema, dict):
        return set()
    own = set(schema["properties"]) if isinstance(schema.get("properties"), dict) else set()
    return own.union(*(properties_of(part) for part in schema.values()))


def test_the_page_on_tests_names_every_property() -> None:
    page = (DOCS / "tests.md").read_text()
    words = set(re.findall(r"[\w.]+", page))
    assert properties_of(read_schema(TEST_SCHEMA)) - words == {"id"}


def test_links_lead_to_files() -> None:
    pages = [*DOCS.glob("*.md"), *DOCS.parent.glob("*.md")]
    broken = [
        (page.name, target)
        for page in pages
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


@pytest.mark.slow
def test_the_page_on_evaluations(shell: Shell) -> None:
    blocks = read_blocks((DOCS / "evals.md").read_text())
    assert [block.kind for block in perform(shell, blocks)] == ["sh"]
    assert sum(block.kind == "console" for block in blocks) == 2
