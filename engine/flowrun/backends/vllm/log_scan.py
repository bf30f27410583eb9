"""Finds the line that names the fault in the output of another program."""

import re

_RAISED = re.compile(
    r"^(?:\([^)\n]*pid=\d+\)[^\n\]]*\] )?((?:\w+\.)*\w*(?:Error|Exception|Failure|Exit)\b: [^\n]*\S)", re.MULTILINE
)
_ELSEWHERE = re.compile(
    r"see (?:the )?(?:root cause|stack ?trace)|stack trace (?:above|for)|root cause above", re.IGNORECASE
)


def error_line(output: str) -> str:
    """Return ``raised_line`` of a program's output, or else its last line; empty for an empty output."""
    if line := raised_line(output):
        return line
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def raised_line(output: str) -> str:
    """Return the last line with an exception that does not refer to another one, or an empty text."""
    raised = [str(line) for line in _RAISED.findall(output) if not _ELSEWHERE.search(line)]
    return raised[-1] if raised else ""
