"""The command line in processes of its own: their streams and exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flowrun.version import __version__
from tests.records import outcome_of

ROOT = Path(__file__).parents[3]
CASES = ROOT / "tests" / "cases" / "runs"


def flowrun(*words: str, cwd: Path = ROOT, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flowrun", *words],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", **environ},
        timeout=60,
        check=False,
    )


def test_version() -> None:
    done = flowrun("--version")
    assert (done.returncode, done.stdout) == (0, f"flowrun {__version__}\n")


def test_stdout_holds_the_answer_only() -> None:
    done = flowrun(str(CASES / "rough_tools" / "spec.yaml"))
    assert (done.returncode, done.stdout) == (0, "I am still here.\n")
    assert done.stderr.count("NOT THE ANSWER") >= 3


def test_the_full_result() -> None:
    spec = "tests/cases/runs/call_and_route/spec.yaml"
    done = flowrun("run", spec, "-i", "number=5", "--json", "--quiet")
    result = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert result.pop("run")
    expected = json.loads((CASES / "call_and_route" / "expected.json").read_text())
    assert outcome_of(result) == {key: value for key, value in expected.items() if key != "run"}


def test_inputs_from_a_file_and_from_options() -> None:
    spec = "tests/cases/runs/call_and_route/spec.yaml"
    assert json.loads(flowrun(spec, "--inputs", "-", stdin='{"number": 20}').stdout) == {"number": 40, "tries": 1}
    done = flowrun(spec, "--inputs", "-", "-i", "number=40", stdin='{"number": 20}')
    assert json.loads(done.stdout) == {"number": 80, "tries": 1}


def test_a_failed_run() -> None:
    done = flowrun("tests/cases/runs/truncated/spec.yaml", "--quiet")
    assert done.returncode == 1
    assert done.stdout.startswith("model.truncated: ")
    assert "flow.failed in state gave_up" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["nothing.yaml"], "there is no file nothing.yaml", id="no file"),
        pytest.param(["nonsense"], "'nonsense' is neither a verb nor the path of a spec", id="no verb"),
        pytest.param(["validte", "specs/"], "such as FILE.yaml; did you mean 'validate'?", id="a misspelt verb"),
        pytest.param(["specs/wether.yaml"], "there is no file specs/wether.yaml", id="a misspelt spec"),
        pytest.param(["validate", "no/where"], "'no/where' does not exist", id="no path"),
        pytest.param(["validate", "schemas"], "no spec in schemas", id="no spec"),
        pytest.param(["specs/weather.yaml", "-i", "city=x"], "has no input 'city'; it has: question", id="no input"),
        pytest.param(["specs/weather.yaml", "-i", "question"], "write it as NAME=VALUE", id="no value"),
        pytest.param(
            ["tests/cases/runs/call_and_route/spec.yaml", "-i", "number=five"], "is no JSON", id="not of its type"
        ),
        pytest.param(["tests/cases/runs/call_and_route/spec.yaml"], '"number" is a required property', id="left out"),
        pytest.param(["specs/weather.yaml", "--profile", "nope"], "nope", id="no profile"),
        pytest.param(["specs/weather.yaml", "--frobnicate"], "No such option", id="no option"),
    ],
)
def test_wrong_usage(words: list[str], message: str) -> None:
    done = flowrun(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_inputs_are_named_with_the_options_that_give_them(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "flowrun: v1\nname: a\nversion: 1.0.0\nstates: {end: {type: end}}\ninputs:\n"
        "  city: {type: string, description: where it is}\n  n: {type: [integer, 'null']}\n"
        "  k: {type: integer, default: 1}\n"
    )
    done = flowrun("a.yaml", "-i", "k=2", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        'flowrun: the inputs do not match what a.yaml declares: "city" is a required property; "n" is a required '
        "property; say -i city=VALUE -i n=VALUE\n  city: string, where it is\n  n: integer or null\n",
    )


@pytest.mark.parametrize("verb", ["run", "validate", "graph"])
def test_a_test_given_as_a_spec_is_named(tmp_path: Path, verb: str) -> None:
    (tmp_path / "a.test.yaml").write_text("flow: a.yaml\ntests: [{name: ends}]\n")
    done = flowrun(verb, "a.test.yaml", cwd=tmp_path)
    assert (done.returncode, "this is a test: flowrun test a.test.yaml\n" in done.stderr + done.stdout) == (1, True)


def test_a_run_that_may_wait_where_nobody_is_asked_is_told_first(tmp_path: Path) -> None:
    (tmp_path / "replies.yaml").write_text("replies: [{content: a}]\n")
    (tmp_path / "a.yaml").write_text(
        "flowrun: v1\nname: a\nversion: 1.0.0\nmodel: {backend: scripted, name: replies.yaml}\n"
        "messages: [{role: user, content: Hello.}]\nstates:\n  ask: {type: chat, next: ok}\n"
        "  ok: {type: wait, prompt: Pay?, next: done}\n  done: {type: end}\n"
    )
    first = flowrun("a.yaml", cwd=tmp_path).stderr.splitlines()
    assert first[0].startswith("flowrun: state ok of a waits for an answer, and nobody can be asked here")
    assert first[1].split()[:3] == ["reply", "[ask]", "a"]
    durable = flowrun("a.yaml", "--durable", "--journal", "j.sqlite", cwd=tmp_path).stderr
    assert "nobody can be asked" not in durable


def test_a_spec_with_issues_does_not_run(tmp_path: Path) -> None:
    spec = tmp_path / "bad.yaml"
    spec.write_text("flowrun: v1\nname: bad\nversion: 1.0.0\nstates:\n  a: {type: route, next: b}\n")
    done = flowrun("bad.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "bad.yaml:5:26  FR701  states.a.next" in done.stderr


def test_validate_as_json(tmp_path: Path) -> None:
    spec = tmp_path / "bad.yaml"
    spec.write_text(
        "flowrun: v1\nname: bad\nversion: 1.0.0\nstates:\n  a: {type: route, next: ed}\n"
        "  end: {type: end, output: '{{ x }}'}\n"
    )
    done = flowrun("validate", "--format", "json", ".", cwd=tmp_path)
    assert done.returncode == 1
    assert [(i["code"], i["file"], i["line"], i["column"], i["path"]) for i in json.loads(done.stdout)] == [
        ("FR701", "bad.yaml", 5, 26, "states.a.next"),
        ("FR402", "bad.yaml", 6, 28, "states.end.output"),
    ]
    assert "1 spec checked: 2 errors, 0 warnings" in done.stderr


def test_a_secret_shows_nowhere(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "flowrun: v1\nname: s\nversion: 1.0.0\n"
        "model: {backend: openai, name: m, base_url: http://127.0.0.1:9/v1, api_key: '${KEY}'}\n"
        "messages: [{role: user, content: hi}]\n"
    )
    done = flowrun("s.yaml", "--json", cwd=tmp_path, KEY="sk-very-secret-1234")
    assert done.returncode == 1
    assert "http://127.0.0.1:9/v1" in done.stderr
    assert "sk-very-secret" not in done.stdout + done.stderr


def test_an_interrupt_ends_it_cleanly(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "flowrun: v1\nname: s\nversion: 1.0.0\nmodel: {backend: scripted, name: r.yaml}\n"
        "inputs: {who: {type: string, default: me}}\n"
        "messages: [{role: user, content: hi}]\n"
    )
    (tmp_path / "r.yaml").write_text("replies:\n  - {content: late, delay: 1h}\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "flowrun", "s.yaml"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "input" not in (line := process.stderr.readline()) and line:
        pass  # the first line shows that the run has started; an empty line is the end of the stream
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert err.strip().endswith("flowrun: interrupted")
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [["--help"], ["validate", "specs/weather.yaml"], ["doctor"]], ids=lambda w: w[0])
def test_verbs_without_a_model_import_no_packages_of_models(words: list[str]) -> None:
    code = (
        "import sys\nfrom flowrun.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as exc:\n    assert not exc.code, exc.code\n"
        "heavy = {'torch', 'vllm', 'openai', 'transformers', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_work_ends_it_without_a_traceback(number: signal.Signals) -> None:
    code = (
        "import atexit, os\nfrom flowrun.cli import main\n"
        f"atexit.register(os.kill, os.getpid(), {int(number)})\nmain(['--version'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (-number, "")


def test_a_signal_while_the_journal_is_closed_is_not_lost(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom flowrun.cli import main\nfrom flowrun.journal import Database\n"
        f"path, close = {str(tmp_path / 'journal')!r}, Database.close\n"
        "Database(__import__('pathlib').Path(path)).close()\n"
        "Database.close = lambda database: (os.kill(os.getpid(), signal.SIGTERM), close(database))\n"
        "main(['runs', '--json', '--journal', path])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nflowrun: interrupted\n")


def test_help_imports_only_click() -> None:
    code = (
        "import sys\nfrom flowrun.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "extra = {name.split('.')[0] for name in sys.modules} & "
        "{'yaml', 'jinja2', 'networkx', 'jsonschema', 'jsonschema_rs', 'msgspec', 'rich', 'asyncio'}\n"
        "assert not extra, extra\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_doctor_as_json() -> None:
    findings = json.loads(flowrun("doctor", "--json").stdout)
    assert {"python", "flowrun", "vllm", "gpu", "processor", "memory", "cache"} <= {f["subject"] for f in findings}


def test_a_flow_without_a_model_does_not_run_alone(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("flowrun: v1\nname: s\nversion: 1.0.0\nmessages: [{role: user, content: hi}]\n")
    done = flowrun("s.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "FR704  states\n  the flow has no model of its own" in done.stderr


def test_output_of_a_module_is_not_part_of_a_report(tmp_path: Path) -> None:
    (tmp_path / "chatty").mkdir()
    (tmp_path / "chatty" / "__init__.py").write_text("print('NOISE')\ndef greet() -> str:\n    return 'hi'\n")
    (tmp_path / "s.yaml").write_text(
        "flowrun: v1\nname: s\nversion: 1.0.0\n"
        "states:\n  a: {type: call, entrypoint: 'chatty:greet', next: e}\n  e: {type: end}\n"
    )
    done = flowrun("validate", "--format", "json", "s.yaml", cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    assert "NOISE" in done.stderr


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        pytest.param("validate", "no spec in {}: a spec is a YAML file", id="validate"),
        pytest.param("test", "no tests in {}: they are in files", id="test"),
    ],
)
def test_a_verb_without_a_path_looks_at_the_project(verb: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "specs").mkdir()
    empty = flowrun(verb, cwd=tmp_path / "specs")
    assert (empty.returncode, empty.stdout) == (2, "")
    assert message.format(tmp_path) in empty.stderr
    (tmp_path / "s.yaml").write_text("flowrun: v1\nname: s\nversion: 1.0.0\nstates: {e: {type: end}}\n")
    (tmp_path / "s.test.yaml").write_text("flow: s.yaml\ntests: [{name: ends}]\n")
    done = flowrun(verb, cwd=tmp_path / "specs")
    assert done.returncode == 0
    assert ("1 spec checked: no issues" in done.stderr) or done.stdout.startswith("../s.test.yaml .\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "spec.yaml", "--tokens"], "--tokens is for what --json prints: give --json too"),
        (["run", "spec.yaml", "--tokens", "--json", "--record", "a.yaml"], "--tokens is not for cassettes"),
        (["resume", "mine", "--tokens"], "--tokens is for what --json prints: give --json too"),
        (["resume", "--all", "--tokens", "--json"], "--tokens goes with one run: of --all, those that began with it"),
        (["answer", "mine", "--tokens"], "--tokens is for what --json prints: give --json too"),
    ],
    ids=["run", "cassettes", "resume", "all", "answer"],
)
def test_tokens_that_nothing_would_print_are_refused(words: list[str], message: str) -> None:
    refused = flowrun(*words)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert message in refused.stderr
