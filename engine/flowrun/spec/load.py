"""One way in: a file, a profile and an environment give a checked ``Spec``, or every issue at once."""

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Final

import msgspec

from flowrun.errors import Issue, SpecError, UnreadableFile
from flowrun.spec.document import Document
from flowrun.spec.environment import substitute
from flowrun.spec.model import Spec
from flowrun.spec.parse import parse_spec
from flowrun.spec.profiles import merge_profile
from flowrun.spec.project import is_file
from flowrun.spec.schema import check_schema
from flowrun.spec.yaml.reader import read_document, read_yaml

_ABOUT_THE_FILE: Final = frozenset({"FR110", "FR111"})
"""After any other issue of the YAML, what the schema says of the same place only follows from it."""


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A spec with what later checks need to speak of its file. ``issues`` are warnings only."""

    spec: Spec
    document: Document
    issues: tuple[Issue, ...] = ()


class Files:
    """Where specs are read from: the disk."""

    def has(self, path: FilePath) -> bool:
        """Tell whether a file is there."""
        return is_file(path)

    def read(self, path: FilePath) -> bytes:
        """Give a file's bytes.

        Raises:
            UnreadableFile: it cannot be read.
        """
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise UnreadableFile(f"there is no file {path}") from error
        except IsADirectoryError as error:
            raise UnreadableFile(f"{path} is a directory; name a spec in it") from error
        except (OSError, ValueError) as error:
            raise UnreadableFile(f"{path} cannot be read: {error}") from error


class StoredFiles(Files):
    """Files as they were once, by their resolved paths; nothing else is there."""

    def __init__(self, contents: Mapping[FilePath, bytes]) -> None:
        self._contents = contents

    def has(self, path: FilePath) -> bool:
        """Tell whether a file was there."""
        return path.resolve() in self._contents

    def read(self, path: FilePath) -> bytes:
        """Give a file's bytes as they were. See ``Files.read``."""
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
) -> Loaded:
    """Load the spec at ``path``, with a profile merged over it and ``${VAR}`` taken from ``environ``.

    Without ``require_environment`` a variable may be missing, and stays as ``${VAR}``: a spec can be checked where it
    will not run.

    Raises:
        UsageError: the file cannot be read, or has no such profile.
        SpecError: everything that is wrong with the file.
    """
    document = read_document(files.read(path), str(path))
    return _load(document, profile=profile, environ=environ, require_environment=require_environment)


def parse_text(
    text: str,
    file: str = "spec.yaml",
    *,
    profile: str | None = None,
    environ: Mapping[str, str] = {},
    require_environment: bool = True,
) -> Loaded:
    """Load a spec from a text as ``load_spec`` does from a file; ``file`` is the name in its issues."""
    document = read_yaml(text, file)
    return _load(document, profile=profile, environ=environ, require_environment=require_environment)


def _load(document: Document, *, profile: str | None, environ: Mapping[str, str], require_environment: bool) -> Loaded:
    if document.value is None:
        raise SpecError(document.issues)
    document, from_profile = merge_profile(document, profile)
    document = substitute(document, environ, from_profile=from_profile, required=require_environment)
    told = {issue.place for issue in document.issues if issue.code not in _ABOUT_THE_FILE}
    issues = [*document.issues, *(issue for issue in check_schema(document) if issue.place not in told)]
    if any(issue.severity == "error" for issue in issues):
        raise SpecError(issues)
    return Loaded(spec=parse_spec(document), document=document, issues=tuple(issues))
