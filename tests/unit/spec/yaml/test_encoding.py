"""Bytes become text, or issues that say which line is wrong."""

import pytest

from flowrun.errors import Place
from flowrun.spec.yaml.encoding import MAX_BYTES, MAX_LISTED, clean_text, decode_source


def found(raw: bytes) -> list[tuple[str, Place, str]]:
    return [(issue.code, issue.place, issue.message) for issue in decode_source(raw, "f")[1]]


def test_utf8_is_decoded() -> None:
    assert decode_source("é: 😀\n".encode(), "f") == ("é: 😀\n", [])


def test_a_byte_order_mark_is_reported_and_removed() -> None:
    text, issues = decode_source(b"\xef\xbb\xbfa: 1", "f")
    assert (text, [issue.code for issue in issues]) == ("a: 1", ["FR110"])


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param("a".encode("utf-16"), "the file is UTF-16, and must be UTF-8", id="utf-16"),
        pytest.param("a".encode("utf-32"), "the file is UTF-32, and must be UTF-8", id="utf-32"),
        pytest.param(
            "a".encode("utf-16-le"),
            "the file looks like UTF-16 or UTF-32 (it begins with zero bytes)",
            id="utf-16 without a mark",
        ),
    ],
)
def test_another_encoding_is_named(raw: bytes, message: str) -> None:
    assert decode_source(raw, "f")[0] is None
    assert found(raw) == [("FR109", Place("f", 1, 1), message)]


def test_wrong_bytes_are_reported_once_per_line_with_the_column_in_characters() -> None:
    assert found("é: ".encode() + b"\xff\xfe\r\nb: 2\rc: \xe9\n") == [
        ("FR109", Place("f", 1, 4), "the byte 0xFF is not UTF-8"),
        ("FR109", Place("f", 3, 4), "the byte 0xE9 is not UTF-8"),
    ]


def test_a_binary_file_gives_a_bounded_number_of_issues() -> None:
    assert len(found(b"abcd\xff\n" * 1000)) == MAX_LISTED


def test_a_file_that_is_too_large_is_not_decoded() -> None:
    text, issues = decode_source(b"#" * (MAX_BYTES + 1), "f")
    assert (text, [issue.message for issue in issues]) == (
        None,
        ["the file has 1,048,577 bytes, and a spec may have 1,048,576"],
    )


def test_invisible_characters_become_spaces_so_that_columns_stay() -> None:
    text, issues = clean_text("\ufeffa: \x00\x07b\n\u2028\tc\x85\ud800", "f")
    assert text == "a:   b\n \tc  "
    assert [(issue.code, issue.place, issue.message[:20]) for issue in issues] == [
        ("FR110", Place("f", 1, 1), "the file begins with"),
        ("FR111", Place("f", 1, 4), "the character U+0000"),
        ("FR111", Place("f", 2, 1), "the character U+2028"),
    ]
