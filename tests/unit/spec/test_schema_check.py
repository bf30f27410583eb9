"""The compiled validator decides; errors that only it finds are reported with its message, and never with a secret."""

from pathlib import Path

import pytest

from flowrun.errors import Bug, Issue, Place
from flowrun.spec import explain, schema
from flowrun.spec.environment import substitute
from flowrun.spec.schema import FLOW_SCHEMA, check_schema, find_schema, read_schema
from flowrun.spec.yaml.reader import read_yaml
from tests.unit.spec.specs import spec_text


def test_the_schema_is_found_in_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = Path(__file__).parents[3]
    monkeypatch.setattr(schema, "__file__", str(checkout / "engine" / "flowrun" / "spec" / "schema.py"))
    assert find_schema(FLOW_SCHEMA) == checkout / "schemas" / FLOW_SCHEMA


def test_the_schema_is_found_in_the_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "flowrun" / "schemas" / FLOW_SCHEMA
    installed.parent.mkdir(parents=True)
    installed.touch()
    monkeypatch.setattr(schema, "__file__", str(tmp_path / "flowrun" / "loading" / "schema.py"))
    assert find_schema(FLOW_SCHEMA) == installed


def test_a_schema_that_is_not_there_is_a_bug() -> None:
    with pytest.raises(Bug, match=r"^the schema flow\.v9 is missing from this installation of flowrun$"):
        find_schema("flow.v9")


def test_what_matches_has_no_issues() -> None:
    assert check_schema(read_yaml(spec_text(""), "f")) == []


def test_what_nothing_explains_is_reported_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "explain_mismatch", lambda document, schema: [])
    document = read_yaml(spec_text('model: {name: m, backend: "${A}", timeout: 1y}\n'), "f")
    issues = check_schema(substitute(document, {"A": 'a "secret"'}, from_profile=frozenset()))
    timeout = read_schema(FLOW_SCHEMA)["$defs"]["model"]["properties"]["timeout"]["else"]
    assert issues == [
        Issue(
            code="FR210",
            place=Place("f", 4, 27),
            path=("model", "backend"),
            message="\"${A}\" is not valid under any of the schemas listed in the 'anyOf' keyword",
            remedy="see 'flowrun schema' for what may stand here",
        ),
        Issue(
            code="FR210",
            place=Place("f", 4, 44),
            path=("model", "timeout"),
            message=f'"1y" does not match "{timeout["pattern"]}"',
            remedy="see 'flowrun schema' for what may stand here",
        ),
    ]
