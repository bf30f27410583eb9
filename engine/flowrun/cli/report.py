"""Issues as text for people and as JSON for programs. Prose is made of them here only; nothing is printed."""

from collections.abc import Iterable

import msgspec

from flowrun.errors import Issue, dotted


def render_text(issues: Iterable[Issue]) -> str:
    """Write issues one below the other, with a blank line between them."""
    return "\n\n".join(map(_render, issues))


def render_json(issues: Iterable[Issue]) -> str:
    """Write issues as a JSON list of objects, one issue a line group."""
    listed = [
        {
            "code": issue.code,
            "severity": issue.severity,
            "file": issue.place.file,
            "line": issue.place.line,
            "column": issue.place.column,
            "path": dotted(issue.path),
            "message": issue.message,
            "remedy": issue.remedy,
        }
        for issue in issues
    ]
    return msgspec.json.format(msgspec.json.encode(listed)).decode()


def _render(issue: Issue) -> str:
    head = [str(issue.place), issue.code, dotted(issue.path), "(warning)" if issue.severity == "warning" else ""]
    body = [line for text in (issue.message, issue.remedy) for line in text.splitlines()]
    return "\n".join(["  ".join(filter(None, head)), *(f"  {line}" for line in body)])
