"""Records of results in tests: each is what ``schemas/result.v1.schema.json`` says."""

from collections.abc import Mapping
from typing import Any

import jsonschema

from flowrun.spec.schema import RESULT_SCHEMA, read_schema

MADE_BY = frozenset({"began", "ended", "seconds", "flow", "models", "sampling", "tools"})
"""The members that say when and by what a result was made."""


def require_record(record: Mapping[str, Any]) -> None:
    """Fail if a record is not what the schema says."""
    jsonschema.validate(record, read_schema(RESULT_SCHEMA))


def outcome_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what came of a run, of a record that is as the schema says."""
    require_record(record)
    return {name: value for name, value in record.items() if name not in MADE_BY}
