"""A new kind of state needs its struct, its module and its schema: all else knows it by them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from flowrun.cli import app
from flowrun.core.state_node import StateNode
from flowrun.core.states import KINDS, Compiler, StateKind
from flowrun.spec import schema
from flowrun.spec.model import STATES, Holds, Template, WorkingState
from flowrun.spec.parts import parts_of
from tests import repeat_state

SPEC = """\
flowrun: v1
name: echo
version: 1.0.0
inputs: {word: {type: string}}
states:
  twice:
    type: repeat
    text: "{{ inputs.word }}-"
    times: 2.0
    set: {said: "{{ outputs.twice }}"}
    routes:
      - {when: "vars.said == 'no-no-'", to: refused}
      - {to: done}
    catch: [{errors: [template.failed], to: refused}]
  refused: {type: end, status: failed}
  done: {type: end, output: "{{ vars.said }}"}
"""

TESTS = """\
flow: echo.yaml
tests:
  - name: repeats
    inputs: {word: ha}
    expect: {output: ha-ha-, path: [twice, done]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder with a spec of the new kind and its test; the kind is there until the test ends."""
    extended = json.loads(json.dumps(schema.read_schema(schema.FLOW_SCHEMA)))
    repeat_state.add_to_schema(extended)
    (tmp_path / "flow.schema.json").write_text(json.dumps(extended))
    find = schema.find_schema
    monkeypatch.setattr(
        schema, "find_schema", lambda name: tmp_path / "flow.schema.json" if name == schema.FLOW_SCHEMA else find(name)
    )
    monkeypatch.setitem(STATES, repeat_state.KIND.name, repeat_state.RepeatState)
    monkeypatch.setitem(KINDS, repeat_state.KIND.name, repeat_state.KIND)
    (tmp_path / "echo.yaml").write_text(SPEC)
    (tmp_path / "echo.test.yaml").write_text(TESTS)
    clear_schemas()
    yield tmp_path
    clear_schemas()


def clear_schemas() -> None:
    schema.read_schema.cache_clear()
    schema._validator.cache_clear()


def flowrun(*words: object) -> tuple[int, str]:
    """Run a verb in this process; return its exit code and what it printed."""
    done = CliRunner().invoke(app, list(map(str, words)), standalone_mode=False, catch_exceptions=False)
    return done.return_value, done.stdout


def edited(folder: Path, old: str, new: str) -> Path:
    assert SPEC.count(old) == 1
    spec = folder / "echo.yaml"
    spec.write_text(SPEC.replace(old, new))
    return spec


def test_it_is_valid(folder: Path) -> None:
    assert flowrun("validate", folder / "echo.yaml") == (0, "")


@pytest.mark.parametrize(
    ("old", "new", "issue"),
    [
        pytest.param("times: 2.0", "times: 0", "FR206  states.twice.times", id="schema: range"),
        pytest.param("times: 2.0", "tims: 2", "FR201  states.twice.tims", id="schema: unknown property"),
        pytest.param("inputs.word", "inputs.wort", "FR404  states.twice.text", id="template: unknown member"),
        pytest.param("{{ inputs.word }}", "{{ inputs.word", "FR401  states.twice.text", id="template: syntax"),
        pytest.param("outputs.twice }}", "outputs.twice.x }}", "FR404  states.twice.set.said", id="shape of output"),
        pytest.param("to: done}", "to: gone}", "FR701  states.twice.routes[1].to", id="route to no state"),
    ],
)
def test_its_mistakes_are_issues(folder: Path, old: str, new: str, issue: str) -> None:
    code, report = flowrun("validate", edited(folder, old, new), "--format", "text")
    assert (code, issue in report) == (1, True), report


@pytest.mark.parametrize(
    ("format", "box"),
    [
        ("text", "▶ twice    repeat · 2 times\n    1 → refused  when vars.said == 'no-no-'\n"),
        ("mermaid", '    s_twice{{"<b>twice</b><br/>repeat · 2 times"}}\n'),
        ("mermaid", "    classDef k_repeat fill:#ffffee,stroke:#aaaa00,color:#1f2328\n"),
        ("dot", 'shape="hexagon", style="filled", fillcolor="#ffffee", color="#aaaa00", tooltip="repeat · 2 times"]\n'),
        ("svg", ".repeat .shape { fill: #ffffee; stroke: #aaaa00; }"),
        ("svg", ".repeat .shape { fill: #111100; stroke: #dddd00; }"),
        ("svg", '<g class="node repeat"'),
    ],
)
def test_it_is_drawn(folder: Path, format: str, box: str) -> None:
    code, drawing = flowrun("graph", folder / "echo.yaml", "--format", format)
    assert (code, box in drawing) == (0, True), drawing


def test_it_runs(folder: Path) -> None:
    assert flowrun("run", folder / "echo.yaml", "-i", "word=ha", "-q") == (0, "ha-ha-\n")


def test_its_failure_is_caught(folder: Path) -> None:
    spec = edited(folder, "{{ inputs.word }}", "{{ inputs.word | int / 0 }}")
    code, result = flowrun("run", spec, "-i", "word=ha", "-q", "--json")
    assert (code, json.loads(result)["path"]) == (1, ["twice", "refused"])


def test_it_is_covered(folder: Path) -> None:
    code, report = flowrun("test", folder, "--coverage")
    spec = folder / "echo.yaml"
    assert (code, report[report.index("coverage") :]) == (
        0,
        f"""\
coverage of states and edges
  {spec}   50%  3 of 6
    {spec}:12:9  twice.routes[0], to refused, is never taken
    {spec}:14:13  twice.catch[0], to refused, is never taken
    {spec}:15:3  state refused is never entered
  all{" " * (len(str(spec)) - 3)}   50%  3 of 6

1 passed, 0 failed, 0 skipped
""",
    )


def test_it_is_in_transcripts(folder: Path) -> None:
    journal = folder / "journal.sqlite"
    code, result = flowrun(
        "run", folder / "echo.yaml", "-i", "word=ha", "-q", "--json", "--durable", "--journal", journal
    )
    assert code == 0
    run = json.loads(result)["run"]
    code, text = flowrun("show", run, "--journal", journal)
    assert (code, "twice  repeat" in text, "said" in text) == (0, True, True), text
    code, data = flowrun("show", run, "--journal", journal, "--json")
    assert [(visit["state"], visit["type"]) for visit in json.loads(data)["visits"]] == [
        ("twice", "repeat"),
        ("done", "succeeded"),
    ]
    page = folder / "run.html"
    assert flowrun("show", run, "--journal", journal, "--html", page)[0] == 0
    html = page.read_text(encoding="utf-8")
    assert ".k-repeat { --tint: #ffffee; --accent: #aaaa00; }" in html
    assert "k-repeat" in html.partition("</style>")[2]


def test_it_is_in_the_reference(folder: Path) -> None:
    code, reference = flowrun("schema", "--doc")
    assert (code, "## repeat state" in reference) == (0, True)
    properties = "`set`, `say`, `routes`, `retry`, `timeout`, `catch`, `text`"
    assert f"| `repeat` | {properties} |  | the text, repeated |" in reference


def test_it_is_gone_afterwards() -> None:
    assert "repeat" not in STATES
    assert "repeat" not in KINDS


class SilentState(WorkingState, frozen=True, kw_only=True, tag="silent"):
    """A state that does not say whom it asks."""


class ReplyState(WorkingState, frozen=True, kw_only=True, tag="reply"):
    """A state that gives a reply without what chat states have."""

    asks = "model"
    result = "reply"


@pytest.mark.parametrize(
    ("struct", "message"),
    [
        (SilentState, "SilentState must set 'asks'"),
        (ReplyState, "ReplyState gives a reply, so it must be a ChatState"),
    ],
    ids=["asks", "reply"],
)
def test_an_incomplete_struct_fails_at_import(struct: type[WorkingState], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        StateKind(struct=struct, compile=compile_nothing, output="", looks={})


def compile_nothing(name: str, state: WorkingState, compiler: Compiler) -> StateNode:
    raise NotImplementedError


def test_parts_are_looked_for_in_types_of_specs_only() -> None:
    with pytest.raises(TypeError, match="has parts, and is no struct, tuple or Mapping"):
        list(parts_of([], Holds.TEMPLATE, list[Template]))


@pytest.mark.parametrize("missing", ["struct", "module"])
def test_a_struct_without_a_module_fails_at_import_and_a_module_without_a_struct(missing: str) -> None:
    break_it = {"struct": "del model.STATES['wait']", "module": "model.STATES['silent'] = model.WorkingState"}[missing]
    program = f"from flowrun.spec import model\n{break_it}\nimport flowrun.core.states"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "core.states and spec.model.STATES differ" in done.stderr) == (1, True)
