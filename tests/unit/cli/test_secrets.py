"""A secret of a tool, named by ``secrets``, leaves by no exit; the journal has it as it was said."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOKEN = 'shop-"0123456789'
SHOWN = "${SHOP_TOKEN}"
SPEC = """\
flowrun: v1
name: shop
version: 1.0.0
secrets: [SHOP_TOKEN, NOT_SET]
inputs: {cut: {type: boolean, default: false}}
model: {backend: scripted, name: replies.yaml}
messages: [{role: user, content: Say it.}]
states:
  ask: {type: chat, next: look}
  look: {type: call, entrypoint: "shop:look", with: {cut: "{{ inputs.cut }}"}, next: done}
  done: {type: end, output: {said: "{{ reply.content }}", token: "{{ outputs.look }}"}}
"""
TOOL = f"""\
import logging, os

def look(cut: bool = False) -> dict:
    token = os.environ["SHOP_TOKEN"]
    logging.getLogger("shop").warning("with %s", token)
    if cut:
        raise ValueError("x" * {4000 - 10} + token)
    return {{token: [token, "begins shop-"]}}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "spec.yaml").write_text(SPEC)
    (tmp_path / "shop.py").write_text(TOOL)
    (tmp_path / "replies.yaml").write_text(f"replies: [{{content: 'it is {TOKEN}'}}]\n")
    return tmp_path


def flowrun(*words: object, cwd: Path, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flowrun", *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", "SHOP_TOKEN": token},
        timeout=60,
        check=False,
    )


OUTPUT = {"said": f"it is {SHOWN}", "token": {SHOWN: [SHOWN, "begins shop-"]}}


def test_it_is_masked_in_answers_and_on_the_console(shop: Path) -> None:
    plain, full = flowrun("spec.yaml", cwd=shop), flowrun("spec.yaml", "--json", cwd=shop)
    assert json.loads(plain.stdout) == json.loads(full.stdout)["output"] == OUTPUT
    assert "0123456789" not in plain.stdout + plain.stderr + full.stdout + full.stderr
    assert f"with {SHOWN}" in plain.stderr


def test_it_is_masked_in_errors_before_they_are_cut(shop: Path) -> None:
    done = flowrun("spec.yaml", "--json", "-i", "cut=true", cwd=shop)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["message"] == f"ValueError: {'x' * 3990}{SHOWN[:10]} ..."
    assert "shop-" not in done.stdout + done.stderr


def test_it_is_masked_in_the_results_of_batches(shop: Path) -> None:
    (shop / "replies.yaml").write_text(f"replies: [{{content: 'it is {TOKEN}'}}, {{content: 'it is {TOKEN}'}}]\n")
    (shop / "rows.jsonl").write_text('{"id": 1}\n{"id": 2, "cut": true}\n')
    done = flowrun("batch", "spec.yaml", "rows.jsonl", "-o", "out.jsonl", "--messages", cwd=shop)
    first, second = sorted(map(json.loads, (shop / "out.jsonl").read_text().splitlines()), key=lambda row: row["id"])
    assert (first["output"], first["messages"][-1]["content"]) == (OUTPUT, f"it is {SHOWN}")
    assert second["error"]["name"] == "tool.failed"
    assert "shop-\\" not in (shop / "out.jsonl").read_text() + done.stderr


def test_it_is_masked_in_what_is_shown_of_a_run_and_kept_in_the_journal(shop: Path) -> None:
    done = flowrun("spec.yaml", "--durable", "--journal", "j.sqlite", "--json", cwd=shop)
    run = json.loads(done.stdout)["run"]
    shows = [("show", run), ("show", run, "--json"), ("show", run, "--html", "run.html"), ("replay", run, "--json")]
    shown = [flowrun(*words, "--journal", "j.sqlite", cwd=shop) for words in shows]
    assert [one.returncode for one in shown] == [0, 0, 0, 0]
    assert json.dumps(OUTPUT["said"]) in shown[1].stdout
    page = (shop / "run.html").read_text()
    assert "0123456789" not in page + "".join(one.stdout + one.stderr for one in (done, *shown))
    assert f"it is {SHOWN}" in page
    events = subprocess.run(
        ["sqlite3", "j.sqlite", "select body from events"], cwd=shop, capture_output=True, text=True
    )
    assert json.dumps(TOKEN) in events.stdout


def test_a_cassette_has_none_and_replays_with_another_and_so_does_junit(shop: Path) -> None:
    flowrun("spec.yaml", "--record", "tape.jsonl", cwd=shop)
    assert "0123456789" not in (shop / "tape.jsonl").read_text()
    (shop / "spec.test.yaml").write_text(
        "flow: spec.yaml\ntests:\n"
        "  - {name: tape, cassette: tape.jsonl, expect: {status: succeeded}}\n"
        "  - {name: wrong, cassette: tape.jsonl, expect: {output: {said: no}}}\n"
    )
    done = flowrun("test", ".", "--junit", "junit.xml", cwd=shop, token="another-token")
    assert "1 passed, 1 failed" in done.stdout, done.stdout + done.stderr
    assert "another-token" not in done.stdout + done.stderr + (shop / "junit.xml").read_text()


def test_a_number_that_is_a_secret_leaves_json_json(shop: Path) -> None:
    (shop / "shop.py").write_text(
        "import os\n\ndef look(cut: bool = False) -> dict:\n    return {'pin': 12345678, 'sum': 123456789.5}\n"
    )
    done = flowrun("spec.yaml", cwd=shop, token="12345678")
    assert json.loads(done.stdout)["token"] == {"pin": SHOWN, "sum": 123456789.5}
