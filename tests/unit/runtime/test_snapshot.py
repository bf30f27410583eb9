"""A snapshot of a flow does not depend on later changes of its files."""

import shutil
from pathlib import Path

import msgspec
import pytest

from flowrun.runtime.project import CompiledFlow, Project
from flowrun.runtime.snapshot import Snapshot, take_snapshot

ROOT = Path(__file__).parents[3]
SPEC = """\
flowrun: v1
name: small
version: 1.0.0
model:
  backend: openai
  name: a
  base_url: http://localhost/v1
  api_key: ${KEY}
  timeout: ${PATIENCE:-5}
profiles:
  big: {sampling: {temperature: 1.0}}
  other: {sampling: {temperature: 0.5}}
states:
  ask: {type: chat, next: done}
  done: {type: end}
"""
ENVIRON = {"KEY": "sk-very-secret-key"}


def prepared(path: Path, *, profile: str | None = None, snapshot: Snapshot | None = None) -> CompiledFlow:
    return Project(folder=ROOT, environ=ENVIRON).compile(path, profile=profile, snapshot=snapshot)


def snapshot_of(path: Path, profile: str | None = None) -> Snapshot:
    flow = prepared(path, profile=profile)
    return take_snapshot(flow.tree, flow.graph, profile=profile)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the examples, which a test may change."""
    return Path(shutil.copytree(ROOT / "specs", tmp_path / "specs"))


@pytest.mark.parametrize("name", ["support.yaml", "map_reduce.yaml", "weather.yaml"])
def test_a_flow_is_prepared_as_it_was(project: Path, name: str) -> None:
    taken = snapshot_of(project / name)
    kept = msgspec.json.decode(msgspec.json.encode(taken), type=Snapshot)
    before = prepared(project / name)
    for path in project.glob("*.yaml"):
        path.write_text("spoiled: [")
    after = prepared(project / name, snapshot=kept)
    assert after.spec == before.spec
    assert take_snapshot(after.tree, after.graph, profile=None).digest == taken.digest


def test_tools_stay_as_they_were_declared_to_the_models(project: Path) -> None:
    spec = project / "own.yaml"
    tool = '{entrypoint: "tools.weather:get_current_weather"}'
    spec.write_text(SPEC.replace("states:", f"tools: {{look: {tool}}}\nstates:"))
    taken = snapshot_of(spec)
    (flow,) = taken.tools
    changed = msgspec.structs.replace(taken.tools[flow]["look"], description="Look somewhere.")
    kept = msgspec.structs.replace(taken, tools={flow: {"look": changed}})
    assert prepared(spec, snapshot=kept).graph.tools["look"].declaration == changed


@pytest.mark.parametrize(
    ("profile", "old", "new", "same"),
    [
        pytest.param(None, "name: small", "name: small  # the smallest", True, id="a comment"),
        pytest.param(None, "temperature: 0.5", "temperature: 0.6", True, id="a profile that is not used"),
        pytest.param("big", "temperature: 1.0", "temperature: 0.9", False, id="the profile that is used"),
        pytest.param(None, "${KEY}", '"${KEY}"', False, id="a variable's quotes"),
        pytest.param(None, "next: done", "routes: [{to: done}]", False, id="a state"),
    ],
)
def test_what_changes_the_digest(tmp_path: Path, profile: str | None, old: str, new: str, same: bool) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(SPEC)
    before = snapshot_of(path, profile).digest
    assert old in SPEC
    path.write_text(SPEC.replace(old, new))
    assert (snapshot_of(path, profile).digest == before) is same


def test_the_folder_does_not_matter(tmp_path: Path) -> None:
    digests = set()
    for folder in (tmp_path / "a", tmp_path / "b" / "c"):
        folder.mkdir(parents=True)
        (folder / "small.yaml").write_text(SPEC)
        digests.add(snapshot_of(folder / "small.yaml").digest)
    assert len(digests) == 1


def test_no_secret_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(SPEC)
    assert b"sk-very-secret-key" not in msgspec.json.encode(snapshot_of(path))


def test_the_files_of_texts_are_part_of_it(tmp_path: Path) -> None:
    path, prompt = tmp_path / "specs" / "small.yaml", tmp_path / "prompts" / "system.md"
    for file, text in {
        tmp_path / "pyproject.toml": "",
        path: SPEC.replace("states:", "messages: [{role: system, content: {file: ../prompts/system.md}}]\nstates:"),
        prompt: "Be kind.\n",
    }.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    taken = snapshot_of_project(path, tmp_path)
    assert taken.files["../prompts/system.md"] == "Be kind.\n"
    before = Project(folder=tmp_path, environ=ENVIRON).compile(path)
    prompt.write_text("Be unkind.\n")
    assert snapshot_of_project(path, tmp_path).digest != taken.digest
    prompt.unlink()
    kept = msgspec.json.decode(msgspec.json.encode(taken), type=Snapshot)
    after = Project(folder=tmp_path, environ=ENVIRON).compile(path, snapshot=kept)
    assert after.spec == before.spec
    assert take_snapshot(after.tree, after.graph, profile=None).digest == taken.digest


def snapshot_of_project(path: Path, folder: Path) -> Snapshot:
    flow = Project(folder=folder, environ=ENVIRON).compile(path)
    return take_snapshot(flow.tree, flow.graph, profile=None)
