"""Texts of messages in files of their own: ``content: {file: PATH}`` becomes the text when a spec is loaded.

All that comes after sees text only: templates, checks, comparisons. An issue about such a text has its place in its
file.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from flowrun.errors import Issue, Path, UnreadableFile
from flowrun.spec.document import Document, IncludedText, issue_at
from flowrun.spec.model import JSON, has_template
from flowrun.spec.project import lies_in
from flowrun.spec.yaml.encoding import MAX_BYTES, decode_source, too_large

if TYPE_CHECKING:
    from flowrun.spec.load import Files

_MESSAGES: Final = ("messages", "say")


_IMAGES: Final = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"RIFF": "webp"}
"""The first bytes of images, and the names of their types."""

_URI: Final = re.compile(r"(?:data|https?):", re.IGNORECASE)
_STORED: Final = b"data:image/"


class FileReference(NamedTuple):
    """A text or image that stands in a file: its path in the document, and the name of the file."""

    path: Path
    name: str
    is_image: bool = False


def include_files(document: Document, files: "Files", project: FilePath | None) -> tuple[Document, list[Issue]]:
    """Return a document that matches the schema with the texts of its files in their places, and what is wrong.

    Args:
        project: the folder that must contain the files; None if ``files`` has no others.
    """
    value, included, issues = document.value, dict(document.included), []
    for path, name, is_image in file_references(document.value, ()):
        file = FilePath(document.file).parent / name
        at = path if is_image else (*path, "file")
        raw, found = _read(document, at, name, file, files, project)
        text = ""
        if raw is not None:
            text, wrong = _image_uri(raw, document, at, name) if is_image else _decode(raw, file)
            found = [*found, *wrong]
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
        content = entry.get("content")
        yield from _reference(content, (*at, index, "content"))
        for number, part in enumerate(content if isinstance(content, list) else ()):
            image = part.get("image", "{{")
            if not has_template(image) and not _URI.match(image):
                yield FileReference((*at, index, "content", number, "image"), image, is_image=True)
        yield from _in_messages(entry.get("messages", ()), (*at, index, "messages"))


def _reference(value: JSON, path: Path) -> Iterator[FileReference]:
    if isinstance(value, Mapping):
        yield FileReference(path, value["file"])


def _read(
    document: Document, at: Path, name: str, file: FilePath, files: "Files", project: FilePath | None
) -> tuple[bytes | None, list[Issue]]:
    """Read a file that a value of the document names; None if it cannot be read."""
    if project is not None and not lies_in(file, project):
        message = f"the file {name!r} lies outside of the project {project}"
        remedy = "move it into the project, or name a folder around both with --project-dir"
        return None, [issue_at(document, "FR709", at, message, remedy)]
    if not files.has(file):
        remedy = "give its path relative to this spec's file"
        return None, [issue_at(document, "FR706", at, f"there is no file {name!r}", remedy)]
    try:
        raw = files.read(file)
    except UnreadableFile as exc:
        return None, [issue_at(document, "FR706", at, str(exc), "see whether it may be read")]
    return (raw, []) if len(raw) <= MAX_BYTES else (None, [too_large(str(file), len(raw))])


def _decode(raw: bytes, file: FilePath) -> tuple[str, list[Issue]]:
    text, issues = decode_source(raw, str(file))
    return text or "", issues


def _image_uri(raw: bytes, document: Document, at: Path, name: str) -> tuple[str, list[Issue]]:
    """Return an image as a ``data:`` URI. That of a stored flow has this form already."""
    if raw.startswith(_STORED):
        return raw.decode(errors="replace"), []
    kind = next((kind for start, kind in _IMAGES.items() if raw.startswith(start)), None)
    if kind is None:
        remedy = "name a PNG, JPEG, GIF or WebP image"
        return "", [issue_at(document, "FR712", at, f"the file {name!r} is no image that models read", remedy)]
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}", []


def _replaced(value: Any, path: Path, text: str) -> Any:
    """Return a value with a text at a path. Its aliases share parts, so nothing is changed in place."""
    if not path:
        return text
    key, *rest = path
    changed = value.copy()
    changed[key] = _replaced(value[key], tuple(rest), text)
    return changed
