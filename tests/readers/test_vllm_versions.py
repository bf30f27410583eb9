"""The newest vLLM has what flowrun uses, and reads as the installed one does: by its source; nothing is built."""

import json
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from flowrun.backends.vllm.contract import faults_of_vllm
from flowrun.checks.vllm_names import ENGINE, REASONING_PARSERS, SAMPLING, TOOL_CALL_PARSERS
from tests.unit.backends.vllm.test_contract import names_its_processes
from tests.vllm_families import EXPECTED, read_apart
from tests.vllm_source import SourceVllm

pytestmark = pytest.mark.readers


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the Python files of the newest vLLM, from its wheel of about 340 MB."""
    folder = tmp_path_factory.mktemp("vllm")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "vllm"]
    done = subprocess.run([*command, "-d", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"vllm cannot be had: {done.stderr[-300:]}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name.endswith(".py")])
    wheel.unlink()
    return folder


def test_its_source_has_what_flowrun_uses(newest: Path) -> None:
    source = SourceVllm(newest)
    assert faults_of_vllm(source) == []
    assert names_its_processes(source)


@pytest.mark.skipif(find_spec("vllm") is None, reason="what vLLM itself imports is not installed")
def test_its_parsers_read_as_ever_and_its_names_are_known(newest: Path, tmp_path: Path) -> None:
    found = read_apart(tmp_path / "models", source=newest)
    names = found["names"]
    assert set(names["sampling"]) <= SAMPLING.keys()
    assert {name: kinds for name, kinds in names["engine"].items() if kinds != list(ENGINE.get(name, ["none"]))} == {}
    assert set(names["tool_call_parsers"]) <= TOOL_CALL_PARSERS
    assert set(names["reasoning_parsers"]) <= REASONING_PARSERS
    assert found["version"] in next(newest.glob("vllm/_version.py")).read_text(encoding="utf-8")
    assert found["faults"] == []
    assert found["read"] == json.loads(EXPECTED.read_text(encoding="utf-8"))
