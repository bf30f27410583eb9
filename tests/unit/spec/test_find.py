"""Specs are found in folders by what they are, in whatever form YAML allows; and JSON is read as JSON."""

from pathlib import Path

import pytest

from flowrun.spec.find import find_specs
from flowrun.spec.yaml.reader import read_document

SPEC = "flowrun: v1\nname: a\nversion: 1.0.0\nstates: {done: {type: end}}\n"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(SPEC.encode(), id="plain"),
        pytest.param(SPEC.replace("flowrun", "'flowrun'").encode(), id="quoted"),
        pytest.param("".join(f"  {line}\n" for line in SPEC.splitlines()).encode(), id="indented"),
        pytest.param(b'{"name": "a", "flowrun": "v1"}', id="JSON"),
        pytest.param(SPEC.replace("\n", "\r").encode(), id="CR line ends"),
        pytest.param(b"\xef\xbb\xbf" + SPEC.encode(), id="byte order mark"),
        pytest.param(SPEC.encode("utf-16"), id="UTF-16"),
        pytest.param(SPEC.replace("flowrun", "flowrnu").encode(), id="misspelt"),
        pytest.param(b"  flowrun: v1\n  states: {a: [}\n", id="no YAML"),
        pytest.param(b"? flowrun\n: v1\n", id="explicit key"),
    ],
)
def test_a_spec_is_found(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "spec.yaml").write_bytes(content)
    assert list(find_specs(tmp_path)) == [tmp_path / "spec.yaml"]


@pytest.mark.parametrize(
    "text",
    [
        "flow: a.yaml\ntests: [{name: a}]\n",
        "a: {flowrun: v1}\n",
        "services: {flowrun: {image: x}}\nversion: '3'\n",
        "on: push\njobs: {a: {steps: [{run: 'flowrun validate'}]}}\n",
    ],
)
def test_other_files_are_no_specs(tmp_path: Path, text: str) -> None:
    (tmp_path / "other.yaml").write_text(text)
    assert list(find_specs(tmp_path)) == []


def test_json_is_read_with_its_tabs_and_surrogate_pairs() -> None:
    text = '{\n\t"a": "\\ud83d\\ude00",\t"b": ["\\\\ud83d", "\\uD83D\\uDE00x"],\n\t"c": 1}'
    document = read_document(text.encode(), "a.json")
    assert document.issues == ()
    assert document.value == {"a": "\U0001f600", "b": ["\\ud83d", "\U0001f600x"], "c": 1}
    line = text.splitlines()[1]
    assert [(document.key_places[key,].line, document.key_places[key,].column) for key in "abc"] == [
        (2, 2),
        (2, line.index('"b"') + 1),
        (3, 2),
    ]


@pytest.mark.parametrize("text", ["a: '\\ud83d\\ude00'", "a: \\ud83d\\ude00"])
def test_only_double_quoted_text_has_escapes(text: str) -> None:
    assert read_document(text.encode(), "a.yaml").value == {"a": "\\ud83d\\ude00"}


def test_half_of_a_surrogate_pair_is_no_character() -> None:
    assert [issue.code for issue in read_document(b'a: "\\ud83d"', "a.yaml").issues] == ["FR108"]
