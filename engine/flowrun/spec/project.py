"""The project of a spec: the folder that contains all files which the spec may include. No other file is read."""

import os
from pathlib import Path as FilePath
from typing import Final

PROJECT_MARKS: Final = (".git", "pyproject.toml")
"""Entries of a folder that mark it as the root of a project."""


def find_project(spec_file: FilePath, project_dir: FilePath | None = None) -> FilePath:
    """Return the resolved project folder of a spec.

    With ``project_dir`` it is that folder, or the spec's own folder if the spec lies outside of it. Otherwise it is the
    nearest folder above the spec with a mark, else the current folder if it contains the spec, else the spec's own.
    """
    folder = spec_file.resolve().parent
    if project_dir is not None:
        given = project_dir.resolve()
        return given if folder.is_relative_to(given) else folder
    if (marked := _find_marked(folder)) is not None:
        return marked
    current = FilePath.cwd().resolve()
    return current if folder.is_relative_to(current) else folder


def current_project() -> FilePath:
    """Return the project around the current folder, relative to it; the current folder if none above has a mark."""
    current = FilePath.cwd().resolve()
    return FilePath(os.path.relpath(_find_marked(current) or current, current))


def _find_marked(folder: FilePath) -> FilePath | None:
    """Return the nearest folder with a mark, from this one upwards."""
    for parent in (folder, *folder.parents):
        if any((parent / mark).exists() for mark in PROJECT_MARKS):
            return parent
    return None


def lies_in(path: FilePath, project: FilePath) -> bool:
    """Return whether a file lies in a project, after symbolic links are followed."""
    try:
        return path.resolve().is_relative_to(project)
    except (OSError, RuntimeError, ValueError):  # a name too long, a cycle of links, a NUL: no such file
        return False


def is_file(path: FilePath) -> bool:
    """Return whether a file exists; False for a path that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
