"""Makes specs at random: those of the repository, with changes that an author, an editor or a merge could make."""

import json
import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

from flowrun.spec.find import find_specs
from flowrun.spec.model import JSON
from flowrun.spec.yaml.reader import read_document

ROOT: Final = Path(__file__).parents[2]

TOOLS: Final = '''\
"""Functions of the specs that are made."""

from dataclasses import dataclass


def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


def text(value: str, *, loud: bool = False) -> str:
    """Return a text."""
    return value.upper() if loud else value


def free(**values: object) -> dict[str, object]:
    """Return what it is given."""
    return values


class Desk:
    """A type that JSON does not have."""


def desk(desk: Desk) -> str:
    """Take what no model can give."""
    return str(desk)


@dataclass
class Order:
    number: int
    items: list[str]


def order(order: Order, when: "Missing" = None) -> int:
    """Have an annotation that names nothing."""
    return order.number
'''

_ENTRYPOINTS: Final = ("tl:add", "tl:text", "tl:free", "tl:desk", "tl:order", "tl:none", "none:f", "json:dumps", "tl")

_VALUES: Final[tuple[JSON, ...]] = (
    *(None, True, False, 0, 1, -1, 2, 3.5, 100, "", "x", "main", "default", "done", "1s", "10ms", "auto", "required"),
    *("{{ inputs.question }}", "{{ reply.content }}", "{{ reply.parsed.items }}", "{{ results[0].value }}", "{{"),
    *("{{ outputs.ask.content | upper }}", "{{ vars.count + 1 }}", "{% if x %}", "{{ [1, 2] }}", "{{ error.name }}"),
    *("reply.tool_calls", "inputs.n > 1", "vars.count < 3", "true", "not reply", "a = b", "len(x)", "1 / 0", "x y"),
    *(
        "tool.*",
        "model.invalid_output",
        "limit.steps",
        "any",
        "#child",
        "other.yaml",
        "${NONE}",
        "${HOME:-x}",
        "é \u202e",
    ),
    *(
        [],
        {},
        [1],
        ["x"],
        {"type": "object"},
        {"type": "string", "minimum": 1},
        {"$ref": "#"},
        {"x": {"type": "string"}},
    ),
    *([{"role": "user", "content": "Hi."}], [{"role": "tool", "content": "1"}], {"to": "done"}, [{"to": "done"}]),
    *([{"role": "assistant", "tool_calls": [{"name": "add", "arguments": {"a": 1}}]}], {"type": "end"}),
)


@cache
def examples() -> tuple[tuple[str, JSON], ...]:
    """Return the valid specs of the repository: their texts and their values."""
    folders = (ROOT / "specs", ROOT / "tests" / "cases" / "valid", ROOT / "tests" / "cases" / "runs")
    files = [file for folder in folders for file in find_specs(folder)]
    return tuple(
        (file.read_text(encoding="utf-8"), read_document(file.read_bytes(), str(file)).value) for file in files
    )


@cache
def _members() -> dict[str, tuple[JSON, ...]]:
    """Return all values of each key in the examples."""
    members: dict[str, list[JSON]] = {}
    for _, value in examples():
        for node in _nodes(value):
            for key, item in node.items() if isinstance(node, dict) else ():
                members.setdefault(key, []).append(item)
    return {key: tuple(values) for key, values in members.items()}


def _nodes(value: JSON) -> Iterator[JSON]:
    """Yield the mappings and lists of a value."""
    if isinstance(value, dict | list):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from _nodes(item)


def make_spec(chance: random.Random) -> str:
    """Return the text of a spec."""
    text, value = chance.choice(examples())
    if chance.random() < 0.15:
        return _change_text(text, chance)
    spec = json.loads(json.dumps(value))
    spec.pop("profiles", None) if chance.random() < 0.7 else None
    if chance.random() < 0.8:
        spec.pop("models", None)
        spec["model"] = {"backend": "scripted", "name": "replies.yaml"}
    for node in _nodes(spec):
        if isinstance(node, dict) and "entrypoint" in node:
            node["entrypoint"] = "tl:free" if chance.random() < 0.85 else chance.choice(_ENTRYPOINTS)
    for _ in range(chance.choice((0, 0, 1, 1, 1, 2))):
        chance.choice(_CHANGES)(spec, chance)
    return json.dumps(spec, indent=chance.choice((None, 1)), ensure_ascii=chance.random() < 0.5)


def _pick(spec: JSON, chance: random.Random, kind: type) -> JSON:
    return chance.choice([node for node in _nodes(spec) if isinstance(node, kind) and node] or [spec])


def _drop(spec: JSON, chance: random.Random) -> None:
    node = _pick(spec, chance, dict)
    node.pop(chance.choice(list(node)))


def _replace(spec: JSON, chance: random.Random) -> None:
    node = _pick(spec, chance, dict)
    node[chance.choice(list(node))] = chance.choice(_VALUES)


def _exchange(spec: JSON, chance: random.Random) -> None:
    """Give a key a value that it has elsewhere."""
    node = _pick(spec, chance, dict)
    key = chance.choice(list(node))
    node[key] = json.loads(json.dumps(chance.choice(_members().get(key, _VALUES))))


def _add(spec: JSON, chance: random.Random) -> None:
    """Add a key that stands elsewhere."""
    key = chance.choice(sorted(_members()))
    _pick(spec, chance, dict)[key] = json.loads(json.dumps(chance.choice(_members()[key])))


def _misspell(spec: JSON, chance: random.Random) -> None:
    node = _pick(spec, chance, dict)
    key = chance.choice(list(node))
    at = chance.randrange(len(key) + 1)
    node[key[:at] + key[at + 1 :]] = node.pop(key)


def _misspell_value(spec: JSON, chance: random.Random) -> None:
    node = _pick(spec, chance, dict)
    if texts := [key for key, item in node.items() if isinstance(item, str) and item and key != "entrypoint"]:
        key = chance.choice(texts)
        at = chance.randrange(len(node[key]))
        node[key] = node[key][:at] + chance.choice(("", "x", " ", "{", "'", "\x1b")) + node[key][at + 1 :]


def _shuffle(spec: JSON, chance: random.Random) -> None:
    node = _pick(spec, chance, list)
    if isinstance(node, list):
        node.append(json.loads(json.dumps(chance.choice(node))))
        chance.shuffle(node)


_CHANGES: Final[tuple[Callable[[JSON, random.Random], None], ...]] = (
    *(_drop, _replace, _exchange, _add, _misspell, _misspell_value, _shuffle),
)


def _change_text(text: str, chance: random.Random) -> str:
    """Change the lines or characters of a text; what it imports stays among the functions that are known."""
    lines = text.splitlines(keepends=True)
    at = chance.randrange(len(lines))
    match chance.randrange(4):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, chance.choice(lines))
        case 2:
            lines[at] = lines[at].lstrip() if chance.random() < 0.5 else f"  {lines[at]}"
        case _:
            middle = chance.randrange(len(lines[at]))
            lines[at] = lines[at][:middle] + chance.choice("\t{}[]:#&*!|>'\"%@`\x00\u2028é-") + lines[at][middle:]
    return "".join(lines)
