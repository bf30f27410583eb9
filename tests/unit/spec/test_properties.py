"""For any bytes, loading returns a spec or raises a ``SpecError``: no other exception, no crash, no hang."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowrun.errors import CODES, SpecError, UsageError
from flowrun.spec import parse_text, place_of
from flowrun.spec.load import _load
from flowrun.spec.model import JSON
from flowrun.spec.yaml import composer
from flowrun.spec.yaml.reader import read_document, read_yaml

CASES = Path(__file__).parents[2] / "cases" / "valid"
VALID = [path.read_text(encoding="utf-8") for path in sorted(CASES.glob("*.yaml"))]

TOKENS = st.sampled_from(
    [
        "\t", "{{", "}}", "${", "${X}", "${X:-1}", "$${", "[", "]", "{", "}", ": ", "- ", "\n", "\n  ", "\r", "\r\n",
        '"', "'", "&a ", "*a", "!!str ", "!x ", "<<: *a\n", "---\n", "...\n", "%", "@", "`", "|", ">", "? ", ",", "#",
        " #", "\\", "\x00", "\ufeff", "\u2028", "\ud800", "é", "😀", "~", "null", ".inf", "1e999", "9" * 30, "yes",
        "model:", "type: chat", "flows:", "profiles:", "x-a: &a", "next: ask", "routes:", "null\n", "5", "true",
    ]
)  # fmt: skip
anytime = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
"""Settings without a deadline: the speed of the machine must not decide a test."""

PROFILES = st.sampled_from([None, "server", "mistral-7b", "small"])
ENVIRON = {"X": "7", "OPENAI_BASE_URL": "http://a secret url"}


def check_loading(load: Callable[[], Any]) -> None:
    """Load a spec; each issue must be complete, and none may show a value of the environment."""
    try:
        load()
    except SpecError as error:
        issues = error.issues
        assert issues
        for issue in issues:
            assert issue.code in CODES
            assert issue.message
            assert issue.remedy
            assert issue.place.line >= 1
            assert issue.place.column >= 1
            assert "a secret url" not in issue.message + issue.remedy
    except UsageError as error:
        if "has no profile" not in str(error):
            raise


@anytime
@given(st.binary(max_size=300))
def test_any_bytes(raw: bytes) -> None:
    check_loading(lambda: _load(read_document(raw, "f"), profile=None, environ={}, require_environment=True))


@anytime
@given(st.text(max_size=300))
def test_any_text(text: str) -> None:
    check_loading(lambda: parse_text(text))


@anytime
@given(st.lists(TOKENS | st.text(max_size=3), max_size=40).map("".join))
def test_any_text_that_looks_like_yaml(text: str) -> None:
    check_loading(lambda: parse_text(text))


@anytime
@given(st.lists(TOKENS, max_size=30).map("".join))
def test_any_text_with_the_parser_in_python(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(composer, "_Loader", yaml.SafeLoader)
        check_loading(lambda: parse_text(text))


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """Draw a valid spec in which a few places are changed."""
    text = draw(st.sampled_from(VALID))
    for _ in range(draw(st.integers(1, 5))):
        lines = text.split("\n")
        at = draw(st.integers(0, len(text)))
        row, other = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        match draw(st.sampled_from(["insert", "delete", "swap", "repeat", "indent"])):
            case "insert":
                text = text[:at] + draw(TOKENS) + text[at:]
            case "delete":
                text = text[:at] + text[at + draw(st.integers(1, 20)) :]
            case "swap":
                lines[row], lines[other] = lines[other], lines[row]
                text = "\n".join(lines)
            case "repeat":
                lines.insert(other, lines[row])
                text = "\n".join(lines)
            case "indent":
                lines[row] = " " * draw(st.integers(0, 8)) + lines[row].lstrip()
                text = "\n".join(lines)
    return text


@anytime
@given(mutated(), PROFILES, st.booleans())
def test_any_mutation_of_a_valid_spec(text: str, profile: str | None, required: bool) -> None:
    check_loading(lambda: parse_text(text, profile=profile, environ=ENVIRON, require_environment=required))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(exclude_categories=["C", "Z"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(alphabet=st.characters(exclude_categories=["C", "Z"]), max_size=5), inner, max_size=3),
    max_leaves=15,
)  # fmt: skip


@anytime
@given(st.dictionaries(st.text(alphabet="abc_", min_size=1, max_size=5), JSON_VALUES, min_size=1))
def test_json_is_read_as_it_is_and_every_value_has_a_place(value: dict[str, JSON]) -> None:
    import json

    document = read_yaml(json.dumps(value, indent=1, ensure_ascii=False), "f")
    assert document.issues == ()
    assert _same(document.value, value)
    for path in document.places:
        assert place_of(document, path) == document.places[path]


@anytime
@given(
    st.sampled_from(["inputs", "model", "models", "sampling", "profiles", "tools", "messages", "threads", "vars"])
    | st.sampled_from(["start", "states", "flows", "limits", "description", "version", "x-y"]),
    JSON_VALUES | st.dictionaries(st.text("abc", min_size=1), JSON_VALUES, max_size=3),
)
def test_any_json_in_place_of_a_property(name: str, value: JSON) -> None:
    import json

    written = json.dumps({"flowrun": "v1", "name": "x", "version": "1.0.0", name: value}, ensure_ascii=False)
    check_loading(lambda: parse_text(written, profile=None, environ=ENVIRON))


def _same(one: JSON, other: JSON) -> bool:
    """Return whether two JSON values are equal, with the same types; floats are compared exactly."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=0, abs_tol=0)
    return type(one) is type(other) and one == other
