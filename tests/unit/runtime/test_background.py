"""The background loop: a caller that is interrupted leaves nothing under way, whenever the interrupt comes."""

import asyncio
import threading
from typing import Any

import pytest

from flowrun.runtime.background import BackgroundLoop


class InterruptedLoop:
    """A loop whose first caller is interrupted before its work is handed over, or once the work has begun."""

    def __init__(self, loop: asyncio.AbstractEventLoop, begun: threading.Event | None) -> None:
        self._loop = loop
        self._begun = begun
        self._is_first = True

    def call_soon_threadsafe(self, *args: Any, **options: Any) -> None:
        first, self._is_first = self._is_first, False
        if not first or self._begun is not None:
            self._loop.call_soon_threadsafe(*args, **options)
        if first:
            if self._begun is not None:
                self._begun.wait()
            raise KeyboardInterrupt


@pytest.mark.parametrize("begins", [False, True])
def test_an_interrupt_at_the_very_beginning_leaves_nothing_under_way(
    begins: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    background, events, begun = BackgroundLoop(), [], threading.Event()

    async def work() -> None:
        events.append("began")
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            events.append("ended")

    loop = background._running_loop()
    with monkeypatch.context() as patch:
        patch.setattr(background, "_running_loop", lambda: InterruptedLoop(loop, begun if begins else None))
        with pytest.raises(KeyboardInterrupt):
            background.call(work)
    assert events == (["began", "ended"] if begins else [])
    assert background.call(lambda: asyncio.sleep(0, "done")) == "done"
    loop.call_soon_threadsafe(loop.stop)
