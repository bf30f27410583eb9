"""What belongs to a spec's project: the folder in which all lies that the spec includes. Nothing else is read."""

from pathlib import Path as FilePath
from typing import Final

PROJECT_MARKS: Final = (".git", "pyproject.toml")
"""A folder with one of these is a project's topmost one."""


def find_project(spec_file: FilePath, project_dir: FilePath | None = None) -> FilePath:
    """Return the project of a spec, resolved.

    It is ``project_dir`` if given, else the nearest folder upwards with a mark, else the current folder if it holds the
    spec, else the spec's own; that is it too for a spec that lies outside of ``project_dir``.
    """
    folder = spec_file.resolve().parent
    if project_dir is not None:
        given = project_dir.resolve()
        return given if folder.is_relative_to(given) else folder
    for parent in (folder, *folder.parents):
        if any((parent / mark).exists() for mark in PROJECT_MARKS):
            return parent
    current = FilePath.cwd().resolve()
    return current if folder.is_relative_to(current) else folder


def lies_in(path: FilePath, project: FilePath) -> bool:
    """Tell whether a file belongs to a project, wherever links lead."""
    try:
        return path.resolve().is_relative_to(project)
    except (OSError, RuntimeError, ValueError):  # a name too long, links in a circle, a NUL: nothing is there
        return False


def is_file(path: FilePath) -> bool:
    """Tell whether a file is there; what cannot be a file's name is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
