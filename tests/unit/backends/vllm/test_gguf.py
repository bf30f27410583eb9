"""A GGUF file is converted once, completely or not at all. A shell script is the stub of Python and its converter."""

import asyncio
import hashlib
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from flowrun.backends.vllm.gguf import CONVERTER, convert_gguf, is_gguf, prepare, publish
from flowrun.backends.vllm.gguf_convert import restore_pre_tokenizer
from flowrun.backends.vllm.model_files import find_model
from flowrun.errors import BackendError
from tests.conftest import SMALL_MODEL, SPECS
from tests.processes import wait_for_end

CONTENT = b"GGUF and so on"
NAME = f"{hashlib.sha256(CONTENT).hexdigest()[:32]}-{CONVERTER}"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(CONTENT)
    return path


def converter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    """Replace the converter's command by a script; ``$4`` is the file, ``$5`` the folder to create."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


MAKE = 'echo "a note"; mkdir "$5" && cp "$4" "$5/weights"'


def test_converts_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: Path) -> None:
    converter(monkeypatch, tmp_path, MAKE)
    stages: list[str] = []
    notes: list[str] = []
    cache = tmp_path / "cache"
    first = asyncio.run(convert_gguf(source, cache_dir=cache, progress=stages.append, note=notes.append))
    converter(monkeypatch, tmp_path, "exit 1")
    second = asyncio.run(convert_gguf(source, cache_dir=cache, progress=stages.append, note=notes.append))
    assert first == second == cache / NAME
    assert (first / "weights").read_bytes() == CONTENT
    assert (stages, notes) == (["converting model.gguf, once"], ["a note"])
    assert os.listdir(cache) == [NAME]


def test_two_processes_may_convert_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: Path) -> None:
    converter(monkeypatch, tmp_path, MAKE)

    async def both() -> list[Path]:
        conversions = (convert_gguf(source, cache_dir=tmp_path / "cache", progress=lambda note: None) for _ in range(2))
        return await asyncio.gather(*conversions)

    assert asyncio.run(both()) == [tmp_path / "cache" / NAME] * 2
    assert os.listdir(tmp_path / "cache") == [NAME]


def test_a_failed_conversion_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: Path) -> None:
    converter(monkeypatch, tmp_path, 'mkdir "$5"; echo "ValueError: unknown architecture" >&2; exit 3')
    with pytest.raises(
        BackendError, match=r"cannot convert .*/model\.gguf for vLLM: ValueError: unknown architecture$"
    ):
        asyncio.run(convert_gguf(source, cache_dir=tmp_path / "cache", progress=lambda note: None))
    assert os.listdir(tmp_path / "cache") == []


def test_reports_that_the_cache_cannot_be_written(tmp_path: Path, source: Path) -> None:
    with pytest.raises(BackendError, match=r"cannot keep the converted model in .*/model\.gguf: "):
        asyncio.run(convert_gguf(source, cache_dir=source, progress=lambda note: None))


def test_a_cancelled_conversion_ends_its_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: Path) -> None:
    converter(
        monkeypatch,
        tmp_path,
        f'mkdir "$5"; echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 60',
    )

    async def cancel() -> int:
        conversion = asyncio.create_task(convert_gguf(source, cache_dir=tmp_path / "cache", progress=lambda note: None))
        while not (tmp_path / "pid").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        conversion.cancel()
        await asyncio.wait([conversion])
        assert conversion.cancelled()
        return int((tmp_path / "pid").read_text())

    assert wait_for_end(asyncio.run(cancel()), seconds=5)
    assert os.listdir(tmp_path / "cache") == []


def test_a_folder_of_another_process_stays(tmp_path: Path) -> None:
    converted, target = tmp_path / "made", tmp_path / "target"
    converted.mkdir()
    (converted / "mine").touch()
    target.mkdir()
    (target / "theirs").touch()
    publish(converted, target)
    assert os.listdir(target) == ["theirs"]
    with pytest.raises(OSError, match="No such file"):
        publish(converted, tmp_path / "nowhere" / "target")


def test_deletes_the_files_of_killed_conversions(tmp_path: Path) -> None:
    for name in (".converting-old", ".converting-new", "model"):
        (tmp_path / name).mkdir()
    now = (tmp_path / "model").stat().st_mtime
    os.utime(tmp_path / ".converting-old", (0, now - 90_000))
    os.utime(tmp_path / "model", (0, now - 90_000))
    prepare(tmp_path, now=now)
    assert sorted(os.listdir(tmp_path)) == [".converting-new", "model"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(CONTENT, True, id="GGUF"),
        pytest.param(b"PK", False, id="something else"),
        pytest.param(b"", False, id="nothing"),
        pytest.param(None, False, id="a folder"),
    ],
)
def test_knows_gguf_by_its_content(tmp_path: Path, content: bytes | None, expected: bool) -> None:
    path = tmp_path / "model.bin"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    assert is_gguf(path) is expected


@pytest.mark.parametrize(
    ("pre", "expected"),
    [
        pytest.param("smollm", [("1", (0, 1)), ("2", (1, 2)), ("Ġa", (2, 4))], id="digits apart"),
        pytest.param("gpt-2", [("12", (0, 2)), ("Ġa", (2, 4))], id="GPT-2's rule"),
    ],
)
def test_splits_digits_as_in_the_models_training(pre: str, expected: list[tuple[str, tuple[int, int]]]) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    restore_pre_tokenizer(SimpleNamespace(backend_tokenizer=backend), pre)
    assert backend.pre_tokenizer.pre_tokenize_str("12 a") == expected


@pytest.mark.vllm
@pytest.mark.usefixtures("needs_vllm")
def test_warns_of_a_rule_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    restore_pre_tokenizer(SimpleNamespace(), "qwen2")
    assert capsys.readouterr().out == ""
    restore_pre_tokenizer(SimpleNamespace(), "klingon")
    assert capsys.readouterr().out == (
        "the file's way of splitting text ('klingon') is not known, so the model may read some words wrongly; "
        "its Hugging Face folder would be safer\n"
    )


@pytest.mark.vllm
@pytest.mark.usefixtures("needs_vllm")
def test_the_small_model_is_converted_completely() -> None:
    folder = Path(asyncio.run(find_model(SMALL_MODEL.name, base_dir=SPECS)))
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(os.listdir(folder))
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
    rules = json.loads((folder / "tokenizer.json").read_text())["pre_tokenizer"]["pretokenizers"]
    assert [rule["type"] for rule in rules] == ["Digits", "ByteLevel"]
