"""However a text is split, its masked pieces are the masked text, and no secret is in what was shown."""

from hypothesis import example, given
from hypothesis import strategies as st

from flowrun.spec import mask
from flowrun.spec.masked_stream import MaskedStream

LETTERS = 'ab"<'
"""So few that secrets overlap, and begin and end like each other; two are written in other ways in JSON and HTML."""

_texts = st.text(alphabet=LETTERS, max_size=40)
_secrets = st.dictionaries(st.text(alphabet=LETTERS, min_size=1, max_size=6), st.just("${S}"), max_size=3)


@given(pieces=st.lists(_texts, max_size=8), secrets=_secrets)
@example(pieces=["aa", "ab"], secrets={"aab": "${S}"})
@example(pieces=["ab", "a", "b"], secrets={"ab": "${S}", "abab": "${T}"})
def test_each_split_gives_the_masked_text(pieces: list[str], secrets: dict[str, str]) -> None:
    stream = MaskedStream(secrets)
    shown = [stream.feed(piece) for piece in pieces]
    assert "".join([*shown, stream.end()]) == mask("".join(pieces), secrets)


@given(text=_texts, secrets=_secrets)
def test_letter_by_letter(text: str, secrets: dict[str, str]) -> None:
    stream = MaskedStream(secrets)
    assert "".join([*map(stream.feed, text), stream.end()]) == mask(text, secrets)


@given(pieces=st.lists(_texts, max_size=8), secrets=_secrets)
def test_what_is_shown_of_a_text_that_goes_on_stays(pieces: list[str], secrets: dict[str, str]) -> None:
    stream, said, shown = MaskedStream(secrets), "", ""
    for piece in pieces:
        said += piece
        shown += stream.feed(piece)
        for more in ("", "a", 'b"'):
            assert mask(said + more, secrets).startswith(shown)


def test_holds_back_no_more_than_a_secret_may_begin_with() -> None:
    stream = MaskedStream({"sesame-open": "${TOKEN}"})
    shown = [stream.feed(piece) for piece in ("It is ses", "ame", "-op", "en. Or sesa", "m seed")]
    assert (shown, stream.end()) == (["It is ", "", "", "${TOKEN}. Or ", "sesam seed"], "")


def test_without_secrets_nothing_is_held_back() -> None:
    stream = MaskedStream({})
    assert [stream.feed("a"), stream.feed("b"), stream.end()] == ["a", "b", ""]
