"""Diagnosis of YAML syntax errors: from the parser's message to the author's most likely mistake. Pure.

PyYAML has two parsers, in C and in Python, whose messages differ slightly; both are recognized. Where the wrong part
is known, filler can replace it (``Diagnosis.blank``), so that the rest of the file is parsed and diagnosed too.
"""

import re
from collections.abc import Callable
from typing import Final

import yaml

from flowrun.errors import Issue, Place
from flowrun.spec.yaml.parse_error import (
    Diagnosis,
    ParseError,
    end_of_value,
    has_content,
    indentation,
    mask_quoted,
    quote,
    read_parse_error,
)

_KEY: Final = re.compile(r"^\s*(?:- +)*(?:[^\s\-#\[{][^:#]*|-[^\s:#][^:#]*):\s+")
_TEMPLATE: Final = re.compile(r"(?:^\s*|[:,\-]\s+|\[\s*)(\{[{%])")
_KEY_OR_ITEM: Final = "write it as 'key: value', or as '- item' in a list"
_NO_SPACE: Final = re.compile(r"^\s*(?:- +)*[A-Za-z_][\w-]*:(?=\S)")
_MISPLACED: Final = {
    "]": ("this ] closes nothing", "delete it, or quote the text"),
    "}": ("this } closes nothing", "delete it, or quote the text"),
    ",": ("there is nothing before this comma", "delete it, or quote the text"),
    ":": ("there is no key before this colon", "write a key before it, or quote the text"),
    "-": ("an item inside of [ ] is written without '-'", "delete the '-', or the [ above"),
}
_QUOTE_ALL: Final = "put the whole text between quotes; inside of single quotes, write '' for a quote"
_ENDS: Final = {
    '"': ("there is text after the closing quote", _QUOTE_ALL),
    "'": ("there is text after the closing quote", _QUOTE_ALL),
    "]": ("there is text after the closing ]", "delete it, or quote the whole text"),
    "}": ("there is text after the closing }", "delete it, or quote the whole text"),
}
_OPENING_QUOTE: Final = {'"': "double quote", "'": "single quote"}


def explain_syntax(error: yaml.MarkedYAMLError, text: str, file: str) -> Diagnosis:
    """Return the diagnosis of a parser's error: that of the first matching cause, else the parser's own message."""
    parse_error = read_parse_error(error, text, file)
    for cause in _CAUSES:
        if diagnosis := cause(parse_error):
            return diagnosis
    where = f"{parse_error.context}: " if parse_error.context else ""
    message = f"YAML cannot read on from here ({where}{parse_error.problem})"
    return parse_error.diagnose("FR101", parse_error.at, message, "look at this line and at the one above it")


def unquoted_template(place: Place, template: str) -> Issue:
    """Return the issue of an unquoted template, which YAML reads as a mapping."""
    return Issue(
        code="FR104",
        place=place,
        message="the template is not quoted, so YAML reads its braces as a mapping",
        remedy=f"write {quote(template)}",
    )


# --- the causes, the most specific first --------------------------------------------------------------------------


def _tab(error: ParseError) -> Diagnosis | None:
    row, column = error.at
    if error.char != "\t":
        return None
    if error.line[:column].strip():
        return error.diagnose("FR102", error.at, "there is a tab between two values", "put a space in its place")
    others = sum(1 for line in error.lines[row + 1 :] if re.match(r" *\t\s*\S", line))
    also = f", and so {'are' if others > 1 else 'is'} {others} more below" if others else ""
    return error.diagnose(
        "FR102", error.at, f"the line is indented with a tab{also}", "indent with spaces only; YAML allows no tabs"
    )


def _template(error: ParseError) -> Diagnosis | None:
    for row in dict.fromkeys((error.since[0], error.at[0])):
        line = error.lines[row]
        masked = mask_quoted(line)
        if not (match := _TEMPLATE.search(masked)):
            continue
        start = match.start(1)
        before = masked[:start]
        if before.count("{") + before.count("[") > before.count("}") + before.count("]"):
            closing = line.find("%}" if line[start + 1] == "%" else "}}", start)
            end = closing + 2 if closing >= 0 else len(line)
        else:
            end = end_of_value(line, start)
        issue = unquoted_template(Place(error.file, row + 1, start + 1), line[start:end])
        return Diagnosis(issue=issue, blank=(error.starts[row] + start, error.starts[row] + end))
    return None


def _variable_in_flow(error: ParseError) -> Diagnosis | None:
    row, column = error.at
    if error.char != "{" or error.line[column - 1 : column] != "$":
        return None
    closing = error.line.find("}", column)
    end = closing + 1 if closing >= 0 else len(error.line)
    written = error.line[column - 1 : end]
    return error.diagnose(
        "FR103",
        (row, column - 1),
        f"{written} must be quoted inside of {{ }} and [ ]",
        f'write "{written}", or, if it has to be a number, write the mapping on lines of its own',
        end,
    )


_SPECIAL_STARTS: Final = (
    ("cannot start any token", "@`%|>"),
    ("alphabetic or numeric character", "*&"),
    ("comment or", "|>"),
    ("chomping", "|>"),
    ("mapping keys are not allowed", "?"),
)


def _special_start(error: ParseError) -> Diagnosis | None:
    for problem, characters in _SPECIAL_STARTS:
        if problem not in error.problem:
            continue
        for row, column in (error.since, error.at):
            line = error.lines[row]
            if line[column : column + 1] and line[column] in characters:
                return error.diagnose(
                    "FR103",
                    (row, column),
                    f"a text that begins with {line[column]} must be quoted",
                    f"write {quote(line[column : end_of_value(line, column)])}",
                    end_of_value(line, column),
                )
    return None


def _directive(error: ParseError) -> Diagnosis | None:
    first = next((row for row, line in enumerate(error.lines) if line.strip()), 0)
    if not error.lines[first].startswith("%") or error.at[0] > first + 1:
        return None
    return error.diagnose("FR103", (first, 0), "a line must not begin with %", "quote it, or delete the line")


def _list_item_on_line(error: ParseError) -> Diagnosis | None:
    if "sequence entries are not allowed" not in error.problem:
        return None
    return error.diagnose(
        "FR103",
        error.at,
        "a list cannot begin on the line of its key",
        "put every '- item' on a line of its own; if it is meant as a text, quote it",
    )


def _colon(error: ParseError) -> Diagnosis | None:
    if "mapping values are not allowed" not in error.problem:
        return None
    row, column = error.at
    key = _KEY.match(error.masked)
    if key and key.end() <= column:
        end = end_of_value(error.line, key.end())
        return error.diagnose(
            "FR103",
            (row, key.end()),
            "a text with a colon and a space in it must be quoted",
            f"write {quote(error.line[key.end() : end])}",
            end,
        )
    above = next((r for r in range(row - 1, -1, -1) if has_content(error.lines[r])), None)
    if above is None:
        return None
    return _key_without_colon(error, above) or _indented_below_value(error, row, above)


def _indented_below_value(error: ParseError, row: int, above: int) -> Diagnosis:
    return error.diagnose(
        "FR105",
        (row, indentation(error.lines[row])),
        f"the line is indented as if it belonged to line {above + 1}, which has a value already",
        f"indent it as far as line {above + 1}, or quote the text if it continues over both lines",
    )


def _key_without_colon(error: ParseError, row: int) -> Diagnosis | None:
    line = error.lines[row]
    place = (row, indentation(line))
    if match := _NO_SPACE.match(line):
        fixed = f"{match.group().strip()} {line[match.end() :].strip()}"
        return error.diagnose("FR106", place, "there is no space after the colon", f"write {fixed}")
    if ":" not in mask_quoted(line).partition(" #")[0]:
        return error.diagnose("FR106", place, "the line has no colon", _KEY_OR_ITEM)
    return None


def _missing_colon(error: ParseError) -> Diagnosis | None:
    if "could not find expected ':'" not in error.problem:
        return None
    other = error.diagnose("FR106", error.since, "no key with a colon and a space begins here", _KEY_OR_ITEM)
    return _key_without_colon(error, error.since[0]) or other


def _colon_in_brackets(error: ParseError) -> Diagnosis | None:
    if "found unexpected ':'" not in error.problem:
        return None
    message = "a colon inside of { } and [ ] is followed by a space, or stands in a quoted text"
    return error.diagnose("FR103", error.at, message, "put a space after it, or quote the text")


def _open_quote(error: ParseError) -> Diagnosis | None:
    row, column = error.since
    quote = _OPENING_QUOTE.get(error.lines[row][column : column + 1])
    if not quote or "found unexpected" not in error.problem:
        return None
    return error.diagnose(
        "FR107", error.since, f"the {quote} that opens here is never closed", "close it, or delete it"
    )


def _escape(error: ParseError) -> Diagnosis | None:
    if "escape" not in error.problem and "hex" not in error.problem:
        return None
    if "unknown escape character" not in error.problem:
        message = "the escape does not stand for a character"
        remedy = "write two digits after \\x, four after \\u and eight after \\U, and no surrogates (D800 to DFFF)"
        return error.diagnose("FR108", error.at, message, remedy)
    row, column = error.at
    column -= 0 if error.char == "\\" and error.line[column - 1 : column] != "\\" else 1
    escape = error.line[column : column + 2]
    return error.diagnose(
        "FR108",
        (row, column),
        f"{escape} is not an escape of a double-quoted text",
        f"write \\{escape}, or use single quotes, in which a backslash is just a backslash",
        column + 2,
    )


def _after_end(error: ParseError) -> Diagnosis | None:
    column = error.at[1]
    before = error.masked[:column].rstrip()
    if "while parsing a block" not in error.context or not error.char or not before.endswith(tuple(_ENDS)):
        return None
    end = end_of_value(error.line, column)
    return error.diagnose("FR103", error.at, *_ENDS[before[-1]], end, filler=" ")


def _open_bracket(error: ParseError) -> Diagnosis | None:
    row, column = error.since
    bracket = error.lines[row][column : column + 1]
    if error.char in _MISPLACED and "node content" in error.problem:
        return error.diagnose("FR107", error.at, *_MISPLACED[error.char])
    if "while parsing a flow" in error.context and not error.char and "node content" in error.problem:
        return error.diagnose(
            "FR107",
            error.at,
            "a list or mapping in brackets is not closed",
            "close it with ] or }, or quote the text",
        )
    if "while parsing a flow" not in error.context or bracket not in ("[", "{") or error.since == error.at:
        return None
    closing = {"[": "]", "{": "}"}[bracket]
    message = f"a comma or the closing {closing} of this {bracket} is missing"
    if error.at[0] == row and error.at[1] < len(error.line):
        message = f"a comma or {closing} is missing before this"
        if error.char not in "]}" and (key := _UNQUOTED_VALUE.search(error.masked[: error.at[1]])):
            what = "expression" if key[1] in ("when", "for_each") else "text"
            return error.diagnose("FR107", error.at, message, f'quote the {what}: {key[1]}: "..."')
        return error.diagnose("FR107", error.at, message, f"the {bracket} stands in column {column + 1}")
    return error.diagnose("FR107", error.since, message, f"add the {closing}, or quote the text")


def _indented_wrongly(error: ParseError) -> Diagnosis | None:
    column = error.at[1]
    if "while parsing a block" not in error.context and "document start" not in error.problem:
        return None
    if column != indentation(error.line):
        return None
    outer = error.since[1] if error.context else indentation(next(filter(has_content, error.lines)))
    if column == outer and not error.context:
        message = "the file continues after its end, which the line '...' marks"
        return error.diagnose("FR113", error.at, message, "delete the line '...'")
    if column == outer:
        message, remedy = (
            ("this is a list item among the keys of a mapping", "indent it below the key that it belongs to")
            if error.char == "-"
            else ("this is a key among the items of a list", "indent it as far as the key that the list belongs to")
        )
        return error.diagnose("FR105", error.at, message, remedy)
    return error.diagnose(
        "FR105",
        error.at,
        f"the line begins in column {column + 1}, where nothing above it begins",
        "indent it exactly as far as the lines that it belongs with",
    )


def _tag_handle(error: ParseError) -> Diagnosis | None:
    if "tag" not in error.problem and "tag" not in error.context:
        return None
    return error.diagnose("FR118", error.since, "the value has an explicit tag", "delete the tag, or quote the text")


_UNQUOTED_VALUE: Final = re.compile(r"(?:^|[\s{,])(\w+):\s+[^,{}\[\]]+$")
"""A key, and the beginning of its value up to a bracket, or behind a text in quotes."""

_CAUSES: Final[tuple[Callable[[ParseError], Diagnosis | None], ...]] = (
    _tab,
    _template,
    _variable_in_flow,
    _special_start,
    _directive,
    _list_item_on_line,
    _colon,
    _missing_colon,
    _colon_in_brackets,
    _open_quote,
    _escape,
    _after_end,
    _open_bracket,
    _indented_wrongly,
    _tag_handle,
)
