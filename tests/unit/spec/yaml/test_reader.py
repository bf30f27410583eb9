"""Both parsers of PyYAML convert YAML to plain values with positions; mistakes become issues."""

import pytest
import yaml

from flowrun.errors import Issue, Place
from flowrun.spec.document import Document
from flowrun.spec.yaml import composer
from flowrun.spec.yaml.composer import MAX_DEPTH, MAX_NODES
from flowrun.spec.yaml.encoding import MAX_BYTES
from flowrun.spec.yaml.reader import read_document, read_yaml


@pytest.fixture(params=["CSafeLoader", "SafeLoader"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with the parser in C, and with the one in Python that replaces it where it is missing."""
    monkeypatch.setattr(composer, "_Loader", getattr(yaml, request.param))


def reported(document: Document) -> list[str]:
    return [f"{issue.place.line}:{issue.place.column} {issue.code} {issue.message}" for issue in document.issues]


def test_a_document_holds_plain_values_and_the_place_of_each() -> None:
    document = read_yaml('# é\na: [1, "2"]\n"ü😀": {b: no, c: ~}\n', "f")
    assert document == Document(
        file="f",
        text='# é\na: [1, "2"]\n"ü😀": {b: no, c: ~}\n',
        value={"a": [1, "2"], "ü😀": {"b": "no", "c": None}},
        places={
            (): Place("f", 2, 1),
            ("a",): Place("f", 2, 4),
            ("a", 0): Place("f", 2, 5),
            ("a", 1): Place("f", 2, 8),
            ("ü😀",): Place("f", 3, 7),
            ("ü😀", "b"): Place("f", 3, 11),
            ("ü😀", "c"): Place("f", 3, 18),
        },
        key_places={
            ("a",): Place("f", 2, 1),
            ("ü😀",): Place("f", 3, 1),
            ("ü😀", "b"): Place("f", 3, 8),
            ("ü😀", "c"): Place("f", 3, 15),
        },
    )


def test_an_alias_repeats_a_value_whose_inner_places_stay_where_it_is_written() -> None:
    document = read_yaml("x: &a\n  b: [1]\n  c: ${V}\n&k y: *a\nz: {*k : 2}\n", "f")
    assert document.issues == ()
    assert document.value == {"x": {"b": [1], "c": "${V}"}, "y": {"b": [1], "c": "${V}"}, "z": {"y": 2}}
    assert document.places["y",] == Place("f", 4, 7)
    assert document.places["y", "b", 0] == Place("f", 2, 7)
    assert document.key_places["y", "b"] == Place("f", 2, 3)
    assert document.bare == {("x", "c"), ("y", "c")}


def test_an_anchor_may_be_given_again() -> None:
    assert read_yaml("a: &x 1\nb: *x\nc: &x 2\nd: *x\n", "f").value == {"a": 1, "b": 1, "c": 2, "d": 2}


def test_a_text_that_is_quoted_or_in_a_block_is_never_anything_else() -> None:
    document = read_yaml("a: '1'\nb: \"true\"\nc: |\n  null\nd: >-\n  1\n  2\n", "f")
    assert document.value == {"a": "1", "b": "true", "c": "null\n", "d": "1 2"}


@pytest.mark.parametrize(
    ("text", "value", "issues"),
    [
        pytest.param(
            "a: 1\nb: 2\na: 3\n",
            {"a": 3, "b": 2},
            ["3:1 FR115 the key 'a' is there already, in line 1"],
            id="key twice",
        ),
        pytest.param(
            "a: {{ x }}\n",
            {"a": "{{ x }}"},
            ["1:4 FR104 the template is not quoted, so YAML reads its braces as a mapping"],
            id="unquoted template",
        ),
        pytest.param(
            "a: {b: {{ x | f('y') }}}\n",
            {"a": {"b": "{{ x | f('y') }}"}},
            ["1:8 FR104 the template is not quoted, so YAML reads its braces as a mapping"],
            id="unquoted template in a flow mapping",
        ),
        pytest.param(
            "{{ x }}: 1\n",
            {"{{ x }}": 1},
            ["1:1 FR104 the template is not quoted, so YAML reads its braces as a mapping"],
            id="template as a key",
        ),
        pytest.param(
            "a: {1: b}\n", {"a": {"1": "b"}}, ["1:5 FR116 a key must be a text, and is a number"], id="number as a key"
        ),
        pytest.param(
            "a: {.inf: b}\n",
            {"a": {".inf": "b"}},
            ["1:5 FR116 a key must be a text, and is a number"],
            id="infinity as a key",
        ),
        pytest.param(
            "? {b: [c]}\n: d\n",
            {"{b: [c]}": "d"},
            ["1:3 FR116 a key must be a text, and is a list or a mapping"],
            id="mapping as a key",
        ),
        pytest.param(
            "a: &x [1]\n*x : b\n",
            {"a": [1], "*x": "b"},
            ["2:1 FR116 a key must be a text, and is a list"],
            id="alias of a list as a key",
        ),
        pytest.param("a: [.inf]\n", {"a": [0]}, ["1:5 FR119 .inf is not a number that JSON has"], id="infinity"),
        pytest.param(
            "a: !!str 5\n",
            {"a": 5},
            ["1:4 FR118 the value has the tag !!str; a spec holds plain JSON values only"],
            id="tag of a scalar",
        ),
        pytest.param(
            "a: !x {b: 1}\n",
            {"a": {"b": 1}},
            ["1:4 FR118 the value has the tag !x; a spec holds plain JSON values only"],
            id="tag of a mapping",
        ),
        pytest.param(
            "x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\nz: {<<: [*x, {c: 4}]}\n",
            {"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}, "z": {"a": 1, "b": 2, "c": 4}},
            [
                "2:5 FR117 '<<' merges mappings in YAML 1.1 only, and this is YAML 1.2",
                "3:5 FR117 '<<' merges mappings in YAML 1.1 only, and this is YAML 1.2",
            ],
            id="merge keys",
        ),
        pytest.param(
            "a: 1\n---\nb: 2\n", {"a": 1}, ["2:1 FR113 a second YAML document begins here"], id="two documents"
        ),
        pytest.param("a: *b\n", None, ["1:4 FR120 there is no anchor &b above"], id="unknown alias"),
        pytest.param(
            "a: &b [*b]\n", None, ["1:8 FR121 *b stands inside of the value that &b names"], id="recursive alias"
        ),
        pytest.param("", None, ["1:1 FR112 the file is empty"], id="nothing"),
        pytest.param("---\n...\n", None, ["1:1 FR112 the file is empty"], id="an empty document"),
        pytest.param(
            "- a\n", None, ["1:1 FR114 the file must be a mapping of keys to values, and is a list"], id="a list"
        ),
        pytest.param(
            "# c\n hello\n",
            None,
            ["2:2 FR114 the file must be a mapping of keys to values, and is a text"],
            id="a text",
        ),
    ],
)
def test_a_mistake_is_reported_and_parsing_continues_with_the_likely_meaning(
    text: str, value: object, issues: list[str]
) -> None:
    document = read_yaml(text, "f")
    assert (document.value, reported(document)) == (value, issues)


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        pytest.param("[" * 100_000, ["FR123"], id="brackets"),
        pytest.param("{a: " * 100_000, ["FR123"], id="braces"),
        pytest.param("{{ " * 100_000, ["FR123"], id="templates"),
        pytest.param("- " * 100_000, ["FR123"], id="lists in lists"),
        pytest.param("? " * 100_000, ["FR123"], id="keys in keys"),
        pytest.param("a: [" + "1," * MAX_NODES + "]", ["FR122"], id="values"),
        pytest.param("? [" + "1," * MAX_NODES + "]\n: a", ["FR122"], id="values in a key"),
        pytest.param(
            "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 200))]),
            ["FR123"],
            id="depth by aliases",
        ),
        pytest.param(
            "\n".join(["a0: &a0 [x,x,x,x]", *(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))]),
            ["FR122"],
            id="billion laughs",
        ),
        pytest.param("a" * (MAX_BYTES + 1), ["FR124"], id="bytes"),
    ],
)
def test_a_limit_ends_the_reading(text: str, codes: list[str]) -> None:
    document = read_yaml(text, "f")
    assert (document.value, [issue.code for issue in document.issues]) == (None, codes)


def test_the_deepest_nesting_allowed_is_read() -> None:
    value = read_yaml("a: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1), "f").value
    depth = 0
    while value:
        value, depth = next(iter(value.values() if isinstance(value, dict) else value), None), depth + 1
    assert depth == MAX_DEPTH - 1


def test_mistakes_of_the_bytes_and_of_the_text_are_reported_together() -> None:
    document = read_document(b"\xef\xbb\xbfa: \x07\nb: {{ x }}\nb: @c\n", "f")
    assert [(issue.place.line, issue.code) for issue in document.issues] == [
        (1, "FR110"),
        (1, "FR111"),
        (3, "FR103"),
        (2, "FR104"),
        (3, "FR115"),
    ]


def test_python_s_parser_lets_no_error_of_its_own_through() -> None:
    document = read_yaml('a: "\\U0011FFFF"\nb: "\\ud800"\n', "f")
    assert document.value is None
    assert {issue.code for issue in document.issues} in ({"FR101"}, {"FR108"})  # the two parsers differ


def test_every_number_exists_in_json() -> None:
    document = read_yaml("a: [1e308, -1e308, 1e-400]\n", "f")
    assert document.value == {"a": [1e308, -1e308, 0.0]}


def test_every_issue_says_what_to_do() -> None:
    issues: tuple[Issue, ...] = read_yaml("a: *b\nc: !x y\n<<: {}\n1: .nan\nc: 1\n--- \n- \n", "f").issues
    assert [issue.code for issue in issues if not issue.remedy] == []
    assert len(issues) == 7
