"""A YAML parser's complaint, told as what its author most likely did. Pure: an error and the text, to an issue.

PyYAML has two parsers, in C and in Python, whose wording differs slightly; both are understood. Where the wrong part
is known, it can be blanked out (``Finding.blank``), so that the rest of the file is read and its errors are told too.
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
_QUOTE_WHOLE: Final = "put the whole text between quotes; inside of single quotes, write '' for a quote"
_ENDS: Final = {
    '"': ("there is text after the closing quote", _QUOTE_WHOLE),
    "'": ("there is text after the closing quote", _QUOTE_WHOLE),
    "]": ("there is text after the closing ]", "delete it, or quote the whole text"),
    "}": ("there is text after the closing }", "delete it, or quote the whole text"),
}
_OPENING_QUOTE: Final = {'"': "double quote", "'": "single quote"}


def explain_syntax(error: yaml.MarkedYAMLError, text: str, file: str) -> Diagnosis:
    """Tell what a parser's error means."""
    trouble = read_parse_error(error, text, file)
    for cause in _CAUSES:
        if found := cause(trouble):
            return found
    where = f"{trouble.context}: " if trouble.context else ""
    message = f"YAML cannot read on from here ({where}{trouble.problem})"
    return trouble.finding("FR101", trouble.at, message, "look at this line and at the one above it")


def unquoted_template(place: Place, template: str) -> Issue:
    """Refuse a template that YAML takes for a mapping."""
    return Issue(
        code="FR104",
        place=place,
        message="the template is not quoted, so YAML reads its braces as a mapping",
        remedy=f"write {quote(template)}",
    )


# --- the causes, the most telling first ---------------------------------------------------------------------------


def _tab(trouble: ParseError) -> Diagnosis | None:
    row, column = trouble.at
    if trouble.char != "\t":
        return None
    if trouble.line[:column].strip():
        return trouble.finding("FR102", trouble.at, "there is a tab between two values", "put a space in its place")
    others = sum(1 for line in trouble.lines[row + 1 :] if re.match(r" *\t\s*\S", line))
    also = f", and so {'are' if others > 1 else 'is'} {others} more below" if others else ""
    return trouble.finding(
        "FR102", trouble.at, f"the line is indented with a tab{also}", "indent with spaces only; YAML allows no tabs"
    )


def _template(trouble: ParseError) -> Diagnosis | None:
    for row in dict.fromkeys((trouble.since[0], trouble.at[0])):
        line = trouble.lines[row]
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
        issue = unquoted_template(Place(trouble.file, row + 1, start + 1), line[start:end])
        return Diagnosis(issue=issue, blank=(trouble.starts[row] + start, trouble.starts[row] + end))
    return None


def _variable_in_flow(trouble: ParseError) -> Diagnosis | None:
    row, column = trouble.at
    if trouble.char != "{" or trouble.line[column - 1 : column] != "$":
        return None
    closing = trouble.line.find("}", column)
    end = closing + 1 if closing >= 0 else len(trouble.line)
    written = trouble.line[column - 1 : end]
    return trouble.finding(
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


def _special_start(trouble: ParseError) -> Diagnosis | None:
    for problem, characters in _SPECIAL_STARTS:
        if problem not in trouble.problem:
            continue
        for row, column in (trouble.since, trouble.at):
            line = trouble.lines[row]
            if line[column : column + 1] and line[column] in characters:
                return trouble.finding(
                    "FR103",
                    (row, column),
                    f"a text that begins with {line[column]} must be quoted",
                    f"write {quote(line[column : end_of_value(line, column)])}",
                    end_of_value(line, column),
                )
    return None


def _directive(trouble: ParseError) -> Diagnosis | None:
    first = next((row for row, line in enumerate(trouble.lines) if line.strip()), 0)
    if not trouble.lines[first].startswith("%") or trouble.at[0] > first + 1:
        return None
    return trouble.finding("FR103", (first, 0), "a line must not begin with %", "quote it, or delete the line")


def _list_item_on_line(trouble: ParseError) -> Diagnosis | None:
    if "sequence entries are not allowed" not in trouble.problem:
        return None
    return trouble.finding(
        "FR103",
        trouble.at,
        "a list cannot begin on the line of its key",
        "put every '- item' on a line of its own; if it is meant as a text, quote it",
    )


def _colon(trouble: ParseError) -> Diagnosis | None:
    if "mapping values are not allowed" not in trouble.problem:
        return None
    row, column = trouble.at
    key = _KEY.match(trouble.masked)
    if key and key.end() <= column:
        end = end_of_value(trouble.line, key.end())
        return trouble.finding(
            "FR103",
            (row, key.end()),
            "a text with a colon and a space in it must be quoted",
            f"write {quote(trouble.line[key.end() : end])}",
            end,
        )
    above = next((r for r in range(row - 1, -1, -1) if has_content(trouble.lines[r])), None)
    if above is None:
        return None
    return _key_without_colon(trouble, above) or _indented_below_value(trouble, row, above)


def _indented_below_value(trouble: ParseError, row: int, above: int) -> Diagnosis:
    return trouble.finding(
        "FR105",
        (row, indentation(trouble.lines[row])),
        f"the line is indented as if it belonged to line {above + 1}, which has a value already",
        f"indent it as far as line {above + 1}, or quote the text if it goes on over both lines",
    )


def _key_without_colon(trouble: ParseError, row: int) -> Diagnosis | None:
    line = trouble.lines[row]
    place = (row, indentation(line))
    if match := _NO_SPACE.match(line):
        fixed = f"{match.group().strip()} {line[match.end() :].strip()}"
        return trouble.finding("FR106", place, "there is no space after the colon", f"write {fixed}")
    if ":" not in mask_quoted(line).partition(" #")[0]:
        return trouble.finding("FR106", place, "the line has no colon", _KEY_OR_ITEM)
    return None


def _missing_colon(trouble: ParseError) -> Diagnosis | None:
    if "could not find expected ':'" not in trouble.problem:
        return None
    other = trouble.finding("FR106", trouble.since, "no key with a colon and a space begins here", _KEY_OR_ITEM)
    return _key_without_colon(trouble, trouble.since[0]) or other


def _colon_in_brackets(trouble: ParseError) -> Diagnosis | None:
    if "found unexpected ':'" not in trouble.problem:
        return None
    message = "a colon inside of { } and [ ] is followed by a space, or stands in a quoted text"
    return trouble.finding("FR103", trouble.at, message, "put a space after it, or quote the text")


def _open_quote(trouble: ParseError) -> Diagnosis | None:
    row, column = trouble.since
    quote = _OPENING_QUOTE.get(trouble.lines[row][column : column + 1])
    if not quote or "found unexpected" not in trouble.problem:
        return None
    return trouble.finding(
        "FR107", trouble.since, f"the {quote} that opens here is never closed", "close it, or delete it"
    )


def _escape(trouble: ParseError) -> Diagnosis | None:
    if "escape" not in trouble.problem and "hex" not in trouble.problem:
        return None
    if "unknown escape character" not in trouble.problem:
        message = "the escape does not stand for a character"
        remedy = "write two digits after \\x, four after \\u and eight after \\U, and no surrogates (D800 to DFFF)"
        return trouble.finding("FR108", trouble.at, message, remedy)
    row, column = trouble.at
    column -= 0 if trouble.char == "\\" and trouble.line[column - 1 : column] != "\\" else 1
    escape = trouble.line[column : column + 2]
    return trouble.finding(
        "FR108",
        (row, column),
        f"{escape} is not an escape of a double-quoted text",
        f"write \\{escape}, or use single quotes, in which a backslash is just a backslash",
        column + 2,
    )


def _after_end(trouble: ParseError) -> Diagnosis | None:
    column = trouble.at[1]
    before = trouble.masked[:column].rstrip()
    if "while parsing a block" not in trouble.context or not trouble.char or not before.endswith(tuple(_ENDS)):
        return None
    end = end_of_value(trouble.line, column)
    return trouble.finding("FR103", trouble.at, *_ENDS[before[-1]], end, filler=" ")


def _open_bracket(trouble: ParseError) -> Diagnosis | None:
    row, column = trouble.since
    bracket = trouble.lines[row][column : column + 1]
    if trouble.char in _MISPLACED and "node content" in trouble.problem:
        return trouble.finding("FR107", trouble.at, *_MISPLACED[trouble.char])
    if "while parsing a flow" in trouble.context and not trouble.char and "node content" in trouble.problem:
        return trouble.finding(
            "FR107",
            trouble.at,
            "a list or mapping in brackets is not closed",
            "close it with ] or }, or quote the text",
        )
    if "while parsing a flow" not in trouble.context or bracket not in ("[", "{") or trouble.since == trouble.at:
        return None
    closing = {"[": "]", "{": "}"}[bracket]
    message = f"a comma or the closing {closing} of this {bracket} is missing"
    if trouble.at[0] == row and trouble.at[1] < len(trouble.line):
        message = f"a comma or {closing} is missing before this"
        return trouble.finding("FR107", trouble.at, message, f"the {bracket} stands in column {column + 1}")
    return trouble.finding("FR107", trouble.since, message, f"add the {closing}, or quote the text")


def _indented_wrongly(trouble: ParseError) -> Diagnosis | None:
    column = trouble.at[1]
    if "while parsing a block" not in trouble.context and "document start" not in trouble.problem:
        return None
    if column != indentation(trouble.line):
        return None
    outer = trouble.since[1] if trouble.context else indentation(next(filter(has_content, trouble.lines)))
    if column == outer and not trouble.context:
        message = "the file goes on after its end, which the line '...' marks"
        return trouble.finding("FR113", trouble.at, message, "delete the line '...'")
    if column == outer:
        message, remedy = (
            ("this is a list item among the keys of a mapping", "indent it below the key that it belongs to")
            if trouble.char == "-"
            else ("this is a key among the items of a list", "indent it as far as the key that the list belongs to")
        )
        return trouble.finding("FR105", trouble.at, message, remedy)
    return trouble.finding(
        "FR105",
        trouble.at,
        f"the line begins in column {column + 1}, where nothing above it begins",
        "indent it exactly as far as the lines that it belongs with",
    )


def _tag_handle(trouble: ParseError) -> Diagnosis | None:
    if "tag" not in trouble.problem and "tag" not in trouble.context:
        return None
    return trouble.finding("FR118", trouble.since, "the value has an explicit tag", "delete the tag, or quote the text")


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
