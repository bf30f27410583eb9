"""The tokens of a run as rows for training: one for each branch of each thread."""

from collections.abc import Iterable
from typing import Any, Final

from flowrun.backends.token_ids import ids_of, numbers_of
from flowrun.core.messages import KeptReply

_DIGITS: Final = 6
"""Decimal places of a log-probability; its own error is larger."""


def token_rows(run: str, replies: Iterable[KeptReply]) -> list[dict[str, Any]] | None:
    """Return a row for each branch, in the order in which the branches began; None if one of them has a secret.

    A branch goes on as long as each prompt is what the model read and wrote before, with more at its end. In the next
    branch, what the model wrote in the one before is part of the prompt, so each token counts once.

    Args:
        run: the id of the run; those of its children begin with it.
    """
    rows: list[dict[str, Any]] = []
    open_rows: dict[tuple[str, str, int], dict[str, Any]] = {}
    for reply in replies:
        tokens = reply.tokens
        if tokens.masked:
            return None
        branch = (reply.run, reply.thread, tokens.vocabulary)
        if tokens.begins or branch not in open_rows:
            child = {} if reply.run == run else {"child": reply.run.removeprefix(f"{run}.")}
            begun: dict[str, Any] = {"thread": reply.thread, **child}
            open_rows[branch] = begun | {name: [] for name in ("states", "finish_reasons", "ids", "mask", "logprobs")}
            rows.append(open_rows[branch])
        row, prompt, ids = open_rows[branch], ids_of(tokens.prompt), ids_of(tokens.ids)
        row["states"].append(reply.state)
        row["finish_reasons"].append(reply.finish_reason)
        row["ids"] += [*prompt, *ids]
        row["mask"] += [0] * len(prompt) + [1] * len(ids)
        row["logprobs"] += [None] * len(prompt) + [round(number, _DIGITS) for number in numbers_of(tokens.logprobs)]
    return rows
