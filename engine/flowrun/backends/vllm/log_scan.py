"""Finds the one line that tells what went wrong, in what a program of others left behind."""

import re

_RAISED = re.compile(
    r"^(?:\([^)\n]*pid=\d+\)[^\n\]]*\] )?((?:\w+\.)*\w*(?:Error|Exception|Failure|Exit)\b: [^\n]*\S)", re.MULTILINE
)
_ELSEWHERE = re.compile(
    r"see (?:the )?(?:root cause|stack ?trace)|stack trace (?:above|for)|root cause above", re.IGNORECASE
)


def telling_line(output: str) -> str:
    """Give the last exception's line in a program's output that does not point to another; else the last line.

    Empty if the output says nothing.
    """
    if line := raised_line(output):
        return line
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def raised_line(output: str) -> str:
    """Give the last exception's line in a program's output that does not point to another, or an empty text."""
    raised = [str(line) for line in _RAISED.findall(output) if not _ELSEWHERE.search(line)]
    return raised[-1] if raised else ""
