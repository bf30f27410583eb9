"""Reads a form as a browser without a script does: the controls that it sends, with what they hold."""

import html.parser
from collections.abc import Mapping
from typing import Any

from flowrun.runtime.run_result import InputRequest
from flowrun.serving.pages.answer_fields import render_form

Pairs = list[tuple[str, str]]


def question(schema: Mapping[str, Any], **properties: Any) -> InputRequest:
    asked = {"id": "run/1", "run": "run", "state": "ask", "prompt": "What?"}
    return InputRequest(**asked | properties, schema=schema)


def sent_by(form: str) -> Pairs:
    """Return what a browser sends when the button of the form is pressed (HTML Living Standard, "entry list")."""
    reader = _Reader()
    reader.feed(form)
    reader.close()
    return reader.pairs


def untouched(request: InputRequest) -> Pairs:
    return sent_by(render_form(request, action="/answer"))


def fill(pairs: Pairs, **typed: str) -> Pairs:
    """Return what is sent with other texts; a name with a dot is written with ``__``, a control without text is new."""
    names = {name.replace("__", "."): text for name, text in typed.items()}
    return [pair for pair in pairs if pair[0] not in names] + list(names.items())


class _Reader(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.pairs: Pairs = []
        self._area: tuple[str, list[str]] | None = None
        self._select: tuple[str, list[tuple[bool, str]]] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        match tag:
            case "input":
                self._input(found)
            case "textarea":
                self._area = (found["name"], [])
            case "select":
                self._select = (found["name"], [])
            case "option" if self._select is not None:
                self._select[1].append(("selected" in found, found["value"]))

    def _input(self, found: Mapping[str, str]) -> None:
        kind = found.get("type", "text")
        if kind not in ("radio", "checkbox"):
            text = found["value"].replace("\r", "").replace("\n", "")
            self.pairs.append((found["name"], text.strip() if kind in ("email", "url") else text))
        elif "checked" in found:
            self.pairs.append((found["name"], found["value"]))

    def handle_data(self, data: str) -> None:
        if self._area is not None:
            self._area[1].append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea" and self._area is not None:
            name, pieces = self._area
            text = "".join(pieces).replace("\r\n", "\n").replace("\r", "\n").removeprefix("\n")
            self.pairs.append((name, text.replace("\n", "\r\n")))
            self._area = None
        if tag == "select" and self._select is not None:
            name, options = self._select
            chosen = next((value for is_chosen, value in options if is_chosen), options[0][1])
            self.pairs.append((name, chosen))
            self._select = None
