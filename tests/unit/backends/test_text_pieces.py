"""The pieces of a watched text are together the content of its reply, whatever a parser makes of it in the end."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun.backends.text_pieces import TextPieces, in_one_piece
from flowrun.core.messages import Reply
from tests.unit.backends.contract import said_in


@pytest.mark.parametrize(
    ("written", "content", "passed"),
    [
        pytest.param(["It ", "is", " fair."], "It is fair.", ["It", " is", " fair."], id="as it is written"),
        pytest.param(["Let me look.\n", "\n"], "Let me look.", ["Let me look."], id="space before a call is dropped"),
        pytest.param(["Hi. \n"], "Hi. \n", ["Hi.", " \n"], id="space at the end is kept"),
        pytest.param(["\n\n"], None, [], id="space alone is nothing"),
        pytest.param(["<call", ">"], None, ["<call", ">", None], id="a call was taken for text"),
        pytest.param(["<think", "Hm."], "Hi.", ["<think", "Hm.", None, "Hi."], id="another text"),
        pytest.param([], "Hi.", ["Hi."], id="nothing was passed on"),
        pytest.param(["a\ud83d", "\ude00b"], "a😀b", ["a", "😀b"], id="half of a character"),
        pytest.param(["a\ud83d"], "a\ud83d", ["a", "\N{REPLACEMENT CHARACTER}"], id="half of one at the end"),
    ],
)
def test_pieces(written: Sequence[str], content: str | None, passed: Sequence[str | None]) -> None:
    seen: list[str | None] = []
    pieces = TextPieces(seen.append)
    for text in written:
        pieces.write(text)
    assert (pieces.finish(Reply(content=content)), seen) == (Reply(content=content), passed)


def test_a_restart_is_told_once_and_only_of_what_was_passed_on() -> None:
    seen: list[str | None] = []
    pieces = TextPieces(seen.append)
    pieces.restart()
    pieces.write("It is f")
    pieces.restart()
    pieces.restart()
    pieces.write("It is fair.")
    pieces.finish(Reply(content="It is fair."))
    assert seen == ["It is f", None, "It is fair."]


@given(written=st.lists(st.text(alphabet="a <\n", max_size=5)), content=st.text(alphabet="a <\n", max_size=12))
def test_whatever_was_written_the_pieces_are_the_content(written: list[str], content: str) -> None:
    seen: list[str | None] = []
    pieces = TextPieces(seen.append)
    for text in written:
        pieces.write(text)
    pieces.finish(Reply(content=content))
    assert said_in(seen) == content


def test_a_reply_that_nobody_watches_is_returned_as_it_is() -> None:
    reply = Reply(content="Hi.")
    assert in_one_piece(reply, None) is reply
