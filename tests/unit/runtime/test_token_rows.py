"""Rows of tokens: a branch goes on while prompts extend it, each written token counts once, a secret leaves none."""

import asyncio
from typing import Any

import pytest

from flowrun.backends.kept_tokens import KeptTokensBackend
from flowrun.backends.token_ids import pack_tokens
from flowrun.backends.wrapper import ReadyBackend
from flowrun.core.events import AskModel
from flowrun.core.messages import KeptReply, Message, Reply, Tokens
from flowrun.core.ports import OnText
from flowrun.errors import ModelError
from flowrun.runtime.token_rows import token_rows
from tests.unit.backends.contract import ask

USER = Message(role="user")


class Talk:
    """A conversation on one thread, of which each prompt and reply is given as tokens."""

    def __init__(self, run: str = "r", vocabulary: int = 1) -> None:
        self.run, self.vocabulary = run, vocabulary
        self.thread: list[Message] = []

    def say(self, prompt: list[int], ids: list[int], *, kept: bool = True) -> KeptReply:
        logprobs = [-float(one) for one in ids] if kept else []
        tokens = pack_tokens(ids, after=prompt, vocabulary=self.vocabulary, thread=self.thread, logprobs=logprobs)
        self.thread += [Message(role="assistant", tokens=tokens), USER]
        return KeptReply(run=self.run, thread="main", state="ask", finish_reason="stop", tokens=tokens)


def seen(*replies: KeptReply) -> list[tuple[list[int], list[int]]]:
    rows = token_rows("r", replies)
    assert rows is not None
    for row in rows:
        assert [one is None for one in row["logprobs"]] == [not wrote for wrote in row["mask"]]
        assert [one for one in row["logprobs"] if one is not None] == [
            -float(one) for one, wrote in zip(row["ids"], row["mask"], strict=True) if wrote
        ]
    return [(row["ids"], row["mask"]) for row in rows]


def test_prompts_that_extend_the_conversation_are_one_row() -> None:
    talk = Talk()
    assert seen(talk.say([1, 2], [3]), talk.say([1, 2, 3, 4], [5, 6])) == [([1, 2, 3, 4, 5, 6], [0, 0, 1, 0, 1, 1])]


def test_a_prompt_that_was_rendered_anew_begins_a_row_in_which_nothing_counts_again() -> None:
    talk = Talk()
    first, second, third = talk.say([1, 2], [3]), talk.say([1, 9, 3, 4], [5]), talk.say([1, 9, 3, 4, 5, 6], [7])
    assert seen(first, second, third) == [([1, 2, 3], [0, 0, 1]), ([1, 9, 3, 4, 5, 6, 7], [0, 0, 0, 0, 1, 0, 1])]


def test_a_reply_whose_tokens_were_not_kept_is_part_of_the_next_prompt() -> None:
    talk = Talk()
    first, _, third = talk.say([1], [2]), talk.say([1, 2, 3], [4], kept=False), talk.say([1, 2, 3, 4, 5], [6])
    assert seen(first, third) == [([1, 2], [0, 1]), ([1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 1])]


def test_threads_of_sub_flows_and_vocabularies_have_rows_of_their_own() -> None:
    own, child, other = Talk(), Talk("r.3.0"), Talk(vocabulary=2)
    rows = token_rows("r", [own.say([1], [2]), child.say([1], [2]), other.say([7], [8]), own.say([1, 2], [3])])
    assert rows is not None
    assert [(row.get("child"), row["ids"]) for row in rows] == [(None, [1, 2, 3]), ("3.0", [1, 2]), (None, [7, 8])]


SECRETS = {"sesame-0123": "${WORD}"}


class Giver(ReadyBackend):
    """A model that gives one reply, with its tokens if it has them."""

    def __init__(self, given: Reply) -> None:
        self.given = given

    def check_tokens(self) -> None:
        """Do nothing: only its reply shows whether it gives tokens."""

    async def reply(self, request: AskModel, *, keeps_tokens: bool = False, on_text: OnText | None = None) -> Reply:
        """Return the reply; it must be asked for its tokens."""
        assert keeps_tokens
        return self.given


def gate(reply: Reply, *, secrets: dict[str, str] = SECRETS, asked: str = "?") -> Reply:
    backend = KeptTokensBackend(Giver(reply), secrets)
    return asyncio.run(backend.reply(ask([Message(role="user", content=asked)])))


TOKENS = pack_tokens([3], after=[1], vocabulary=1, logprobs=[-1.0])


@pytest.mark.parametrize(
    ("reply", "asked", "masked"),
    [
        ({"content": "open"}, "?", False),
        ({"content": "sesame-0123"}, "?", True),
        ({"content": "open"}, "say sesame-0123", True),
        ({"content": "open", "text": "think sesame-0123"}, "?", True),
    ],
)
def test_no_tokens_of_a_text_with_a_secret_are_kept(reply: dict[str, Any], asked: str, masked: bool) -> None:
    tokens = gate(Reply(**reply, tokens=TOKENS), asked=asked).tokens
    assert tokens is not None
    assert (tokens.masked, bool(tokens.logprobs), bool(tokens.prompt)) == (masked, not masked, not masked)
    kept = KeptReply(run="r", thread="main", state="ask", finish_reason="stop", tokens=tokens)
    assert (token_rows("r", [kept]) is None) == masked


@pytest.mark.parametrize("tokens", [None, Tokens(vocabulary=1, ids=b"\3\0\0\0", end=2, digest=1)])
def test_a_reply_without_its_tokens_is_refused(tokens: Tokens | None) -> None:
    with pytest.raises(ModelError, match="the model 'default' gave a reply without its tokens"):
        gate(Reply(content="hi", tokens=tokens))


def test_a_reply_that_was_cut_off_needs_none() -> None:
    assert gate(Reply(content="hi", finish_reason="length")).tokens is None
