"""Records of results in tests: each is what ``schemas/result.v1.schema.json`` says."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
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


def said_messages(question: str, city: str, answer: str) -> list[dict[str, Any]]:
    """Return the messages of a run with one call."""
    call = {"id": "c1", "type": "function", "function": {"name": "temperature", "arguments": {"city": city}}}
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "31", "tool_call_id": "c1", "name": "temperature"},
        {"role": "assistant", "content": answer},
    ]


def record_of(row: int, **more: Any) -> dict[str, Any]:
    """Return the record of a row, of a run that succeeded."""
    return {
        "row": row,
        "id": row,
        "status": "succeeded",
        "inputs": {"question": f"How hot is it in {row}?"},
        "output": {"answer": f"It is {row} degrees."},
        "error": None,
        "path": ["ask", "answered"],
        "rounds": 2,
        "usage": {"prompt_tokens": 100, "completion_tokens": row, "cached_tokens": 0, "rerendered": 0},
        "began": "2026-11-23T12:00:00Z",
        "ended": "2026-11-23T12:00:02Z",
        "seconds": 2.0,
        "flow": {"name": "weather", "version": "1.0.0", "digest": "0" * 64},
        "models": {"default": {"backend": "vllm", "name": "small"}},
        "sampling": {},
        "tools": [],
        **more,
    }


def failed_record(row: int, name: str = "tool.failed", message: str = "it broke", **more: Any) -> dict[str, Any]:
    """Return the record of a row whose run failed."""
    error = {"name": name, "message": message, "state": "ask"}
    return record_of(row, **{"status": "failed", "output": None, "error": error, **more})


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    """Write a result file."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return path
