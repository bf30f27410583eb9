"""FR612: what is the same in the prompts of a state in every run fits into the context window of its model.

How long it is only the model's tokenizer knows; the check gets the figures.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from flowrun.checks.subject import Subject
from flowrun.core.fixed_prompts import REMEDY, MeasuredPrompt
from flowrun.errors import Issue

_LEAST_REPLY: Final = 64
"""The tokens that a reply needs whose length the spec does not bound."""


def check_windows(subject: Subject, measured: Iterable[MeasuredPrompt]) -> Iterator[Issue]:
    """Find prompts of the subject's states that can fit in no run, or leave little room for the reply."""
    for prompt in measured:
        path = ("states", prompt.state)
        if prompt.room < 1:
            yield subject.issue("FR612", path, str(prompt), REMEDY, key=True)
        elif prompt.room < (prompt.max_tokens or _LEAST_REPLY):
            wanted = "" if prompt.max_tokens is None else f", for which max_tokens is {prompt.max_tokens:,}"
            message = f"{prompt}, which leaves {prompt.room:,} for all else and the reply{wanted}"
            yield subject.issue("FR612", path, message, REMEDY, key=True, severity="warning")
