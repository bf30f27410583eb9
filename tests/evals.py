"""What tests of ``flowrun eval`` share: a project with a scripted model, its git repository, and the command."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.records import require_record

FILES = {
    "tools/__init__.py": "",
    "tools/shop.py": '''\
def price(item: str) -> int:
    """Look a price up."""
    return {"pen": 2, "book": 12}.get(item, 5)
''',
    "measures/__init__.py": "",
    "measures/text.py": """\
def closeness(output, row):
    said = float(output["price"])
    return {"score": 1 / (1 + abs(said - row["expected"])), "reason": f"{said:g} for {row['expected']}"}
""",
    "shop.yaml": """\
flowrun: v1
name: shop
version: 0.1.0
inputs: {item: {type: string}}
model: {backend: scripted, name: replies.yaml}
sampling: {temperature: 0.5}
tools: {price: {entrypoint: tools.shop:price}}
messages: [{role: user, content: "What does {{ inputs.item }} cost?"}]
states:
  ask:
    type: chat
    routes: [{when: reply.tool_calls, to: look}, {to: done}]
  look: {type: tools, next: ask}
  done: {type: end, output: {price: "{{ reply.content }}"}}
""",
    "replies.yaml": """\
replies:
  - {when: "request.messages[-1].role == 'tool'", content: "2", repeat: true}
  - {when: "'pen' in request.messages[-1].content", tool_calls: [{name: price, arguments: {item: pen}}], repeat: true}
  - {when: "'glue' in request.messages[-1].content", error: model.truncated, repeat: true}
  - {content: "12", repeat: true}
""",
    "judge.yaml": """\
flowrun: v1
name: judge
version: 0.1.0
inputs: {answer: {type: string}}
model: {backend: scripted, name: judge_replies.yaml}
messages: [{role: user, content: "Is {{ inputs.answer }} a price?"}]
states:
  ask: {type: chat, next: done}
  done: {type: end, output: {score: "{{ reply.content | float }}", reason: judged}}
""",
    "judge_replies.yaml": 'replies: [{content: "0.75", repeat: true}]\n',
    "data/items.jsonl": "".join(
        json.dumps({"id": name, "item": item, "expected": expected, "kind": kind}) + "\n"
        for name, item, expected, kind in [
            ("a", "pen", 2, "small"),
            ("b", "book", 12, "large"),
            ("c", "lamp", 5, "large"),
            ("d", "glue", 3, "small"),
        ]
    ),
    "shop.eval.yaml": """\
flow: shop.yaml
rows: data/items.jsonl
samples: 2
groups: [kind]
scores:
  right: {compare: numeric, expected: "{{ row.expected }}"}
  said: {when: "row.expected | string == output.price"}
  called: {calls: [{name: price, arguments: {item: "{{ row.item }}"}}]}
  close: {entrypoint: "measures.text:closeness"}
  judged: {flow: judge.yaml, with: {answer: "{{ output.price }}"}}
gate:
  right: {at_least: 0.5}
""",
}

RESULTS = Path("eval-results", "shop")


def write_project(folder: Path, **changed: str) -> Path:
    """Write the project, with other contents for some of its files, and commit it to a new repository."""
    for name, text in {**FILES, **changed}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder, "first")
    return folder


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.invalid", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


def commit(folder: Path, message: str) -> None:
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", message)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def evaluate(folder: Path, *words: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run ``flowrun eval`` in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "flowrun", "eval", *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", **environ},
        timeout=180,
        check=False,
    )


def said(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return what ``--json`` printed."""
    assert done.stdout, done.stderr
    data: dict[str, Any] = json.loads(done.stdout)
    return data


def scored(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the records of an evaluation by row and sample; each is as the schema of results says."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        require_record(record)
    return {(record["id"], record.get("sample", 1)): record for record in records}
