"""What the flow of these tests calls."""

import asyncio
import os


async def double(number: int) -> int:
    """Double a number. 13 brings bad luck; above 1000, what is more is the milliseconds that it takes.

    With FLOWRUN_TEST_LEDGER set, each call is noted in that file, so that a test sees what was done twice.
    """
    if ledger := os.environ.get("FLOWRUN_TEST_LEDGER"):
        descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{number}\n".encode())
        os.close(descriptor)
    if number == 13:
        raise ValueError("13 brings bad luck")
    if number > 1000:
        await asyncio.sleep((number - 1000) / 1000)
    return number * 2
