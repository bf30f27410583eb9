"""Decisions: how a prompt letters choices, and what the log-probabilities of the letters mean. Pure.

The model is asked for one letter, and only the probabilities of the letters are read; none is sampled. Adapters give
the raw log-probabilities, before temperature, penalties and grammars.
"""

import math
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Final, NamedTuple

MIN_CHOICES: Final = 2
MAX_CHOICES: Final = 20
"""Servers report the log-probabilities of the 20 likeliest tokens at most."""

LETTERS: Final = ascii_uppercase[:MAX_CHOICES]


class Weights(NamedTuple):
    """The probabilities of labels, which sum to 1, and the share of all probability that their letters had."""

    probabilities: dict[str, float]
    mass: float


def letters_of(labels: Sequence[str]) -> dict[str, str]:
    """Return the letters of labels, in the same order."""
    return dict(zip(LETTERS, labels, strict=False))


def write_question(prompt: str, choices: Mapping[str, str]) -> str:
    """Return the message that asks a model to decide.

    Args:
        choices: the descriptions by label; an empty one is left out.
    """
    lettered = letters_of(tuple(choices))
    lines = [
        f"{letter}. {label}: {choices[label]}" if choices[label] else f"{letter}. {label}"
        for letter, label in lettered.items()
    ]
    *others, last = lettered
    ending = f"Answer with one letter only: {', '.join(others)} or {last}."
    return "\n".join([prompt.rstrip(), "", *lines, "", ending])


def weigh(logprobs: Mapping[str, float]) -> Weights | None:
    """Return the softmax over log-probabilities, and their share of all probability.

    Args:
        logprobs: by label; minus infinity for a letter that is not known to be possible.

    Returns:
        None if no letter is possible, or a log-probability is not a number.
    """
    largest = max(logprobs.values())
    if not math.isfinite(largest) or any(map(math.isnan, logprobs.values())):
        return None
    weights = {label: math.exp(value - largest) for label, value in logprobs.items()}
    total = math.fsum(weights.values())
    mass = min(math.exp(largest) * total, 1.0)
    return Weights({label: weight / total for label, weight in weights.items()}, mass)
