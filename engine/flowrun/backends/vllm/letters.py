"""The letters of decisions as tokens of a model, learnt by rendering samples with its chat template. Pure.

A letter has several tokens in most vocabularies ("A", " A"), and which one begins an answer depends on what stands
before it. So each letter is tokenized behind the very text that ends a prompt. Where no answer begins there, as in a
template that opens a block of reasoning, nothing can be decided, and ``fault`` says why.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from flowrun.core.decisions import LETTERS
from flowrun.errors import ModelError

_WORD: Final = "Zebra"
_ANSWER: Final = "Yak"
_BLOCK: Final = re.compile(r"[<\[◁][|/]?[\w:]*(?:think|thought|reason)\w*[|]?[>\]▷]", re.IGNORECASE)
_ENDS: Final = re.compile("[/]|end", re.IGNORECASE)
_REMEDY: Final = "set model.chat_template_kwargs: {enable_thinking: false}, if its template knows that"

Render = Callable[[Sequence[dict[str, Any]], Mapping[str, Any]], str]
"""Renders messages with variables of the template; raises any error for what the template refuses."""


class Letters(NamedTuple):
    """The token of each letter, in order; none if there is a ``fault``."""

    ids: tuple[int, ...] = ()
    fault: str = ""

    def read(self, logprobs: Mapping[int, Any], labels: Sequence[str]) -> dict[str, float]:
        """Return the log-probabilities of labels.

        Args:
            logprobs: vLLM's ``Logprob`` by token.

        Raises:
            ModelError: that of a letter is missing.
        """
        found = dict(zip(labels, (logprobs.get(token) for token in self.ids), strict=False))
        if None in found.values():
            what = "vLLM returned no log-probabilities of the letters: does the engine decode speculatively?"
            raise ModelError("model.request_refused", what)
        return {label: float(one.logprob) for label, one in found.items() if one is not None}


def learn_letters(render: Render, tokenize: Callable[[str], Sequence[int]], *, uses_template: bool) -> Letters:
    """Return the tokens of the letters where an answer begins.

    Args:
        tokenize: returns the tokens of a text of prompts.
        uses_template: whether prompts are made of text; else each letter is tokenized alone.
    """
    question = {"role": "user", "content": f"{_WORD}?"}
    try:
        prompt = render([question], {})
    except Exception:  # such a template refuses every request, and says why
        return _tokens(tokenize, [""])
    if not uses_template:
        return _tokens(tokenize, [""])
    between = _before_answer(render, question, prompt)
    if fault := _reasons(render, question, prompt) or (between.strip() and f"the template writes {between!r} first"):
        why = f"a decide state needs a model that answers at once, and {fault}: {_REMEDY}"
        return Letters(fault=why)
    return _tokens(tokenize, list(dict.fromkeys([prompt + between, prompt, ""])))


def _reasons(render: Render, question: dict[str, Any], prompt: str) -> str:
    """Return the words for a prompt after which the model reasons; empty if it answers, as far as is known."""
    blocks = _BLOCK.findall(prompt.rpartition(_WORD)[2])
    if blocks and not _ENDS.search(blocks[-1]):
        return f"this template opens a block of reasoning, {blocks[-1]}"
    try:
        silent = render([question], {"enable_thinking": False})
    except Exception:
        return ""
    return "" if silent == prompt else "this model reasons first unless its template is told not to"


def _before_answer(render: Render, question: dict[str, Any], prompt: str) -> str:
    """Return what the template writes between the end of a prompt and the answer; empty if that is not known."""
    try:
        both = render(
            [question, {"role": "assistant", "content": _ANSWER}],
            {"add_generation_prompt": False},
        )
    except Exception:
        return ""
    between, found, _ = both[len(prompt) :].partition(_ANSWER)
    return between if found and both.startswith(prompt) else ""


def _tokens(tokenize: Callable[[str], Sequence[int]], prompts: Sequence[str]) -> Letters:
    """Return the tokens of the letters behind the first of some texts that each is one token behind.

    The first text may end in a space that belongs to the letters, so what stands before is the second one.
    """
    before = list(tokenize(prompts[-2])) if len(prompts) > 1 else []
    for text in prompts:
        head = before if text else []
        found = [list(tokenize(text + letter)) for letter in LETTERS]
        ids = tuple(ids[-1] for ids in found if ids)
        if all(ids[:-1] == head for ids in found) and len(set(ids)) == len(LETTERS):
            return Letters(ids)
    return Letters(fault="a decide state needs a token for each letter, and the model's vocabulary has none")
