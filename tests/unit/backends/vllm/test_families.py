"""Recorded texts of five families are read as written down, by the installed vLLM. A newer one: ``tests/readers``."""

import json
import os
from pathlib import Path

import pytest

from tests.vllm_families import EXPECTED, read_apart


@pytest.mark.vllm
def test_texts_of_five_families_are_read_as_ever(needs_vllm: None, tmp_path: Path) -> None:
    found = read_apart(tmp_path / "models")
    if os.environ.get("FLOWRUN_WRITE_EXPECTED"):
        EXPECTED.write_text(json.dumps(found["read"], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert found["faults"] == []
    assert found["read"] == json.loads(EXPECTED.read_text(encoding="utf-8"))
