"""The lock of models: found by name and profile, compared member by member, beside that of MCP servers."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flowrun.runtime.project import Project
from flowrun.spec import StoredFiles, load_spec
from flowrun.spec.lock_file import encode_member, lock_path
from flowrun.spec.mcp_lock import LockedServer, LockedTool, LockFile, encode_lock
from flowrun.spec.model import Model
from flowrun.spec.model_lock import (
    LockedAdapter,
    LockedFile,
    LockedModel,
    ModelLock,
    as_data,
    compare_models,
    departures,
    read_models,
)

DIGESTS = ["0123456789abcdef" * 4, "fedcba9876543210" * 4]
MODEL = LockedModel(
    name="org/model",
    revision="v1",
    files={"a.safetensors": LockedFile(size=5_000, sha256=DIGESTS[0])},
    tokenizer=DIGESTS[0],
    chat_template=DIGESTS[0],
    tool_call_parser="hermes",
    vllm="0.32.0",
)
SERVERS = LockFile(mcp={"files": LockedServer(tools=(LockedTool(name="read", input_schema={}),))})
SPEC = """\
flowrun: v1
name: locked
version: 1.0.0
model: {name: org/model}
messages: [{role: user, content: Hello.}]
"""
TOOLS = """\
mcp_servers: {files: {command: [x]}}
states:
  ask: {type: chat, routes: [{when: reply.tool_calls, to: call}, {to: done}]}
  call: {type: tools, next: ask}
  done: {type: end, output: {}}
"""


def changed(**changes: Any) -> LockedModel:
    return msgspec.structs.replace(MODEL, **changes)


@pytest.mark.parametrize(
    ("found", "unknown", "differences"),
    [
        pytest.param(MODEL, "", [], id="the same"),
        pytest.param(
            changed(files={"a.safetensors": LockedFile(size=5_000, sha256=DIGESTS[1])}),
            "",
            [
                "files a.safetensors is 5,000 bytes, sha256 fedcba987654, "
                "and 5,000 bytes, sha256 0123456789ab in the lock"
            ],
            id="other weights",
        ),
        pytest.param(
            changed(files={"a.safetensors": LockedFile(size=4_999)}),
            "",
            ["files a.safetensors is 4,999 bytes, and 5,000 bytes, sha256 0123456789ab in the lock"],
            id="another size",
        ),
        pytest.param(changed(files={"a.safetensors": LockedFile(size=5_000)}), "", [], id="a digest that is not known"),
        pytest.param(
            changed(files={"b.py": LockedFile(size=1)}),
            "",
            [
                "files a.safetensors is none, and 5,000 bytes, sha256 0123456789ab in the lock",
                "files b.py is 1 bytes, and none in the lock",
            ],
            id="other files",
        ),
        pytest.param(
            changed(tokenizer=DIGESTS[1], chat_template=None, vllm="0.33.0", commit="1" * 40),
            "",
            [
                "commit is 111111111111, and none in the lock",
                "tokenizer is fedcba987654, and 0123456789ab in the lock",
                "chat_template is none, and 0123456789ab in the lock",
                "vllm is 0.33.0, and 0.32.0 in the lock",
            ],
            id="the rest",
        ),
        pytest.param(changed(tokenizer=None, vllm=None, files={}), "tokenizer vllm files", [], id="what is not known"),
        pytest.param(
            changed(adapter=LockedAdapter(name="tuned", files={"adapter_config.json": LockedFile(size=9)})),
            "",
            [
                "adapter is tuned, and none in the lock",
                "adapter files adapter_config.json is 9 bytes, and none in the lock",
            ],
            id="an adapter",
        ),
    ],
)
def test_compares_what_is_locked_with_what_is_found(found: LockedModel, unknown: str, differences: list[str]) -> None:
    assert list(map(str, compare_models(MODEL, found, unknown=frozenset(unknown.split())))) == differences


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        pytest.param(Model(name="org/model", revision="v1", tool_call_parser="hermes"), [], id="the same"),
        pytest.param(Model(name="${MODEL}", revision="v1", tool_call_parser="hermes"), [], id="a variable"),
        pytest.param(
            Model(name="org/other", adapter="tuned"),
            [
                "name is org/other, and org/model in the lock",
                "revision is none, and v1 in the lock",
                "adapter is tuned, and none in the lock",
                "tool_call_parser is none, and hermes in the lock",
            ],
            id="another one",
        ),
    ],
)
def test_finds_what_the_spec_says_otherwise(model: Model, expected: list[str]) -> None:
    assert list(departures(model, MODEL)) == expected


def test_a_profile_has_an_entry_of_its_own_or_that_of_the_spec_if_it_fits() -> None:
    other = changed(name="org/large")
    models = {"default": MODEL, "default@large": other}
    fitting, large = (Model(name=name, revision="v1", tool_call_parser="hermes") for name in ("org/model", "org/large"))

    def find(profile: str | None, model: Model) -> LockedModel | None:
        return ModelLock(file="x", text="", profile=profile, models=models).find("default", model)

    assert find(None, large) is MODEL  # it is told of the difference
    assert find("large", large) is other
    assert find("server", fitting) is MODEL
    assert find("server", large) is None


def test_both_locks_are_kept_in_one_file() -> None:
    models = as_data({"default": MODEL})
    first = encode_member("model", models, None)
    both = encode_lock(SERVERS, first)
    assert json.loads(both).keys() == {"mcp", "model"}
    assert read_models(both) == {"default": MODEL}
    assert encode_member("model", models, encode_lock(SERVERS, None)) == both
    assert encode_lock(SERVERS, both) == both


def test_a_lock_that_is_no_object_is_refused() -> None:
    with pytest.raises(ValueError, match="it holds no JSON object"):
        encode_member("model", {}, "[]")


def test_the_digest_of_a_model_is_that_of_all_that_is_locked() -> None:
    assert MODEL.digest == changed().digest
    assert MODEL.digest != changed(vllm="0.33.0").digest
    assert len(MODEL.digest) == 16


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "locked.yaml"
    path.write_text(SPEC)
    lock_path(path).write_text(encode_member("model", as_data({"default": LockedModel(name="org/model")}), None))
    return path


def test_a_spec_is_loaded_with_its_lock(spec: Path) -> None:
    lock = load_spec(spec).document.lock
    assert lock is not None
    assert lock.models == {"default": LockedModel(name="org/model")}
    assert load_spec(spec, locked=False).document.lock is None


def test_the_lock_travels_with_a_stored_flow_and_is_no_part_of_its_digest(spec: Path) -> None:
    snapshot = Project().compile(spec).origin.snapshot
    assert "locked.lock.json" in snapshot.files
    stored = load_spec(spec, files=snapshot.files_in(spec.parent)).document.lock
    assert stored is not None
    lock_path(spec).unlink()
    assert Project().compile(spec).origin.snapshot.digest == snapshot.digest


def test_the_lock_of_models_does_not_change_a_flow_with_tools_of_servers(tmp_path: Path) -> None:
    spec = tmp_path / "locked.yaml"
    spec.write_text(f"{SPEC.replace('/model', '/model, tool_call_parser: hermes')}{TOOLS}")
    alone = encode_lock(SERVERS, None)
    lock_path(spec).write_text(alone)
    before = Project().compile(spec).origin.snapshot
    lock_path(spec).write_text(encode_member("model", as_data({"default": MODEL}), alone))
    after = Project().compile(spec).origin.snapshot
    assert after.digest == before.digest
    files = StoredFiles({(tmp_path / name).resolve(): text.encode() for name, text in after.files.items()})
    loaded = load_spec(spec, files=files)
    assert list(loaded.spec.tools) == ["read"]
    assert loaded.document.lock is not None
