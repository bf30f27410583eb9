"""Validation of a document against its JSON Schema: a fast compiled validator decides, a slower one explains errors."""

import json
import shlex
from functools import cache
from pathlib import Path as FilePath
from typing import Any, Final

import jsonschema_rs

from flowrun.errors import Bug, Issue, Path
from flowrun.excerpts import cut
from flowrun.spec.document import Document, issue_at
from flowrun.spec.model import JSON

FLOW_SCHEMA: Final = "flow.v1.schema.json"
TEST_SCHEMA: Final = "test.v1.schema.json"
RESULT_SCHEMA: Final = "result.v1.schema.json"
EVAL_SCHEMA: Final = "eval.v1.schema.json"


def check_schema(document: Document, schema: str = FLOW_SCHEMA) -> list[Issue]:
    """Return the issues of a document that does not match a schema, one per mistake.

    Args:
        schema: the file name of the schema.
    """
    validator = _validator(schema)
    if validator.is_valid(document.value):
        return []
    from flowrun.spec.explain import explain_mismatch

    return explain_mismatch(document, read_schema(schema)) or _unexplained(document, validator)


def find_other_kind(document: Document) -> Issue | None:
    """Return the issue of a document that is one of flowrun's other files, not a spec; None for any other one."""
    keys = document.value.keys() if isinstance(document.value, dict) else set()
    if "flowrun" in keys:
        return None
    if "tests" in keys and ("flow" in keys or document.file.endswith(".test.yaml")):
        what = f"this is a test: flowrun test {shlex.quote(document.file)}"
        return issue_at(document, "FR202", (), what, "a flow has the key 'flowrun'")
    if {"flow", "rows", "scores"} <= keys or ("scores" in keys and document.file.endswith(".eval.yaml")):
        what = f"this is an eval: flowrun eval {shlex.quote(document.file)}"
        return issue_at(document, "FR202", (), what, "a flow has the key 'flowrun'")
    if "replies" in keys and not keys & {"states", "name"}:
        what = "this is a file of scripted replies, not a flow"
        return issue_at(document, "FR202", (), what, "a flow names it: model: {backend: scripted, name: FILE}")
    return None


@cache
def read_schema(name: str) -> dict[str, JSON]:
    """Read a schema that ships with flowrun; ``name`` is its file name."""
    parsed: dict[str, JSON] = json.loads(find_schema(name).read_bytes())
    return parsed


def find_schema(name: str) -> FilePath:
    """Return the path of a schema's file: in the installed package, or in ``schemas/`` of a checkout.

    Raises:
        Bug: the file does not exist.
    """
    package = FilePath(__file__).resolve().parents[1]
    if (installed := package / "schemas" / name).is_file():
        return installed
    for parent in package.parents:
        if (parent / "pyproject.toml").is_file() and (found := parent / "schemas" / name).is_file():
            return found
    raise Bug(f"the schema {name} is missing from this installation of flowrun")


@cache
def _validator(schema: str) -> Any:
    return jsonschema_rs.Draft202012Validator(read_schema(schema))


def _unexplained(document: Document, validator: Any) -> list[Issue]:
    """Return the errors of the compiled validator that the other one does not find, with their original messages."""
    issues = []
    for error in validator.iter_errors(document.value):
        path: Path = tuple(error.instance_path)
        message = cut(error.message, 200)
        issues.append(issue_at(document, "FR210", path, message, "see 'flowrun schema' for what may stand here"))
    return issues
