"""The lock of a spec, ``NAME.lock.json`` beside ``NAME.yaml``: one member a verb, which keeps those of the others."""

import json
from pathlib import Path
from typing import Any

from flowrun.spec.strict_json import parse_json


def lock_path(spec_file: Path) -> Path:
    """Return the path of the lock of a spec."""
    return spec_file.with_name(f"{spec_file.name.rpartition('.')[0] or spec_file.name}.lock.json")


def parse_lock(text: str) -> dict[str, Any]:
    """Return the members of a lock file. Raises ``ValueError``."""
    members = parse_json(text)
    if not isinstance(members, dict):
        raise ValueError("it holds no JSON object")
    return members


def encode_member(member: str, value: Any, text: str | None) -> str:
    """Return the text of a lock file with a member, and with the other members of its text of now.

    Raises:
        ValueError: the text of now is no lock.
    """
    members = {} if text is None else parse_lock(text)
    return encode_members({**members, member: value})


def encode_members(members: dict[str, Any]) -> str:
    """Return the text of a lock file."""
    return json.dumps(members, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
