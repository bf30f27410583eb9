"""``model.timeout`` bounds a reply of any backend."""

import asyncio
from pathlib import Path

import pytest

from flowrun.backends.scripted import ScriptedBackend, ScriptedReply
from flowrun.backends.vllm.backend import VllmBackend
from flowrun.backends.wrapper import TimedBackend, in_time
from flowrun.errors import ModelError
from flowrun.runtime.engines import BackendSettings, make_backend
from flowrun.spec.model import Model, Seconds


def test_a_model_that_takes_too_long_is_unavailable() -> None:
    backend = TimedBackend(ScriptedBackend([ScriptedReply(content="late", delay=30)]), 0.05)
    with pytest.raises(ModelError, match=r"took longer than 0\.05 s for a reply; raise model\.timeout") as caught:
        asyncio.run(in_time(backend.reply(None), 20))  # type: ignore[arg-type]
    assert caught.value.name == "backend.unavailable"


def test_a_timeout_of_something_else_stays_what_it_is() -> None:
    async def other() -> None:
        raise TimeoutError("of a socket")

    with pytest.raises(TimeoutError, match="of a socket"):
        asyncio.run(in_time(other(), 20))


def test_an_engine_in_this_process_is_bounded_too() -> None:
    class Busy:
        dead = None

        async def generate(self, *given: object, **more: object) -> None:
            await asyncio.sleep(30)

    backend = VllmBackend(Model(name="m", timeout=Seconds(0.05)), base_dir=Path())
    with pytest.raises(ModelError, match=r"took longer than 0\.05 s"):
        asyncio.run(backend._generate(Busy(), None, "r"))  # type: ignore[arg-type]


@pytest.mark.parametrize(("timeout", "kind"), [(None, ScriptedBackend), (Seconds(1), TimedBackend)])
def test_the_backend_of_a_model_with_a_timeout_is_bounded(tmp_path: Path, timeout: Seconds | None, kind: type) -> None:
    (tmp_path / "r.yaml").write_text("replies: []\n")
    model = Model(backend="scripted", name="r.yaml", timeout=timeout)
    assert type(make_backend(model, tmp_path, tmp_path, str, BackendSettings())) is kind
