"""What a model is on this machine: files and commits, tokenizers, templates; nothing is loaded."""

import hashlib
import importlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flowrun.backends.vllm import described, file_digests
from flowrun.backends.vllm.described import Described, describe_model, digest_of_text, stamp_files
from flowrun.backends.vllm.file_digests import FileDigests
from flowrun.backends.vllm.gguf_header import read_tokenizer
from flowrun.errors import BackendError
from flowrun.spec.model import Model
from flowrun.spec.model_lock import LockedAdapter, LockedFile


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_model(folder: Path, **files: bytes) -> Path:
    """Write a folder with a model; a name's ``__`` stands for its dot."""
    folder.mkdir(exist_ok=True)
    given = {"config__json": b"{}", "model__safetensors": b"weights", "tokenizer__json": b"{}", **files}
    for name, content in given.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    return folder


def describe(model: Model, folder: Path, **options: Any) -> Described:
    digests = FileDigests(folder / "digests" / "digests.json")
    return describe_model(model, base_dir=folder, digests=digests, **options)


@pytest.fixture(autouse=True)
def version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(described, "installed_vllm", lambda: "0.32.0")


def test_a_folder_is_its_files(tmp_path: Path) -> None:
    more = {"README__md": b"-", "other__bin": b"not read", "optimizer__pt": b"-", "code__py": b"1"}
    write_model(tmp_path / "model", **more)
    (tmp_path / "model" / ".hidden.json").write_text("{}")
    found = describe(Model(name="./model", tool_call_parser="hermes"), tmp_path)
    assert found.unknown == frozenset()
    assert dict(found.model.files) == {
        "code.py": LockedFile(size=1, sha256=sha256(b"1")),
        "config.json": LockedFile(size=2, sha256=sha256(b"{}")),
        "model.safetensors": LockedFile(size=7, sha256=sha256(b"weights")),
        "tokenizer.json": LockedFile(size=2, sha256=sha256(b"{}")),
    }
    assert (found.model.commit, found.model.chat_template, found.model.vllm) == (None, None, "0.32.0")
    assert (found.model.name, found.model.tool_call_parser) == ("./model", "hermes")


def test_weights_of_other_kinds_count_where_there_are_no_safetensors(tmp_path: Path) -> None:
    write_model(tmp_path / "model", pytorch_model__bin=b"weights")
    (tmp_path / "model" / "model.safetensors").unlink()
    assert set(describe(Model(name="./model"), tmp_path).model.files) == {
        "config.json",
        "pytorch_model.bin",
        "tokenizer.json",
    }


CONFIG = json.dumps({"chat_template": "configured", "bos": 1}).encode()
TEMPLATES = [
    pytest.param({"tokenizer_config__json": CONFIG}, None, "configured", id="the tokenizer's"),
    pytest.param({"tokenizer_config__json": CONFIG, "chat_template__jinja": b"file"}, None, "file", id="a file's"),
    pytest.param({"chat_template__json": b'{"chat_template": "json"}'}, None, "json", id="a processor's"),
    pytest.param({"tokenizer_config__json": CONFIG}, "{{ inline }}", "{{ inline }}", id="the spec's"),
    pytest.param({"tokenizer_config__json": CONFIG}, "own.jinja", "own", id="the spec's file"),
    pytest.param({"tokenizer_config__json": b"broken"}, None, None, id="none"),
]


@pytest.mark.parametrize(("files", "own", "text"), TEMPLATES)
def test_the_template_is_the_one_in_effect(
    tmp_path: Path, files: Mapping[str, bytes], own: str | None, text: str | None
) -> None:
    write_model(tmp_path / "model", **files)
    (tmp_path / "own.jinja").write_bytes(b"own")
    found = describe(Model(name="./model", chat_template=own), tmp_path).model
    assert found.chat_template == (None if text is None else digest_of_text(text))


def test_several_templates_are_locked_together(tmp_path: Path) -> None:
    write_model(tmp_path / "model", chat_template__jinja=b"first")
    alone = describe(Model(name="./model"), tmp_path).model.chat_template
    (tmp_path / "model" / "additional_chat_templates").mkdir()
    (tmp_path / "model" / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    assert describe(Model(name="./model"), tmp_path).model.chat_template != alone


def test_the_tokenizer_is_what_is_not_its_template(tmp_path: Path) -> None:
    def tokenizer(**files: bytes) -> str | None:
        return describe(Model(name="./model"), write_model(tmp_path / "model", **files).parent).model.tokenizer

    first = tokenizer(tokenizer_config__json=CONFIG)
    assert tokenizer(tokenizer_config__json=CONFIG.replace(b"configured", b"changed")) == first
    assert tokenizer(tokenizer_config__json=CONFIG.replace(b"1", b"2")) != first
    assert tokenizer(tokenizer_config__json=CONFIG, tokenizer__json=b'{"a": 1}') != first


def test_the_tokenizer_may_be_that_of_another_model(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    other = write_model(tmp_path / "other", tokenizer__json=b'{"a": 1}', chat_template__jinja=b"other")
    found = describe(Model(name="./model", engine={"tokenizer": "./other"}), tmp_path).model
    assert found.tokenizer == describe(Model(name=str(other)), tmp_path).model.tokenizer
    assert found.chat_template == digest_of_text("other")


def test_an_adapter_is_its_files(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    write_model(tmp_path / "tuned", adapter_config__json=b"{}")
    found = describe(Model(name="./model", adapter="./tuned"), tmp_path).model.adapter
    assert found == LockedAdapter(name="./tuned", files=describe(Model(name="./tuned"), tmp_path).model.files)


def test_an_object_store_is_not_looked_into(tmp_path: Path) -> None:
    found = describe(Model(name="s3://bucket/model", chat_template="{{ x }}"), tmp_path)
    assert found.unknown == {"commit", "files", "tokenizer"}
    assert found.model.chat_template == digest_of_text("{{ x }}")
    assert describe(Model(name="s3://bucket/model"), tmp_path).unknown == found.unknown | {"chat_template"}


def test_a_model_that_is_not_here_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"there is no .*/gone"):
        describe(Model(name="./gone"), tmp_path)


def test_without_vllm_its_version_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(described, "installed_vllm", lambda: None)
    write_model(tmp_path / "model")
    assert describe(Model(name="./model"), tmp_path).unknown == {"vllm"}


# --- the hub -------------------------------------------------------------------------------------------------------


class TestHub:
    """A cache of the hub in a folder; the hub's answers are stubs."""

    @pytest.fixture(autouse=True)
    def hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        hub = pytest.importorskip("huggingface_hub")
        importlib.import_module("huggingface_hub.constants")
        monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("VLLM_USE_MODELSCOPE", raising=False)
        return hub

    @pytest.fixture(autouse=True)
    def cached(self, tmp_path: Path) -> None:
        repository = tmp_path / "hub" / "models--org--cached"
        (repository / "snapshots").mkdir(parents=True)
        write_model(repository / "snapshots" / "abc", chat_template__jinja=b"cached")
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("abc")

    def answer(self, monkeypatch: pytest.MonkeyPatch, hub: Any, commit: str | None) -> None:
        def model_info(api: Any, name: str, *, revision: str | None, timeout: float) -> Any:
            if commit is None:
                raise OSError("no network")
            return type("Info", (), {"sha": commit})

        monkeypatch.setattr(hub.HfApi, "model_info", model_info)

    @pytest.mark.parametrize(
        ("asks_hub", "answer", "commit", "unknown"),
        [
            pytest.param(False, "def", "abc", frozenset(), id="what the cache has"),
            pytest.param(True, "abc", "abc", frozenset(), id="the hub has the same"),
            pytest.param(True, None, "abc", frozenset(), id="the hub cannot be reached"),
            pytest.param(True, "def", "def", frozenset({"tokenizer", "chat_template"}), id="the hub has another one"),
        ],
    )
    def test_a_repository_is_its_commit(
        self,
        hub: Any,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        asks_hub: bool,
        answer: str | None,
        commit: str,
        unknown: frozenset[str],
    ) -> None:
        self.answer(monkeypatch, hub, answer)
        found = describe(Model(name="org/cached"), tmp_path, asks_hub=asks_hub)
        no_files: Mapping[str, LockedFile] = {}
        assert (found.model.commit, found.model.files, found.unknown) == (commit, no_files, unknown)
        assert found.model.chat_template == (None if unknown else digest_of_text("cached"))

    def test_one_that_is_not_cached_is_asked_for(
        self, hub: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        self.answer(monkeypatch, hub, "1f")
        assert describe(Model(name="org/other"), tmp_path).model.commit == "1f"
        self.answer(monkeypatch, hub, None)
        with pytest.raises(BackendError, match="'org/other' is neither a path beside the spec nor in the hub's cache"):
            describe(Model(name="org/other"), tmp_path)

    def test_its_stamp_is_the_commit_in_the_cache(self, tmp_path: Path) -> None:
        model = Model(name="org/cached", engine={"tokenizer": "org/other", "tokenizer_revision": "a" * 40})
        assert stamp_files(model, ["org/adapter"], base_dir=tmp_path) == {
            "org/cached": {"commit": "abc"},
            "org/other": {"commit": "a" * 40},
        }
        assert stamp_files(Model(name="org/cached", revision="v2"), [], base_dir=tmp_path) == {}


# --- GGUF ----------------------------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def write_gguf(
    path: Path, *, version: int = 3, template: str | None = "old", tokens: tuple[str, ...] = ("a", "b")
) -> Path:
    entries = {
        "general.alignment": struct.pack("<II", 4, 32),
        "tokenizer.ggml.tokens": struct.pack("<IIQ", 9, 8, len(tokens)) + b"".join(map(text, tokens)),
        "tokenizer.ggml.scores": struct.pack("<IIQ2f", 9, 6, 2, 0.5, 1.0),
        "general.nested": struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ2B", 0, 2, 1, 2),
        "tokenizer.ggml.add_bos": struct.pack("<IB", 7, 1),
    }
    if template is not None:
        entries["tokenizer.chat_template"] = struct.pack("<I", 8) + text(template)
    head = struct.pack("<4sIQQ", b"GGUF", version, 0, len(entries))
    path.write_bytes(head + b"".join(text(key) + value for key, value in entries.items()) + b"weights")
    return path


def test_a_gguf_file_has_its_tokenizer_and_its_template(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "model.gguf")
    found = describe(Model(name="./model.gguf"), tmp_path).model
    assert dict(found.files) == {"model.gguf": LockedFile(size=file.stat().st_size, sha256=sha256(file.read_bytes()))}
    assert found.chat_template == digest_of_text("old")
    other = describe(Model(name=str(write_gguf(tmp_path / "other.gguf", template="new"))), tmp_path).model
    assert (other.tokenizer, other.chat_template) == (found.tokenizer, digest_of_text("new"))
    assert read_tokenizer(write_gguf(tmp_path / "third.gguf", tokens=("a", "c"))).digest != found.tokenizer
    assert read_tokenizer(write_gguf(tmp_path / "bare.gguf", template=None)).chat_template is None


@pytest.mark.parametrize("damage", ["version", "cut"])
def test_the_tokenizer_of_a_damaged_gguf_file_is_not_known(tmp_path: Path, damage: str) -> None:
    file = write_gguf(tmp_path / "model.gguf", version=1 if damage == "version" else 3)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:120])
    with pytest.raises(ValueError, match=r"is damaged|of version 2 or 3"):
        read_tokenizer(file)
    assert describe(Model(name="./model.gguf"), tmp_path).unknown == {"tokenizer", "chat_template"}


# --- digests -------------------------------------------------------------------------------------------------------


def test_a_large_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_digests, "SMALL", 3)
    file, cache = tmp_path / "weights", tmp_path / "kept" / "digests.json"
    file.write_bytes(b"old weights")
    os.utime(file, (1_000, 1_000))
    digests = FileDigests(cache)
    assert digests.locked(file, reads=False) == LockedFile(size=11)
    assert digests.locked(file, reads=True).sha256 == sha256(b"old weights")
    digests.save()
    assert FileDigests(cache).locked(file, reads=False).sha256 == sha256(b"old weights")
    file.write_bytes(b"new weights")  # its time is now
    assert FileDigests(cache).locked(file, reads=False) == LockedFile(size=11)
    fresh = FileDigests(cache)
    assert fresh.locked(file, reads=True).sha256 == sha256(b"new weights")
    fresh.save()
    assert FileDigests(cache).locked(file, reads=False) == LockedFile(size=11)  # it may change again in this moment


@pytest.mark.parametrize("kept", ["", "[]", '{"x": 1}', '{"x": [1]}', "{"])
def test_a_broken_cache_is_an_empty_one(tmp_path: Path, kept: str) -> None:
    (tmp_path / "digests.json").write_text(kept)
    (tmp_path / "file").write_bytes(b"x")
    digests = FileDigests(tmp_path / "digests.json")
    assert digests.locked(tmp_path / "file", reads=False) == LockedFile(size=1, sha256=sha256(b"x"))
