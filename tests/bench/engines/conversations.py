"""The conversations of ``make bench-batch``, the same in every mode, with the standard library alone.

A conversation is three rounds of the model with a tool between them. Every reply is exactly ``TOKENS`` long: the end of
the text is forbidden before the last token, and wins there. What a tool takes is drawn by a hash of the conversation's
number and the round, so no mode has better luck than another. ``rounds.yaml`` says the same as a spec.
"""

import asyncio
import hashlib
import json
from typing import Any

ROUNDS = 3
TOKENS = 32
FASTEST, SLOWEST = 0.2, 1.0  # seconds that a tool takes
END_OF_TEXT = 2  # the id of <|im_end|> in the small model's vocabulary, and in the tiny one's

ENGINE = {"dtype": "float32", "max_model_len": 2048, "max_num_seqs": 64, "max_num_batched_tokens": 4096}
"""vLLM's engine arguments. The last two differ by default between its server and its offline class.

Sixty-four at once are as many as there are conversations. With more, which only the raw limit could use, two cores do
less: 192 at once took a half longer than three times 64.
"""

SAMPLING: dict[str, Any] = {"temperature": 0.0, "min_tokens": TOKENS - 1, "max_tokens": TOKENS}
BIAS = {END_OF_TEXT: 100.0}


def first_messages(conversation: int) -> list[dict[str, Any]]:
    """Return the first messages of a conversation."""
    return [
        {"role": "system", "content": "You plan journeys and look up every part of them."},
        {"role": "user", "content": f"Plan journey {conversation}: two cities, one night each. Where does it begin?"},
    ]


def next_message(result: str) -> dict[str, Any]:
    """Return the message with the result of a tool."""
    return {"role": "user", "content": f"{result} What comes next?"}


def drawn(*what: object) -> float:
    """Draw a number from 0 to 1 by a hash."""
    return int.from_bytes(hashlib.blake2b(json.dumps(what).encode(), digest_size=6).digest(), "big") / 2**48


def latency(conversation: int, turn: int) -> float:
    """Return the seconds that the tool takes after a round."""
    return FASTEST + (SLOWEST - FASTEST) * drawn("latency", conversation, turn)


def tool_seconds(conversation: int) -> float:
    """Return the seconds that a conversation waits for its tools."""
    return sum(latency(conversation, turn) for turn in range(1, ROUNDS))


async def look_up(conversation: int, turn: int) -> str:
    """Look something up, slowly."""
    await asyncio.sleep(latency(conversation, turn))
    return f"Part {turn} of journey {conversation} is free."
