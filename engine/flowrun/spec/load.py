"""The entry point of loading: from a file, a profile and an environment to a valid ``Spec``, or to all issues."""

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Final

import msgspec

from flowrun.errors import Issue, SpecError, UnreadableFile
from flowrun.spec.document import Document
from flowrun.spec.environment import substitute
from flowrun.spec.inclusion import include_files
from flowrun.spec.mcp_lock import include_lock
from flowrun.spec.model import Spec
from flowrun.spec.model_lock import include_model_lock
from flowrun.spec.parse import parse_spec
from flowrun.spec.profiles import merge_profile
from flowrun.spec.project import find_project, is_file
from flowrun.spec.required_version import check_requires
from flowrun.spec.schema import check_schema, find_other_kind
from flowrun.spec.yaml.reader import read_document, read_yaml

_ABOUT_THE_FILE: Final = frozenset({"FR110", "FR111"})
"""Codes of encoding issues. Any other YAML issue hides the schema's issues at its position: they are consequences."""


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A spec with the document that it was parsed from. ``issues`` are warnings only."""

    spec: Spec
    document: Document
    issues: tuple[Issue, ...] = ()


class Files:
    """The source of spec files: the disk."""

    def has(self, path: FilePath) -> bool:
        """Return whether a file exists."""
        return is_file(path)

    def read(self, path: FilePath) -> bytes:
        """Return the bytes of a file.

        Raises:
            UnreadableFile: the file does not exist, is a directory, or cannot be read.
        """
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise UnreadableFile(f"there is no file {path}") from error
        except IsADirectoryError as error:
            raise UnreadableFile(f"{path} is a directory; name a spec in it") from error
        except (OSError, ValueError) as error:
            raise UnreadableFile(f"{path} cannot be read: {error}") from error

    def document(self, path: FilePath) -> Document:
        """Parse a file. See ``read`` for the errors."""
        return read_document(self.read(path), str(path))


class ParsedOnce(Files):
    """The disk; each file is read once."""

    def __init__(self) -> None:
        self._documents: dict[FilePath, Document] = {}
        self._contents: dict[FilePath, bytes] = {}

    def read(self, path: FilePath) -> bytes:
        """Return the bytes of a file. See ``Files.read``."""
        if path not in self._contents:
            self._contents[path] = super().read(path)
        return self._contents[path]

    def document(self, path: FilePath) -> Document:
        """Return a parsed file. See ``Files.document``."""
        if path not in self._documents:
            self._documents[path] = super().document(path)
        return self._documents[path]


class StoredFiles(Files):
    """The files of a stored flow by their resolved paths. No other file exists."""

    def __init__(self, contents: Mapping[FilePath, bytes]) -> None:
        self._contents = contents

    def has(self, path: FilePath) -> bool:
        """Return whether a file was stored."""
        return path.resolve() in self._contents

    def read(self, path: FilePath) -> bytes:
        """Return the bytes that were stored for a file. See ``Files.read``."""
        try:
            return self._contents[path.resolve()]
        except KeyError:
            raise UnreadableFile(f"there was no file {path}") from None


ON_DISK: Final = Files()


def load_spec(
    path: FilePath,
    *,
    profile: str | None = None,
    environ: Mapping[str, str] = {},
    require_environment: bool = True,
    files: Files = ON_DISK,
    project: FilePath | None = None,
    locked: bool = True,
) -> Loaded:
    """Load the spec at ``path``.

    Args:
        profile: the name of the profile to merge over the spec.
        environ: the variables for ``${VAR}``.
        require_environment: report a variable that is not set. If False, its ``${VAR}`` stays, so that a spec can be
            checked on a machine where it will not run.
        files: the source of the file.
        project: the folder that must contain the files of texts. None: on the disk the spec's project, else any.
        locked: load the tools of MCP servers from their lock. If False, the spec has none of them.

    Raises:
        UsageError: the file cannot be read, or has no such profile.
        SpecError: the file has errors.
    """
    document = files.document(path)
    if project is None and files is ON_DISK:
        project = find_project(path)
    return _load(
        document,
        profile=profile,
        environ=environ,
        require_environment=require_environment,
        files=files,
        project=project,
        locked=locked,
    )


def parse_text(
    text: str,
    file: str = "spec.yaml",
    *,
    profile: str | None = None,
    environ: Mapping[str, str] = {},
    require_environment: bool = True,
    files: Files = ON_DISK,
    project: FilePath | None = None,
) -> Loaded:
    """Load a spec from a text. See ``load_spec`` for the other arguments and the errors.

    Args:
        file: the name of the file in issues.
    """
    document = read_yaml(text, file)
    return _load(
        document,
        profile=profile,
        environ=environ,
        require_environment=require_environment,
        files=files,
        project=project,
    )


def _load(
    document: Document,
    *,
    profile: str | None,
    environ: Mapping[str, str],
    require_environment: bool,
    files: Files = ON_DISK,
    project: FilePath | None = None,
    locked: bool = True,
) -> Loaded:
    if document.value is None:
        raise SpecError(document.issues)
    if (other := find_other_kind(document)) is not None:
        raise SpecError([other])
    if (unmet := check_requires(document)) is not None:
        raise SpecError([unmet])  # what this version does not know is no fault of the spec
    document, from_profile = merge_profile(document, profile)
    document = substitute(document, environ, from_profile=from_profile, required=require_environment)
    reported = {issue.place for issue in document.issues if issue.code not in _ABOUT_THE_FILE}
    issues = [*document.issues, *(issue for issue in check_schema(document) if issue.place not in reported)]
    if any(issue.severity == "error" for issue in issues):
        raise SpecError(issues)
    document, found = include_files(document, files, project)
    if locked:
        document, unlocked = include_lock(document, files)
        document, unreadable = include_model_lock(document, files, profile)
        found = [*found, *unlocked, *([] if unlocked else unreadable)]
    issues += found
    if any(issue.severity == "error" for issue in found):
        raise SpecError(issues)
    return Loaded(spec=parse_spec(document), document=document, issues=tuple(issues))
