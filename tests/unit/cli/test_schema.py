"""``flowrun schema`` prints the schemas, the reference made from them, and the meanings of codes and errors."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from flowrun.cli.reference import render_reference
from flowrun.cli.schema import command, write_reference
from flowrun.errors import CODES, FAILURES
from flowrun.spec.schema import FLOW_SCHEMA, read_schema

ROOT = Path(__file__).parents[3]


def schema(*words: str) -> str:
    done = CliRunner().invoke(command, list(words), standalone_mode=False)
    assert done.return_value == 0
    return done.stdout


@pytest.mark.parametrize(
    ("words", "file"),
    [
        pytest.param([], "flow.v1.schema.json", id="specs"),
        pytest.param(["--test"], "test.v1.schema.json", id="tests"),
        pytest.param(["--result"], "result.v1.schema.json", id="results"),
    ],
)
def test_a_schema_is_printed_as_it_is(words: list[str], file: str) -> None:
    assert schema(*words) == (ROOT / "schemas" / file).read_text(encoding="utf-8")
    assert json.loads(schema(*words))["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_reference_has_not_drifted() -> None:
    written = (ROOT / "specs" / "REFERENCE.md").read_text(encoding="utf-8")
    assert written == schema("--doc"), "run: .venv/bin/flowrun schema --doc > specs/REFERENCE.md"


def test_the_reference_names_every_property_and_error() -> None:
    reference = write_reference(FLOW_SCHEMA)
    definitions = read_schema(FLOW_SCHEMA)["$defs"]
    described = {name: part for name, part in definitions.items() if not name.endswith("_patch") and name != "profile"}
    properties = {
        name for part in described.values() for name, schema in part.get("properties", {}).items() if schema is not True
    }
    assert [
        name for name in sorted(properties) if f"| `{name}`" not in reference and f"`{name}`" not in reference
    ] == []
    assert [name for name in FAILURES if f"| `{name}` |" not in reference] == []


@pytest.mark.parametrize("words", [["--doc"], ["--test", "--doc"]], ids=["specs", "tests"])
def test_every_link_of_a_reference_leads_to_a_heading(words: list[str]) -> None:
    text = schema(*words)
    headings = {
        re.sub(r"[^\w -]", "", line[3:].lower()).replace(" ", "-") for line in text.splitlines() if line[:3] == "## "
    }
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) - headings == set()


def test_a_reference_has_a_section_per_part_and_a_row_per_property() -> None:
    made_up = {
        "description": "A <thing>.",
        "required": ["size"],
        "properties": {
            "size": {"$ref": "#/$defs/size", "description": "How large it is."},
            "kind": {"enum": ["a|b", None], "default": "a|b"},
            "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}, "examples": [[{"name": "lid"}]]},
        },
        "$defs": {
            "size": {"title": "size (a number and a unit)", "type": "string", "examples": ["5m"]},
            "part": {
                "title": "part",
                "type": "object",
                "properties": {"name": {"type": ["string", "null"], "description": "Its name."}, "any": True},
                "examples": [{"name": "lid"}],
            },
        },
    }
    assert render_reference(made_up, heading="Things", preface="All of them.").splitlines() == [
        "# Things",
        "",
        "All of them.",
        "",
        "A \\<thing\\>.",
        "",
        "| property | type | default | meaning |",
        "| --- | --- | --- | --- |",
        "| `size` (required) | size |  | How large it is. Example: `5m`. |",
        "| `kind` | `a\\|b`, `null` | `a\\|b` |  |",
        '| `parts` | list of [part](#part) |  | Example: `[{"name": "lid"}]`. |',
        "",
        "## part",
        "",
        "| property | type | meaning |",
        "| --- | --- | --- |",
        "| `name` | text or null | Its name. |",
        "",
        "```yaml",
        "name: lid",
        "```",
        "",
        "## Forms of text",
        "",
        "| text | form | example |",
        "| --- | --- | --- |",
        "| size | a number and a unit | `5m` |",
    ]


def test_codes_and_errors_are_listed_with_their_meaning() -> None:
    codes = [line.strip() for line in schema("--codes").splitlines()]
    assert [code for code, meaning in CODES.items() if f"{code}  {meaning}" not in codes] == []
    assert codes[:2] == ["FR1xx  YAML", "FR101  The file is not valid YAML."]
    listed = dict(line.split(maxsplit=1) for line in schema("--errors").splitlines())
    assert listed == FAILURES
