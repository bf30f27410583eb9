"""An exception over one file, one row or one test costs that one; and what validate never does."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from flowrun.errors import Issue, SpecError
from flowrun.runtime import project
from flowrun.runtime.project import Project
from flowrun.spec import find_project, may_be_spec
from flowrun.testing.load import load_suite
from flowrun.testing.session import SpecTestSession
from tests.unit.cli.test_cli import flowrun

HEADER = "flowrun: v1\nname: t\nversion: 1.0.0\n"
END = "states: {done: {type: end}}\n"


def issues_of(path: Path, **more: Any) -> list[Issue]:
    return Project(**{"require_environment": False, **more}).check(path, imports=False)


def boom(*args: object, **kwargs: object) -> Any:
    raise RuntimeError("boom \x1b[2K")


def test_a_crash_on_one_spec_is_an_issue_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(HEADER + END)
    monkeypatch.setattr(project, "check_spec", boom)
    (issue,) = issues_of(spec)
    assert (issue.code, issue.place.file, "boom" in issue.message) == ("FR901", str(spec), True)


def test_a_file_that_cannot_be_read_is_an_issue(tmp_path: Path) -> None:
    assert [issue.code for issue in issues_of(tmp_path / "none.yaml")] == ["FR706"]


def test_a_crash_in_one_test_fails_that_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.yaml").write_text(HEADER + END)
    (tmp_path / "t.test.yaml").write_text("flow: t.yaml\ntests: [{name: a}, {name: b}]\n")
    suite = load_suite(tmp_path / "t.test.yaml")
    with SpecTestSession() as session, monkeypatch.context() as patch:
        patch.setattr("flowrun.testing.session.compare", boom)
        broken = session.run(suite, suite.cases[0])
        patch.undo()
        assert session.run(suite, suite.cases[1]).status == "passed"
    assert broken.status == "failed"
    assert "bug in flowrun" in broken.problems[0].what


def test_a_batch_continues_after_rows_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        HEADER + "inputs: {q: {}}\nstates: {done: {type: end, output: '{{ inputs.q }}'}}\n"
    )
    rows = ['{"q": "\\ud83d"}', '{"q": "ok"}', '{"q": 1e999}', '{"q": ' + "[" * 2000 + "]" * 2000 + "}", '{"q": 10}']
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    for _ in range(2):  # begun again it has nothing left to do
        done = flowrun("batch", "-q", "s.yaml", "rows.jsonl", "-o", "out.jsonl", cwd=tmp_path)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
    results = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {one["row"]: one["status"] for one in results} == {
        1: "failed",
        2: "succeeded",
        3: "failed",
        4: "failed",
        5: "succeeded",
    }


@pytest.mark.parametrize(
    "words",
    [
        ("run", "s.yaml", "--inputs", "in.json"),
        ("run", "s.yaml", "-i", "q=\udcff"),
        ("run", "s.yaml", "-i", 'n="\\ud83d"'),
        ("run", "s.yaml", "-i", "n=1e999"),
        ("run", "e.yaml"),
    ],
)
def test_values_that_are_no_text_are_wrong_usage(tmp_path: Path, words: tuple[str, ...]) -> None:
    end = "states: {done: {type: end, output: '{{ inputs.q }}'}}\n"
    (tmp_path / "s.yaml").write_text(
        f"{HEADER}inputs: {{q: {{type: string, default: a}}, n: {{type: number, default: 1}}}}\n{end}"
    )
    (tmp_path / "e.yaml").write_text(f"{HEADER}model: {{backend: scripted, name: '${{ODD}}'}}\n{END}")
    (tmp_path / "in.json").write_text('{"q": "\\ud83d"}')
    done = flowrun(*words, cwd=tmp_path, ODD="\udcff")
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr


# --- what lies elsewhere ----------------------------------------------------------------------------------------------


@pytest.fixture
def asked() -> Iterator[list[str]]:
    """Give the paths that a server is asked for; its address stands in ``asked[0]``, and is taken out."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    paths.append(f"http://127.0.0.1:{server.server_port}")
    yield paths
    server.shutdown()
    server.server_close()


PLACES = {
    "input": "inputs: {n: {SCHEMA}}\n" + END,
    "input in a sub-flow": "flows: {f: {inputs: {n: {SCHEMA}}, states: {done: {type: end}}}}\n"
    "states: {go: {type: flow, flow: '#f', with: {n: 1}, next: done}, done: {type: end}}\n",
    "wait": "states: {ok: {type: wait, prompt: a, schema: {SCHEMA}, next: done}, done: {type: end}}\n",
    "tool": "model: {backend: scripted, name: r.yaml}\n"
    "tools: {f: {entrypoint: 'a:f', parameters: {type: object, INNER}}}\nmessages: [{role: user, content: a}]\n",
    "response_format": "model: {backend: scripted, name: r.yaml}\nmessages: [{role: user, content: a}]\n"
    "states: {ask: {type: chat, response_format: {schema: {SCHEMA}}, next: done}, done: {type: end}}\n",
}
SCHEMAS = {
    "$ref": '$ref: "URL/n.json"',
    "deep $ref": 'properties: {a: {anyOf: [{$ref: "URL/n.json#/x"}]}}',
    "$ref that nothing uses": '$defs: {a: {$ref: "URL/n.json"}}',
    "relative to $id": '$id: "URL/a.json", $ref: "b.json"',
    "$schema": '$schema: "URL/schema"',
    "$schema inside": '$defs: {a: {$id: "x", $schema: "URL/schema"}}',
    "$dynamicRef": '$dynamicRef: "URL/n.json#a"',
    "file": '$ref: "file:///etc/passwd"',
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("schema", SCHEMAS)
def test_nothing_is_fetched_for_a_schema(tmp_path: Path, asked: list[str], place: str, schema: str) -> None:
    (tmp_path / "r.yaml").write_text("replies: []\n")
    url = asked.pop(0)
    spec = tmp_path / "spec.yaml"
    inner = SCHEMAS[schema].replace("URL", url)
    text = PLACES[place].replace("{SCHEMA}", "{" + inner + "}").replace("INNER", inner)
    spec.write_text(HEADER + text)
    (tmp_path / "r.yaml").write_text("replies: []\n")
    assert [issue.code for issue in issues_of(spec) if issue.severity == "error"] == ["FR505"]
    assert asked == []


def test_files_outside_of_the_project_are_not_read(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "specs").mkdir(parents=True)
    (project / "pyproject.toml").touch()
    inner = HEADER + END
    (tmp_path / "outside.yaml").write_text("secret: hunter-2 : { [\nflowrun: v1\n")
    (project / "inside.yaml").write_text(inner)
    (project / "notes.txt").write_text("secret: hunter-2 : { [\n")
    (project / "link.yaml").symlink_to(tmp_path / "outside.yaml")
    spec = project / "specs" / "spec.yaml"
    found = {}
    for name in (
        "../inside.yaml",
        "../../outside.yaml",
        "../link.yaml",
        "../notes.txt",
        str(tmp_path / "outside.yaml"),
    ):
        spec.write_text(HEADER + f"states: {{go: {{type: flow, flow: {name}, next: done}}, done: {{type: end}}}}\n")
        issues = issues_of(spec)
        assert "hunter" not in str(issues)
        assert [issue.place.file for issue in issues] == [str(spec)] * len(issues)
        found[Path(name).name] = [issue.code for issue in issues]
    assert found == {"inside.yaml": [], "outside.yaml": ["FR709"], "link.yaml": ["FR709"], "notes.txt": ["FR709"]}
    with pytest.raises(SpecError, match="outside of the project"):
        Project().compile(spec)


def test_where_a_project_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tmp_path / "a" / "b" / "spec.yaml"
    spec.parent.mkdir(parents=True)
    spec.touch()
    assert find_project(spec) == tmp_path / "a" / "b"
    monkeypatch.chdir(tmp_path)
    assert find_project(spec) == tmp_path
    (tmp_path / "a" / ".git").mkdir()
    assert find_project(spec) == tmp_path / "a"
    assert find_project(spec, tmp_path) == tmp_path
    assert find_project(spec, Path("/usr")) == tmp_path / "a" / "b"


def test_scripted_replies_lie_in_the_project(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "replies.yaml").write_text("secret: hunter-2 : { [\n")
    (project / "notes.yaml").write_text("secret: hunter-2 : { [\n")
    spec = HEADER + "model: {backend: scripted, name: ../replies.yaml}\nmessages: [{role: user, content: a}]\n"
    (project / "spec.yaml").write_text(spec)
    done = flowrun("run", "spec.yaml", cwd=project)
    assert done.returncode == 1
    assert "outside of the project" in done.stderr
    assert "hunter" not in done.stderr
    (project / "spec.yaml").write_text(spec.replace("../replies", "notes"))
    done = flowrun("run", "spec.yaml", cwd=project)
    assert (done.returncode, "is no file of scripted replies" in done.stderr) == (1, True)
    assert "hunter" not in done.stderr


def test_a_key_deep_in_a_file_makes_no_spec_of_it() -> None:
    assert may_be_spec(b"flowrun: v1\n")
    assert may_be_spec(b"'flowrun' : v1\n")
    assert may_be_spec(b'{"name": "a", "flowrun": "v1"}')
    assert not may_be_spec(b"secrets:\n  flowrun: hunter-2\n")
    assert not may_be_spec(b'{"a": {"flowrun": "hunter-2"}}')


def test_names_of_files_that_are_no_text_cost_one_test_file(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(HEADER + END)
    (tmp_path / "t.test.yaml").write_text("flow: t.yaml\ntests: [{name: a}]\n")
    (tmp_path / "u.test.yaml").write_text('flow: "a\\0.yaml"\ntests: [{name: a}]\n')
    (tmp_path / "v.test.yaml").write_text("flow: t.yaml\ntests: [{name: a, cassette: c.jsonl}]\n")
    (tmp_path / "c.jsonl").write_bytes(b'{"caf\xe9": 1}\n')
    (tmp_path / "w.test.yaml").mkdir()
    done = flowrun("test", ".", cwd=tmp_path)
    assert (done.returncode, "1 passed" in done.stdout + done.stderr) == (1, True)
    assert "Traceback" not in done.stderr
    odd = flowrun("run", os.fsdecode(b"a\xff.yaml"), cwd=tmp_path)
    assert (odd.returncode, "no valid Unicode" in odd.stderr) == (2, True)
