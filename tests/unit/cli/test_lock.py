"""``flowrun lock`` writes which models a spec runs; runs compare, and with ``--locked`` refuse."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import flowrun
from flowrun.backends.vllm import described
from flowrun.batch.distributed.replica import HostedReplica, ReplicaConfig, ReplicaStart
from flowrun.cli.diff import command as diff
from flowrun.cli.lock import command
from flowrun.errors import BackendError, UsageError
from flowrun.runtime.engines import BackendSettings, Engines
from flowrun.runtime.project import Project
from flowrun.runtime.stored_flow import store_flow
from flowrun.testing import ScriptedModel
from tests.unit.backends.vllm.test_described import write_model

SPEC = """\
flowrun: v1
name: greet
version: 1.0.0
model: {name: ./model, tool_call_parser: hermes}
messages: [{role: user, content: Hello.}]
start: ask
states:
  ask: {type: chat, next: inner}
  inner: {type: flow, flow: "#inner", next: done}
  done: {type: end, output: {said: "{{ outputs.ask.content }}"}}
flows:
  inner:
    messages: [{role: user, content: Hello.}]
    models: {default: {backend: openai, name: m, base_url: "http://localhost:1/v1"}, own: {name: ./other}}
    states:
      ask: {type: chat, model: own, next: done}
      done: {type: end, output: {}}
profiles:
  large: {model: {name: ./other, tool_call_parser: hermes}}
  server: {model: {backend: openai, name: m, base_url: "http://localhost:1/v1"}}
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a spec with two models in folders; the current folder is its folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(described, "installed_vllm", lambda: "0.32.0")
    write_model(tmp_path / "model", chat_template__jinja=b"{{ messages }}")
    write_model(tmp_path / "other")
    (tmp_path / "pyproject.toml").touch()
    path = tmp_path / "greet.yaml"
    path.write_text(SPEC)
    return path


def lock(*words: str) -> Result:
    return CliRunner().invoke(command, ["greet.yaml", *words], standalone_mode=False)


def member() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("greet.lock.json").read_text())["model"]
    return found


def test_writes_each_model_that_runs_in_this_process(spec: Path) -> None:
    done = lock()
    assert (done.return_value, done.stderr) == (0, "default is new\ninner/own is new\ngreet.lock.json: 2 models\n")
    assert list(member()) == ["default", "inner/own"]
    assert member()["default"]["tool_call_parser"] == "hermes"
    again = lock()
    assert (again.return_value, again.stderr) == (0, "greet.lock.json: nothing changed\n")


def test_a_profile_has_entries_of_its_own(spec: Path) -> None:
    lock()
    assert lock("--profile", "large").return_value == 0
    assert list(member()) == ["default", "default@large", "inner/own", "inner/own@large"]
    assert lock("--profile", "server").return_value == 0
    assert list(member()) == ["default", "default@large", "inner/own", "inner/own@large", "inner/own@server"]


def test_check_writes_nothing_and_says_what_differs(spec: Path) -> None:
    lock()
    before = Path("greet.lock.json").read_text()
    assert lock("--check").return_value == 0
    write_model(spec.parent / "model", chat_template__jinja=b"{{ other }}")
    done = lock("--check")
    assert done.return_value == 1
    assert [line.partition(" is ")[0] for line in done.stderr.splitlines()] == [
        "default: chat_template",
        "default: files chat_template.jinja",
        "greet.lock.json",
    ]
    assert done.stderr.endswith("greet.lock.json is not what is here: flowrun lock greet.yaml\n")
    assert Path("greet.lock.json").read_text() == before


def test_the_tools_of_servers_stay_in_the_lock(spec: Path) -> None:
    servers: dict[str, Any] = {"files": {"server": {}, "tools": []}}
    Path("greet.lock.json").write_text(json.dumps({"mcp": servers}))
    lock()
    assert json.loads(Path("greet.lock.json").read_text())["mcp"] == servers


def test_models_that_have_gone_leave_the_lock(spec: Path) -> None:
    lock()
    spec.write_text(SPEC.replace(", own: {name: ./other}", "").replace("model: own, ", ""))
    assert lock().stderr == "inner/own has gone\ngreet.lock.json: 1 model\n"
    assert list(member()) == ["default"]


@pytest.mark.parametrize(
    ("text", "lock_text", "error", "message"),
    [
        pytest.param(
            SPEC.replace("./model", "./gone").replace("./other}}", "./lost}}"),
            None,
            BackendError,
            "^default: model not found: there is no (.|\n)*\ninner/own: model not found",
            id="models-that-are-not-here",
        ),
        pytest.param(SPEC, "{", UsageError, "greet.lock.json cannot be read: .*: delete it, or mend it", id="broken"),
        pytest.param(
            SPEC, '{"model": {"a": 1}}', UsageError, "Expected `object`, got `int`.*delete it", id="another-form"
        ),
        pytest.param(
            SPEC.replace("{name: ./model, ", "{backend: scripted, name: a.yaml} # ").partition("start:")[0],
            None,
            UsageError,
            "greet.yaml has no model that runs in this process",
            id="nothing-to-lock",
        ),
    ],
)
def test_refuses(spec: Path, text: str, lock_text: str | None, error: type[Exception], message: str) -> None:
    spec.write_text(text)
    if lock_text is not None:
        Path("greet.lock.json").write_text(lock_text)
    with pytest.raises(error, match=message):
        raise lock().exception or AssertionError("nothing was refused")


# --- runs ----------------------------------------------------------------------------------------------------------


class Started(Exception):
    """Raised where the first engine would be started."""


class NoEngines(Engines):
    async def _backend(self, flow: Any, name: str) -> Any:
        raise Started


async def start(profile: str | None = None, *, locked: bool) -> list[str]:
    """Begin to run the flow, and return what is noted before the first engine starts."""
    notes: list[str] = []
    flow = Project().compile(Path("greet.yaml"), profile=profile)
    engines = NoEngines(BackendSettings(locked=locked, note=notes.append))
    for _ in range(2):  # what was said is not said again
        with pytest.raises(Started):
            await engines.start_for(flow)
    return notes


def run(profile: str | None = None, *, locked: bool = False) -> list[str]:
    return asyncio.run(start(profile, locked=locked))


ELSEWHERE = "m runs elsewhere (backend: openai), where nothing is locked"


def test_a_run_of_what_is_locked_says_nothing(spec: Path) -> None:
    lock()
    assert run() == []
    assert run(locked=True) == []


def test_a_run_without_a_lock_says_nothing(spec: Path) -> None:
    assert run() == []


def test_a_run_says_what_differs_once(spec: Path) -> None:
    lock()
    write_model(spec.parent / "model", chat_template__jinja=b"{{ other }}", config__json=b"[]")
    assert [note.partition(" is ")[0] for note in run()] == [
        "not as locked: default: chat_template",
        "not as locked: default: files chat_template.jinja",
        "not as locked: default: files config.json",
    ]


def test_locked_refuses_by_all_differences(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock()
    write_model(spec.parent / "model", model__safetensors=b"other weights")
    monkeypatch.setattr(described, "installed_vllm", lambda: "0.33.0")
    with pytest.raises(BackendError) as raised:
        run(locked=True)
    lines = str(raised.value).splitlines()
    assert lines[0] == "--locked: the models of greet.yaml are not those of its lock:"
    assert [line.partition(" is ")[0] for line in lines[1:-1]] == [
        "- default: files model.safetensors",
        "- default: vllm",
        "- inner/own: vllm",
    ]
    assert lines[-1] == "if that is meant, write it down: flowrun lock greet.yaml"


def test_locked_refuses_what_no_lock_has(spec: Path) -> None:
    with pytest.raises(
        BackendError, match=r"- default is not in greet.lock.json\n- inner/own is not in greet.lock.json"
    ):
        run(locked=True)
    lock()
    with pytest.raises(BackendError, match=r"flowrun lock greet.yaml --profile large"):
        run("large", locked=True)


def test_what_runs_elsewhere_is_not_locked(spec: Path) -> None:
    lock()
    assert run("server", locked=True) == [ELSEWHERE]
    assert run("server") == []


def test_what_stands_for_a_model_is_not_compared(spec: Path) -> None:
    replies = ScriptedModel([{"content": "hi"}, {"content": "ho"}])
    flow = flowrun.load("greet.yaml").with_model("default", replies).with_model("own", replies)

    async def run_locked() -> Any:
        async with flowrun.Session(locked=True) as session:
            return await session.run(flow)

    assert asyncio.run(run_locked()).output == {"said": "hi"}


def test_a_replica_compares_what_is_on_its_host_with_the_lock_of_the_batch(spec: Path) -> None:
    lock()
    stored = store_flow(Project().compile(Path("greet.yaml")))
    Path("greet.lock.json").unlink()  # the other host has the models, and not the spec
    write_model(spec.parent / "model", config__json=b"[]")

    async def start_replica() -> ReplicaStart:
        return await HostedReplica(lambda: stored.prepare({}), ReplicaConfig(locked=True)).start(1)

    assert "default: files config.json is 2 bytes" in str(asyncio.run(start_replica()).error)


@pytest.mark.parametrize("words", [["run", "greet.yaml"], ["batch", "greet.yaml", "rows.jsonl", "-o", "out.jsonl"]])
def test_the_verbs_take_locked(spec: Path, words: list[str]) -> None:
    Path("rows.jsonl").write_text("{}\n")
    done = subprocess.run(
        [sys.executable, "-m", "flowrun", *words, "--locked"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
        check=False,
    )
    assert (done.returncode, "default is not in greet.lock.json" in done.stderr) == (1, True), done.stderr


# --- what else reads it ---------------------------------------------------------------------------------------------


def test_diff_shows_what_changed_in_the_lock(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock()
    Path("old.yaml").write_text(SPEC)
    Path("greet.lock.json").rename("old.lock.json")
    write_model(spec.parent / "model", model__safetensors=b"other weights")
    monkeypatch.setattr(described, "installed_vllm", lambda: "0.33.0")
    lock("--profile", "large")
    lock()
    done = CliRunner().invoke(diff, ["old.yaml", "greet.yaml", "--format", "json"], standalone_mode=False)
    (compared,) = json.loads(done.stdout)
    assert [(change["impact"], change["path"], change["what"]) for change in compared["changes"]] == [
        ("internal", "lock.default.files.model.safetensors", "changed"),
        ("internal", "lock.default.vllm", "changed"),
        ("internal", "lock.default@large", "model locked"),
        ("internal", "lock.inner/own.vllm", "changed"),
        ("internal", "lock.inner/own@large", "model locked"),
    ]
    assert compared["verdict"]["needed"] == "1.0.1"


def test_records_say_what_was_locked(spec: Path) -> None:
    def models_of_records() -> Any:
        return Project().compile(spec).origin.data["models"]

    assert models_of_records()["default"] == {"backend": "vllm", "name": "./model"}
    lock()
    models = models_of_records()
    assert models["default"]["locked"] == {"digest": models["default"]["locked"]["digest"], "vllm": "0.32.0"}
    assert len(models["default"]["locked"]["digest"]) == 16
