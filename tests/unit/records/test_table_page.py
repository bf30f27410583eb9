"""The page of records loads nothing, and treats all content of a record as text."""

import re
from pathlib import Path
from typing import Any

import pytest

from flowrun.records import RecordFiles, render_table_page
from flowrun.records.table_page import ARGUMENTS, FIELD, LESS, MESSAGE, PART, ROLES, THREAD
from flowrun.unicode import visible
from tests.records import failed_record, record_of, said_messages, write_records
from tests.unit.transcript.test_html import NASTY, Page, script_of_its_own


def text_of(folder: Path, *records: dict[str, Any], title: str = "out.jsonl") -> str:
    path = write_records(folder / "out.jsonl", records)
    return b"".join(render_table_page(title, RecordFiles(path).entries())).decode()


def elements(text: str) -> list[str]:
    return re.findall(r"<script type=\"text/plain\" class=\"of-one\">(.*?)</script>", text, re.DOTALL)


def test_a_page_is_nested_well_and_loads_nothing(tmp_path: Path) -> None:
    text = text_of(tmp_path, record_of(1), failed_record(2))
    page = Page(text)
    assert page.wrong == []
    assert {tag for tag, _ in page.elements} & {"link", "img", "iframe", "object", "embed", "base", "form"} == set()
    names = {name for _, attributes in page.elements for name in attributes}
    assert {name for name in names if name.startswith("on")} | (names & {"src", "srcset", "style", "action"}) == set()
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_policy_lets_only_the_pages_own_style_and_script_run(tmp_path: Path) -> None:
    script = script_of_its_own(text_of(tmp_path, record_of(1)))
    assert "innerHTML" not in script


def nasty_record(text: str) -> dict[str, Any]:
    """A record with a text in every place that a model, a tool, a person or a file may have written."""
    messages = said_messages(text, text, text)
    messages[1]["reasoning"] = messages[2]["name"] = messages[1]["tool_calls"][0]["function"]["name"] = text
    return failed_record(
        1,
        text,
        text,
        id=text,
        inputs={text: text},
        columns={text: [text]},
        path=[text],
        scores={text: 1, "other": text},
        messages=messages,
        threads={text: messages},
        models={text: {"backend": text, "name": text}},
    )


@pytest.mark.parametrize("text", NASTY)
def test_whatever_is_said_stays_text(text: str, tmp_path: Path) -> None:
    nasty = text_of(tmp_path, nasty_record(text), title=text)
    harmless = text_of(tmp_path, nasty_record("harmless"))
    assert Page(nasty).wrong == []
    assert [tag for tag, _ in Page(nasty).elements] == [tag for tag, _ in Page(harmless).elements]
    (element,) = elements(nasty)
    assert "<" not in element
    assert element.count(text.replace("<", LESS)) >= 10


def test_what_no_page_may_hold_is_marked(tmp_path: Path) -> None:
    separators = FIELD + THREAD + MESSAGE + PART + ARGUMENTS + LESS + "".join(ROLES.values())
    said = f"a\x00b\x1b[31m \u202e{separators} c\x85\r"
    text = text_of(tmp_path, nasty_record(said))
    (element,) = elements(text)
    harmless = elements(text_of(tmp_path, nasty_record("harmless")))[0]
    for separator in separators:
        assert element.count(separator) == harmless.count(separator)
    assert visible(said) in element
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


def test_facts_that_records_share_are_there_once(tmp_path: Path) -> None:
    other = record_of(3, models={"default": {"backend": "openai", "name": "large"}})
    text = text_of(tmp_path, record_of(1), record_of(2), other)
    assert text.count('class="of-many"') == 2


def test_a_page_of_no_records(tmp_path: Path) -> None:
    assert elements(text_of(tmp_path)) == []
