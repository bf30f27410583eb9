"""Texts of messages in files of their own: ``content: {file: PATH}`` becomes the text when a spec is loaded.

All that comes after sees text only: templates, checks, comparisons. An issue about such a text has its place in its
file.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from flowrun.errors import Issue, Path, UnreadableFile
from flowrun.spec.document import Document, IncludedText, issue_at
from flowrun.spec.model import JSON
from flowrun.spec.project import lies_in
from flowrun.spec.yaml.encoding import MAX_BYTES, decode_source, too_large

if TYPE_CHECKING:
    from flowrun.spec.load import Files

_MESSAGES: Final = ("messages", "say")


class FileReference(NamedTuple):
    """A text that stands in a file: its path in the document, and the name of the file."""

    path: Path
    name: str


def include_files(document: Document, files: "Files", project: FilePath | None) -> tuple[Document, list[Issue]]:
    """Return a document that matches the schema with the texts of its files in their places, and what is wrong.

    Args:
        project: the folder that must contain the files; None if ``files`` has no others.
    """
    value, included, issues = document.value, dict(document.included), []
    for path, name in file_references(document.value, ()):
        file = FilePath(document.file).parent / name
        text, found = _read(document, path, name, file, files, project)
        issues += found
        included[path] = IncludedText(file=str(file), text=text)
        value = _replaced(value, path, included[path].content)
    return msgspec.structs.replace(document, value=value, included=included), issues


def file_references(flow: Mapping[str, JSON], at: Path) -> Iterator[FileReference]:
    """Yield the texts of a flow, and of its local flows, that stand in files."""
    yield from _in_messages(flow.get("messages", ()), (*at, "messages"))
    for thread, entries in flow.get("threads", {}).items():
        yield from _in_messages(entries, (*at, "threads", thread))
    for name, state in flow.get("states", {}).items():
        path = (*at, "states", name)
        yield from _reference(state.get("system"), (*path, "system"))
        for key in _MESSAGES:
            yield from _in_messages(state.get(key, ()), (*path, key))
        for index, catch in enumerate(state.get("catch", ())):
            yield from _in_messages(catch.get("say", ()), (*path, "catch", index, "say"))
    for name, inner in flow.get("flows", {}).items():
        yield from file_references(inner, (*at, "flows", name))


def _in_messages(entries: Any, at: Path) -> Iterator[FileReference]:
    for index, entry in enumerate(entries):
        yield from _reference(entry.get("content"), (*at, index, "content"))
        yield from _in_messages(entry.get("messages", ()), (*at, index, "messages"))


def _reference(value: JSON, path: Path) -> Iterator[FileReference]:
    if isinstance(value, Mapping):
        yield FileReference(path, value["file"])


def _read(
    document: Document, path: Path, name: str, file: FilePath, files: "Files", project: FilePath | None
) -> tuple[str, list[Issue]]:
    """Read a file; the text is empty if there are errors."""
    at = (*path, "file")
    if project is not None and not lies_in(file, project):
        message = f"the file {name!r} lies outside of the project {project}"
        remedy = "move it into the project, or name a folder around both with --project-dir"
        return "", [issue_at(document, "FR709", at, message, remedy)]
    if not files.has(file):
        return "", [
            issue_at(document, "FR706", at, f"there is no file {name!r}", "give its path relative to this spec's file")
        ]
    try:
        raw = files.read(file)
    except UnreadableFile as exc:
        return "", [issue_at(document, "FR706", at, str(exc), "see whether it may be read")]
    if len(raw) > MAX_BYTES:
        return "", [too_large(str(file), len(raw))]
    text, issues = decode_source(raw, str(file))
    return text or "", issues


def _replaced(value: Any, path: Path, text: str) -> Any:
    """Return a value with a text at a path. Its aliases share parts, so nothing is changed in place."""
    if not path:
        return text
    key, *rest = path
    changed = value.copy()
    changed[key] = _replaced(value[key], tuple(rest), text)
    return changed
