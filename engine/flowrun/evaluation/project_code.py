"""The Python code of a project that functions depend on, by the imports in their modules. Nothing is imported."""

import ast
import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from flowrun.spec.project import is_file


def code_of(functions: Iterable[Callable[..., Any]], project: Path) -> list[tuple[str, str]]:
    """Return the project's files that functions come from, and those that these import, with their digests.

    Imports within functions count too. What is imported by a name that is made up at run time is not found.
    """
    search = _Search(project)
    for function in functions:
        module = sys.modules.get(getattr(function, "__module__", None) or "")
        if module is not None and getattr(module, "__file__", None):
            search.add_root(module.__name__, Path(str(module.__file__)).resolve())
            search.visit(module.__name__)
    return sorted((path.relative_to(project).as_posix(), digest) for path, digest in search.found.items())


class _Search:
    """A search through the modules of a project. ``found`` has its files with their digests."""

    def __init__(self, project: Path) -> None:
        self.found: dict[Path, str] = {}
        self._project = project
        on_path = (Path(entry).resolve() for entry in sys.path if entry)
        self._roots = [entry for entry in on_path if entry.is_relative_to(project) and not _is_installed(entry)]

    def add_root(self, name: str, file: Path) -> None:
        """Add the folder that a module's dotted name begins in."""
        depth = name.count(".") + (file.name == "__init__.py")
        if depth < len(file.parents) and file.parents[depth] not in self._roots:
            self._roots.append(file.parents[depth])

    def visit(self, name: str) -> None:
        """Add the file of a module, those of the packages that it is in, and those that they import."""
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            for file in self._files(parts[:length]):
                self._add(file, ".".join(parts[:length]))

    def _files(self, parts: list[str]) -> Iterator[Path]:
        for root in self._roots:
            place = root.joinpath(*parts)
            for file in (place / "__init__.py", place.with_suffix(".py")):
                inside = file.is_relative_to(self._project) and not _is_installed(file)
                if inside and parts[0] != "flowrun" and is_file(file):
                    yield file

    def _add(self, file: Path, name: str) -> None:
        if file in self.found:
            return
        content = file.read_bytes()
        self.found[file] = hashlib.sha256(content).hexdigest()
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        try:
            tree = ast.parse(content)
        except (SyntaxError, ValueError):
            return  # it is not imported, or its import fails by itself
        for node in ast.walk(tree):
            for imported in _imports(node, package):
                self.visit(imported)


def _imports(node: ast.AST, package: str) -> Iterator[str]:
    """Yield the modules that a statement may import; of ``from a import b``, also ``a.b``."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".") if package else []
        base = above[: len(above) - node.level + 1] if node.level else []
        module = ".".join([*base, *([node.module] if node.module else [])])
        if module:
            yield module
        yield from (f"{module}.{alias.name}" if module else alias.name for alias in node.names if alias.name != "*")


def _is_installed(path: Path) -> bool:
    return "site-packages" in path.parts
