"""An exchange rate service that is often busy, as such services are."""

import asyncio
import itertools

_RATES = {("EUR", "USD"): 1.08, ("USD", "EUR"): 0.93, ("EUR", "GBP"): 0.86}
_requests = itertools.count(1)


def exchange_rate(base: str, quote: str) -> float:
    """Give the rate between two currencies; two requests of three are refused."""
    if next(_requests) % 3:
        raise ConnectionError("the rate service is busy")
    try:
        return _RATES[base, quote]
    except KeyError:
        raise ValueError(f"there is no rate from {base} to {quote}") from None


def yesterdays_rate(base: str, quote: str) -> float:
    """Give the rate as it was yesterday, from a file: always there, never fresh."""
    return round(_RATES.get((base, quote), 1.0) * 0.99, 4)


async def mirrored_rate(base: str, quote: str) -> float:
    """Give the rate as a mirror of the service has it, which is slow and always there."""
    await asyncio.sleep(0.3)
    return _RATES.get((base, quote), 1.0)
