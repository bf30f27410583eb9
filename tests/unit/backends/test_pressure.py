"""The gate to a server, against servers that are busy, lost or dead, in virtual time."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from flowrun.backends.pressure import MAX_LOST, Pressure, Refusal, read_retry_after, read_status
from flowrun.testing.clock import VirtualLoop

T = TypeVar("T")


class Refused(Exception):
    """An answer that is no reply."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.kind)
        self.refusal = refusal


def classify(exc: Exception) -> Refusal:
    return exc.refusal if isinstance(exc, Refused) else Refusal("final")


BUSY = Refusal("busy")


class Server:
    """A server that takes ``places`` requests of ``seconds`` at once, and answers ``over`` to all others."""

    def __init__(self, places: int, over: Refusal = BUSY, *, seconds: float = 0.05) -> None:
        self.places = places
        self.over = over
        self.seconds = seconds
        self.busy = 0
        self.taken: list[float] = []
        self.refused: list[float] = []

    async def answer(self) -> float:
        now = asyncio.get_running_loop().time
        await asyncio.sleep(0.001)
        if self.busy >= self.places:
            self.refused.append(now())
            raise Refused(self.over)
        self.taken.append(now())
        self.busy += 1
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.busy -= 1
        return now()


async def send_all(gate: Pressure, server: Server, count: int) -> list[float | BaseException]:
    return await asyncio.gather(*(gate.send(server.answer) for _ in range(count)), return_exceptions=True)


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(86400 / 2):
            return await work()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(bounded())


def since(begun: float) -> float:
    return asyncio.get_running_loop().time() - begun


def gate(**settings: Any) -> Pressure:
    return Pressure(classify, **settings)


# --- busy ---------------------------------------------------------------------------------------------------------


class WorklessLoop(VirtualLoop):
    """A loop in whose time our own work takes none, however slow the machine is."""

    def time(self) -> float:
        return self._skipped


@pytest.mark.parametrize("pause", [None, 1.0, 60.0])
@pytest.mark.parametrize("places", [1, 2, 3, 8, 16, 32, 64])
def test_a_server_that_takes_few_is_kept_full(places: int, pause: float | None) -> None:
    """What the benchmark of busy servers asks for: nine tenths of what it takes, after the first tenth of the rows."""
    server, count = Server(places, Refusal("busy", pause)), 2000

    async def work() -> None:
        results = await send_all(gate(chance=random.Random(places).random), server, count)
        assert all(isinstance(each, float) for each in results)

    with asyncio.Runner(loop_factory=WorklessLoop) as runner:
        runner.run(work())
    after_the_first_tenth = (count - count // 10) / (server.taken[-1] - server.taken[count // 10 - 1])
    assert after_the_first_tenth > 0.9 * places / server.seconds
    assert len(server.refused) < count + count // 5


def test_the_limit_rises_again() -> None:
    server = Server(2)

    async def work() -> list[int | None]:
        pressure = gate()
        limits = []
        for places in (2, 40, 4):
            server.places = places
            await send_all(pressure, server, 800)
            limits.append(pressure.places)
        return limits

    few, many, fewer = run(work)
    assert few is not None
    assert many is not None
    assert fewer is not None
    assert few <= 4
    assert 36 <= many <= 50
    assert fewer <= 6


def test_there_is_no_limit_until_a_request_is_refused() -> None:
    server = Server(1000)

    async def work() -> int | None:
        pressure = gate()
        await send_all(pressure, server, 1000)
        return pressure.places

    assert run(work) is None
    assert max(server.taken) < 0.05 + min(server.taken)


def test_a_server_that_refuses_all_is_asked_when_it_says() -> None:
    server = Server(0, Refusal("busy", 7.0))

    async def work() -> None:
        pressure = gate()
        requests = asyncio.ensure_future(send_all(pressure, server, 20))
        await asyncio.sleep(6)
        assert len(server.refused) == 20  # the burst
        await asyncio.sleep(29.5)
        assert len(server.refused) == 25  # one each time
        server.places = 20
        await requests

    run(work)
    assert len(server.taken) == 20


def test_a_stalled_server_fails_the_requests() -> None:
    server = Server(0, Refusal("busy", 7.0))

    async def work() -> list[float | BaseException]:
        begun = asyncio.get_running_loop().time()
        results = await send_all(gate(stall=60), server, 5)
        assert 60 <= since(begun) < 70
        return results

    assert [type(each) for each in run(work)] == [Refused] * 5


def test_a_stall_is_the_time_since_any_success() -> None:
    """A server that takes one request of 40 s at once, with a stall of 60 s: the last of ten waits for six minutes."""
    server = Server(1, Refusal("busy", 1.0), seconds=40)
    results = run(lambda: send_all(gate(stall=60), server, 10))
    assert all(isinstance(each, float) for each in results)


def test_a_pause_longer_than_the_stall_ends_with_it() -> None:
    server = Server(0, Refusal("busy", 86400.0))

    async def work() -> float:
        begun = asyncio.get_running_loop().time()
        await send_all(gate(stall=60), server, 3)
        return since(begun)

    assert 60 <= run(work) < 61


def test_a_later_request_has_patience_of_its_own() -> None:
    server = Server(0, Refusal("busy", 1.0))

    async def work() -> list[float | BaseException]:
        pressure = gate(stall=60)
        await send_all(pressure, server, 1)
        await asyncio.sleep(3600)
        begun = asyncio.get_running_loop().time()
        await send_all(pressure, server, 1)
        assert since(begun) >= 60
        server.places = 1
        return await send_all(pressure, server, 1)

    assert isinstance(run(work)[0], float)


def test_time_held_back_does_not_count() -> None:
    server = Server(1, Refusal("busy", 5.0), seconds=0.6)

    async def work() -> list[float | BaseException]:
        pressure = gate()
        requests = (pressure.send(server.answer, seconds=1.0) for _ in range(20))
        return await asyncio.gather(*requests, return_exceptions=True)

    assert all(isinstance(each, float) for each in run(work))


def test_a_cancelled_request_leaves_its_place() -> None:
    server = Server(1, Refusal("busy", 1.0), seconds=1)

    async def work() -> list[float | BaseException]:
        pressure = gate()
        tasks = [asyncio.ensure_future(pressure.send(server.answer)) for _ in range(30)]
        await asyncio.sleep(2.5)
        for task in tasks[:28]:
            task.cancel()
        return await asyncio.gather(*tasks[28:], return_exceptions=True)

    assert all(isinstance(each, float) for each in run(work))


# --- lost, dead ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lost", "retry"])
def test_a_dead_server_fails_a_request_after_three_attempts(kind: Any) -> None:
    server = Server(0, Refusal(kind))

    async def work() -> float:
        begun = asyncio.get_running_loop().time()
        results = await send_all(gate(), server, 100)
        assert [type(each) for each in results] == [Refused] * 100
        return since(begun)

    assert run(work) < 5
    assert len(server.refused) == 300


def test_a_server_that_dies_fails_what_is_under_way() -> None:
    server = Server(50, Refusal("lost"))

    async def work() -> list[float | BaseException]:
        pressure = gate()
        requests = asyncio.ensure_future(send_all(pressure, server, 5000))
        await asyncio.sleep(2)
        server.places = 0
        async with asyncio.timeout(60):
            return await requests

    assert {type(each) for each in run(work)} == {float, Refused}


def test_connections_lost_under_load_fail_no_request() -> None:
    server = Server(3, Refusal("lost"))
    results = run(lambda: send_all(gate(), server, 300))
    assert all(isinstance(each, float) for each in results)


def test_a_request_that_breaks_the_server_fails_although_others_succeed() -> None:
    server = Server(10, Refusal("lost"))
    attempts = []

    async def breaks() -> None:
        attempts.append(asyncio.get_running_loop().time())
        raise Refused(Refusal("lost"))

    async def work() -> tuple[Any, ...]:
        pressure = gate()
        others = asyncio.ensure_future(send_all(pressure, server, 8000))
        with pytest.raises(Refused):
            await pressure.send(breaks)
        others.cancel()
        return await asyncio.gather(others, return_exceptions=True)

    run(work)
    assert len(attempts) <= MAX_LOST + 3


# --- limits that are known, time ----------------------------------------------------------------------------------


def test_no_minute_has_more_requests_than_it_may() -> None:
    server = Server(1000, seconds=1)

    async def work() -> None:
        pressure = gate(per_minute=30)
        await send_all(pressure, server, 100)

    run(work)
    assert all(later - earlier >= 59.9 for earlier, later in zip(server.taken, server.taken[30:], strict=False))
    assert server.taken[99] - server.taken[0] < 181


def test_refused_requests_count_in_their_minute() -> None:
    server = Server(0, Refusal("busy", 1.0))

    async def work() -> None:
        requests = asyncio.ensure_future(send_all(gate(per_minute=10), server, 5))
        await asyncio.sleep(50)
        assert len(server.refused) == 10
        requests.cancel()

    run(work)


@pytest.mark.parametrize("per_minute", [None, 1])
def test_a_timeout_ends_an_attempt(per_minute: int | None) -> None:
    server = Server(1, seconds=100)

    async def work() -> float:
        begun = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError, match="no reply in 2 s"):
            await gate(per_minute=per_minute).send(server.answer, seconds=2.0)
        return since(begun)

    assert run(work) == pytest.approx(2, abs=0.5)


# --- answers ------------------------------------------------------------------------------------------------------

NOW = 1445412480.0  # Wed, 21 Oct 2015 07:28:00 GMT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({"retry-after": "120"}, 120, id="seconds"),
        pytest.param({"retry-after": " 1.5 "}, 1.5, id="half a second, which no RFC has"),
        pytest.param({"retry-after": "0"}, 0, id="now"),
        pytest.param({"retry-after": "-3"}, 0, id="before"),
        pytest.param({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, 30, id="date"),
        pytest.param({"retry-after": "Wednesday, 21-Oct-15 07:28:30 GMT"}, 30, id="date of RFC 850"),
        pytest.param({"retry-after": "Wed Oct 21 07:28:30 2015"}, 30, id="date of asctime"),
        pytest.param({"retry-after": "Wed, 21 Oct 2015 07:00:00 GMT"}, 0, id="date that is past"),
        pytest.param(
            {"retry-after": "Wed, 21 Oct 2015 09:00:30 GMT", "date": "Wed, 21 Oct 2015 09:00:00 GMT"},
            30,
            id="date by the server's clock",
        ),
        pytest.param({"retry-after-ms": "250", "retry-after": "1"}, 0.25, id="milliseconds"),
        pytest.param({"retry-after-ms": "soon", "retry-after": "1"}, 1, id="no milliseconds"),
        pytest.param({"retry-after": "soon"}, None, id="no time"),
        pytest.param({"retry-after": "nan"}, None, id="no number"),
        pytest.param({"retry-after": "1e999"}, None, id="no end"),
        pytest.param({"retry-after": ""}, None, id="empty"),
        pytest.param({}, None, id="none"),
    ],
)
def test_the_pause_that_a_server_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert read_retry_after(headers, now=NOW) == seconds


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "final"),
        (401, "final"),
        (404, "final"),
        (408, "retry"),
        (409, "retry"),
        (422, "final"),
        (429, "busy"),
        (500, "retry"),
        (502, "lost"),
        (503, "busy"),
        (504, "retry"),
        (529, "busy"),
    ],
)
def test_what_a_status_means(status: int, kind: str) -> None:
    assert read_status(status, {"retry-after": "2"}) == Refusal(kind, 2.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [429, 503, 500])
def test_a_server_that_asks_for_no_other_attempt_gets_none(status: int) -> None:
    assert read_status(status, {"x-should-retry": "false"}) == Refusal("final")


def test_spent_money_is_no_load() -> None:
    assert read_status(429, {"retry-after": "1"}, "insufficient_quota") == Refusal("final")
