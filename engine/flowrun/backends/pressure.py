"""The gate that every request to a server passes: a busy server is asked less at once, and never taken for a dead one.

*Busy* (HTTP 429, 503, 529) lowers the number of requests at once, and each success raises it again: additive increase,
multiplicative decrease. A busy server fails no request as long as it answered any in the last ``stall`` seconds. *Lost*
(a connection that breaks or that nobody accepts, HTTP 502) is the same while other requests succeed, though not for
ever; otherwise the server is dead, and the request fails after a few more attempts.

Requests are clocked by successes: what was refused makes no place for another request. So a server that refuses all of
them is asked once in each pause that it asks for (``Retry-After``), and one that takes some is asked as these are done.
"""

import asyncio
import heapq
import math
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from itertools import count
from typing import Final, Literal, NamedTuple, TypeVar

T = TypeVar("T")

STALL_SECONDS: Final = 600.0
"""Seconds without any success after which a busy server counts as unavailable."""

MAX_RETRIES: Final = 2
"""Retries after a failure that may pass: a lost connection, a timeout, or HTTP 408, 409 or 5xx, with growing pauses."""

MAX_LOST: Final = 10
"""Times that one request may be lost while others succeed: it may be the one that breaks the server."""

DECREASE: Final = 0.95
"""What remains of the requests at once that the server took when it refused one more. A server refuses before it works,
so what it took is known, and there is no need to halve it."""

GENTLE: Final = 10
"""The successes, at least, after which one more request at once is tried: so at most a tenth of them are refused."""

PAUSES: Final = (0.25, 8.0)
"""The shortest and the longest pause in seconds where the server asks for none; each is twice the one before."""

MINUTE: Final = 60.0

IDLE_SECONDS: Final = 1.0
"""Seconds without any request after which a server's former refusals count no more."""

Kind = Literal["busy", "lost", "retry", "final"]


class Refusal(NamedTuple):
    """What a failed attempt says about the server, and the seconds that it asks for."""

    kind: Kind
    pause: float | None = None


class Limit:
    """How many requests may run at once. Pure; infinite until the server refuses one.

    Up to what the server took before, it grows by one for each success, and then by one for each round of requests; by
    two in the second round without a refusal, and so on.
    """

    def __init__(self) -> None:
        self.value = math.inf
        self.rounds = 0
        """How often the limit was lowered; a refusal that was sent before the last time is of the same round."""
        self._known = math.inf
        self._least = 0.0
        self._successes = 0  # since the last refusal

    @property
    def places(self) -> int | None:
        """Return the number of requests, at least one; None: there is no limit."""
        return int(self.value) if math.isfinite(self.value) else None

    def lower(self, others: int, *, sent_in: int) -> None:
        """Lower the limit, because a request was refused.

        What the server took before is at most halved in a round: its refusals may be over before others come.

        Args:
            others: the number of requests at work.
            sent_in: ``rounds`` when the request was sent.
        """
        if sent_in == self.rounds:
            self.rounds += 1
            self._least = self._known / 2 if math.isfinite(self._known) else 1.0
        fitting = math.ceil(others * DECREASE)
        self._known = max(self._least, min(self._known, fitting), 1.0)
        self.value = max(1.0, min(self.value, fitting))
        self._successes = 0

    def grow(self, running: int) -> None:
        """Raise the limit, because one of ``running`` requests succeeded; not if it bounds nobody."""
        if running < self.value / 2:
            return
        self._successes += 1
        if self.value < self._known:
            self.value = min(self.value + 1, self._known)
        elif math.isfinite(self.value):
            round_size = max(self.value, GENTLE)
            self.value += (1 + self._successes // round_size) / round_size


class Pressure:
    """The gate to one server.

    Args:
        classify: says what the exception of an attempt means.
        stall: see ``STALL_SECONDS``; 0 fails a request at once when the server is busy.
        per_minute: the most attempts in any minute; None: no such limit.
        max_retries: see ``MAX_RETRIES``.
        chance: returns a number from 0 to 1.
    """

    def __init__(
        self,
        classify: Callable[[Exception], Refusal],
        *,
        stall: float = STALL_SECONDS,
        per_minute: int | None = None,
        max_retries: int = MAX_RETRIES,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._chance = chance
        self._classify = classify
        self._stall = stall
        self._per_minute = per_minute
        self._most: Mapping[Kind, int] = {"final": 0, "retry": max_retries, "lost": MAX_LOST if max_retries else 0}
        self._limit = Limit()
        self._running = 0
        self._successes = 0
        self._sent: deque[float] = deque(maxlen=per_minute or 0)
        self._numbers = count()
        self._ready: list[_Place] = []  # a heap: who came first goes first
        self._held: dict[_Place, None] = {}  # refused; they fill places that nobody else takes
        self._closed: asyncio.TimerHandle | None = None  # nobody is let through before
        self._busy_since: float | None = None
        self._inside = 0
        self._idle_since = -math.inf

    @property
    def places(self) -> int | None:
        """Return how many requests the server takes at once; None as long as it refused none."""
        return self._limit.places

    async def send(self, attempt: Callable[[], Awaitable[T]], *, seconds: float | None = None) -> T:
        """Make attempts until one succeeds, and return its result.

        Args:
            seconds: the time for all attempts together. Waiting to be let through, and attempts that a busy server
                refused with the pauses after them, do not count.

        Raises:
            Exception: the last attempt's, or ``TimeoutError``.
        """
        now = asyncio.get_running_loop().time
        if not self._inside and now() - self._idle_since > IDLE_SECONDS:
            self._busy_since = None
        self._inside += 1
        try:
            return await self._send(attempt, seconds)
        finally:
            self._inside -= 1
            self._idle_since = now()

    async def _send(self, attempt: Callable[[], Awaitable[T]], seconds: float | None) -> T:
        number, allowed, clock = next(self._numbers), seconds, asyncio.get_running_loop().time
        tries: Counter[Kind] = Counter()
        refusal, pause, successes = Refusal("final"), 0.0, self._successes
        while True:
            await self._enter(number, pause, eager=refusal.kind == "busy")
            began, sent_in, others, answered = clock(), self._limit.rounds, self._running - 1, self._successes
            deadline = asyncio.timeout(seconds)
            try:
                async with deadline:
                    result = await attempt()
            except Exception as exc:
                self._running -= 1
                refusal = Refusal("final") if deadline.expired() else self._classify(exc)
                if refusal.kind == "lost" and self._successes == successes:
                    refusal = refusal._replace(kind="retry")  # perhaps it is not the load: nobody succeeded meanwhile
                successes = self._successes
                tries[refusal.kind] += 1
                # those that were answered since were perhaps at work when the server refused this one
                others = min(others, self._running + self._successes - answered)
                if refusal.kind in ("busy", "lost"):
                    self._limit.lower(others, sent_in=sent_in)
                pause = refusal.pause or _growing(tries.total(), self._chance())
                if refusal.kind == "busy":
                    pause = min(pause, self._patience())
                    hopeless = pause <= 0
                else:
                    if seconds is not None:
                        seconds -= clock() - began + pause
                    hopeless = tries[refusal.kind] > self._most[refusal.kind] or (seconds is not None and seconds <= 0)
                if refusal.kind == "busy" and not hopeless and not others:
                    self._close(pause)
                self._let_through()
                if deadline.expired():
                    raise TimeoutError(f"no reply in {allowed:g} s") from None
                if hopeless:
                    raise
            except BaseException:
                self._leave()
                raise
            else:
                self._successes += 1
                self._busy_since = None
                self._limit.grow(self._running)
                self._leave()
                return result

    def _patience(self) -> float:
        """Return for how many more seconds the server may be busy, after it has refused a request."""
        now = asyncio.get_running_loop().time()
        if self._busy_since is None:
            self._busy_since = now
        return self._busy_since + self._stall - now

    # --- places -------------------------------------------------------------------------------------------------------

    async def _enter(self, number: int, pause: float, *, eager: bool) -> None:
        """Wait for a pause and then for a place, in the order of the numbers, and take it.

        Args:
            eager: take a place before the pause is over if nobody else is ready, since a success has made it free.
        """
        loop = asyncio.get_running_loop()
        place = _Place(number, loop.create_future())
        timer = None
        if not pause:
            heapq.heappush(self._ready, place)
            self._let_through()
        else:
            if eager:
                self._held[place] = None
            timer = loop.call_later(pause, self._queue, place)
        try:
            await place.taken
        except asyncio.CancelledError:
            if not place.taken.cancelled():
                self._leave()
            raise
        finally:
            self._held.pop(place, None)
            if timer is not None:
                timer.cancel()

    def _queue(self, place: "_Place") -> None:
        self._held.pop(place, None)
        heapq.heappush(self._ready, place)
        self._let_through()

    def _leave(self) -> None:
        self._running -= 1
        self._let_through()

    def _let_through(self) -> None:
        """Give free places to those who wait. The place is taken at once, so that it is never counted as idle."""
        while self._closed is None and ((places := self._limit.places) is None or self._running < places):
            if self._is_minute_full() or (place := self._next()) is None:
                return
            self._sent.append(asyncio.get_running_loop().time())
            self._running += 1
            place.taken.set_result(None)

    def _next(self) -> "_Place | None":
        """Remove and return the next that waits; those that were cancelled are dropped."""
        while self._ready:
            if not (place := heapq.heappop(self._ready)).taken.done():
                return place
        for place in self._held:
            if not place.taken.done():
                del self._held[place]
                return place
        return None

    def _is_minute_full(self) -> bool:
        """Return whether the minute has no attempt left; if so, close the gate until it has."""
        if self._per_minute is None or len(self._sent) < self._per_minute:
            return False
        left = self._sent[0] + MINUTE - asyncio.get_running_loop().time()
        if left > 0:
            self._close(left)
        return left > 0

    def _close(self, seconds: float) -> None:
        """Let nobody through for some seconds, or as long as it is closed already."""
        loop = asyncio.get_running_loop()
        if self._closed is None or self._closed.when() < loop.time() + seconds:
            if self._closed is not None:
                self._closed.cancel()
            self._closed = loop.call_later(seconds, self._open)

    def _open(self) -> None:
        self._closed = None
        self._let_through()


class _Place:
    """A request that waits, by its number; ``taken`` is done when it may be sent."""

    __slots__ = ("number", "taken")

    def __init__(self, number: int, taken: "asyncio.Future[None]") -> None:
        self.number = number
        self.taken = taken

    def __lt__(self, other: "_Place") -> bool:
        return self.number < other.number


def _growing(attempts: int, chance: float) -> float:
    """Return a pause before the next attempt, in part by ``chance`` (0 to 1): what failed together comes apart."""
    least, most = PAUSES
    return min(least * 2.0 ** min(attempts - 1, 10), most) * (0.75 + chance / 2)


# --- what an answer says ----------------------------------------------------------------------------------------------


def read_status(status: int, headers: Mapping[str, str], code: object = None) -> Refusal:
    """Return what the status and the headers of an answer say.

    Args:
        headers: their names in any case, as HTTP clients give them.
        code: the code of the error in the answer's body. OpenAI answers 429 also when all money is spent.
    """
    pause = read_retry_after(headers, now=time.time())
    if headers.get("x-should-retry") == "false" or code == "insufficient_quota":
        return Refusal("final")
    if status in (429, 503, 529):
        return Refusal("busy", pause)
    if status == 502:
        return Refusal("lost", pause)
    return Refusal("retry" if status in (408, 409) or status >= 500 else "final", pause)


def read_retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the seconds of ``Retry-After`` (RFC 9110, 10.2.3: seconds or a date), or None without a usable one.

    A date counts from the answer's own ``Date``, since clocks differ; without one from ``now``, in seconds of Unix
    time. Azure's and OpenAI's ``retry-after-ms`` goes first.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        try:
            seconds = float(text) * unit
        except ValueError:
            until = _unix_time(text)
            if until is None:
                continue
            seconds = until - (_unix_time(headers.get("date", "")) or now)
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


def _unix_time(date: str) -> float | None:
    try:
        parsed = parsedate_to_datetime(date)
        return (parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
