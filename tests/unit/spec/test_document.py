"""Positions are found by a path in the file and by a path in the ``Spec``."""

import pytest

from flowrun.core.messages import Log, Message
from flowrun.errors import Failure, Issue, Path, Place
from flowrun.spec.document import issue_at, place_of, written_path
from flowrun.spec.masking import mask, mask_excerpt
from flowrun.spec.yaml.reader import read_yaml

DOCUMENT = read_yaml(
    """\
model: {name: m}
models: {other: {name: n}}
messages:
  - {role: user, content: hi}
states:
  a: {type: map, as: x, with: {y: 1}, next: b}
  b: {type: parallel, branches: {c: {with: {z: 1}}}, routes: [{to: a}]}
flows:
  f: {model: {name: m}, states: {a: {next: b}}}
  g: {models: {default: {name: m}}, threads: {main: []}}
""",
    "f",
)


@pytest.mark.parametrize(
    ("path", "written", "place"),
    [
        (("model", "name"), ("model", "name"), (1, 15)),
        (("models", "default", "name"), ("model", "name"), (1, 15)),
        (("models", "other", "name"), ("models", "other", "name"), (2, 24)),
        (("models", "default", "engine", "dtype"), ("model", "engine", "dtype"), (1, 8)),
        (("threads", "main", 0, "content"), ("messages", 0, "content"), (4, 27)),
        (("states", "a", "routes", 0, "to"), ("states", "a", "next"), (6, 45)),
        (("states", "b", "routes", 0, "to"), ("states", "b", "routes", 0, "to"), (7, 68)),
        (("states", "a", "item"), ("states", "a", "as"), (6, 22)),
        (("states", "a", "arguments", "y"), ("states", "a", "with", "y"), (6, 35)),
        (
            ("states", "b", "branches", "c", "arguments", "z"),
            ("states", "b", "branches", "c", "with", "z"),
            (7, 48),
        ),
        (("flows", "f", "models", "default", "name"), ("flows", "f", "model", "name"), (9, 21)),
        (("flows", "f", "states", "a", "routes", 0), ("flows", "f", "states", "a", "next"), (9, 44)),
        (("flows", "g", "models", "default"), ("flows", "g", "models", "default"), (10, 25)),
        (("flows", "g", "threads", "main", 3), ("flows", "g", "threads", "main", 3), (10, 53)),
        (("nowhere", "at", "all"), ("nowhere", "at", "all"), (1, 1)),
        ((), (), (1, 1)),
    ],
)
def test_a_place_is_that_of_the_nearest_value(path: Path, written: Path, place: tuple[int, int]) -> None:
    assert (written_path(DOCUMENT, path), place_of(DOCUMENT, path)) == (written, Place("f", *place))


def test_the_place_of_a_key_is_where_it_begins() -> None:
    assert place_of(DOCUMENT, ("models", "default", "name"), key=True) == Place("f", 1, 9)
    assert place_of(DOCUMENT, ("states", "a", "wibble"), key=True) == Place("f", 6, 6)


def test_an_issue_is_made_at_a_path() -> None:
    assert issue_at(DOCUMENT, "FR601", ("models", "default", "name"), "no such model", "write another") == Issue(
        code="FR601",
        place=Place("f", 1, 15),
        path=("model", "name"),
        message="no such model",
        remedy="write another",
    )


@pytest.mark.parametrize(
    ("text", "secrets", "shown"),
    [
        pytest.param("a sk-12345678 b", {"sk-12345678": "${KEY}"}, "a ${KEY} b", id="a long one"),
        pytest.param("xsk-12345678x", {"sk-12345678": "${KEY}"}, "x${KEY}x", id="a long one inside of a word"),
        pytest.param("1 of 10, '1'", {"1": "${N}"}, "${N} of 10, '${N}'", id="a short one only where it stands alone"),
        pytest.param('"a\\"b\\nc d"', {'a"b\nc d': "${KEY}"}, '"${KEY}"', id="as JSON writes it"),
        pytest.param(
            "abcdefgh-i abcdefgh", {"abcdefgh": "${A}", "abcdefgh-i": "${B}"}, "${B} ${A}", id="longest first"
        ),
        pytest.param("secret KEY", {"secret": "${KEY}", "KEY": "${B}"}, "${KEY} ${B}", id="in one go"),
        pytest.param("said sk-1234...", {"sk-12345678": "${KEY}"}, "said ${KEY}...", id="its beginning at a cut"),
        pytest.param("'sk-12345'", {"sk-12345678": "${KEY}"}, "'${KEY}'", id="its beginning at the end of a quotation"),
        pytest.param("a sk-1234\nb", {"sk-12345678": "${KEY}"}, "a ${KEY}\nb", id="its beginning at the end of a line"),
        pytest.param("…45678 b", {"sk-12345678": "${KEY}"}, "…${KEY} b", id="its end after a cut"),
        pytest.param("sk-1 is", {"sk-12345678": "${KEY}"}, "sk-1 is", id="what only begins like one"),
        pytest.param("nothing", {}, "nothing", id="no secrets"),
    ],
)
def test_secrets_are_replaced_by_their_variables(text: str, secrets: dict[str, str], shown: str) -> None:
    assert mask_excerpt(text, secrets) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param("a sk-12345678 b", "a ${KEY} b", id="a text"),
        pytest.param("said sk-1234", "said sk-1234", id="what only begins like one is data"),
        pytest.param(
            {"sk-12345678": ["sk-12345678", 12345678, 1, None]}, {"${KEY}": ["${KEY}", "${N}", 1, None]}, id="JSON"
        ),
        pytest.param('"q\\"uote123"', '"${Q}"', id="as JSON writes it"),
        pytest.param("<b>q&quot;uote123</b>", "<b>${Q}</b>", id="as HTML writes it"),
        pytest.param(
            Message(role="user", content="sk-12345678"), Message(role="user", content="${KEY}"), id="a struct"
        ),
        pytest.param(Log([("sk-12345678",)]), Log([("${KEY}",)]), id="a log"),
        pytest.param(
            Failure(name="tool.failed", message="'sk-123...'"),
            Failure(name="tool.failed", message="'${KEY}...'"),
            id="an error, which may be cut",
        ),
    ],
)
def test_what_leaves_has_no_secret(value: object, shown: object) -> None:
    assert mask(value, {"sk-12345678": "${KEY}", "12345678": "${N}", 'q"uote123': "${Q}"}) == shown
