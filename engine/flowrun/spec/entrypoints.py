"""Import of the Python function that ``module.path:function`` names, relative to the spec's file.

One process serves one project: Python loads each module name once, so two projects cannot both load their ``tools``.
"""

import importlib
import importlib.machinery
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path as FilePath
from types import ModuleType
from typing import Any, Final

from flowrun.errors import FlowrunError
from flowrun.excerpts import cut
from flowrun.spec.project import find_project, is_file
from flowrun.spec.suggestions import closest

_LONGEST_NAME: Final = 200
"""Characters of a folder's name that every file system can look up."""


class EntrypointError(FlowrunError):
    """An error of an entrypoint that leads to no function; ``remedy`` says what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(f"{message}; {remedy}" if remedy else message)


class OtherModuleLoaded(EntrypointError):
    """This process has loaded a module of the same name from elsewhere; in a fresh process it would be right."""


class NoObject(EntrypointError):
    """A function is a method, and nothing says of which object."""


class NotInProject(EntrypointError):
    """The project has no module of that name; an installed package may."""


_roots: set[str] = set()
"""The folders that this module has put onto ``sys.path``, which is as global: nothing in them is installed."""


def split_entrypoint(entrypoint: str) -> tuple[str, str]:
    """Return the dotted name of the module and that of the function.

    Raises:
        EntrypointError: the entrypoint does not have the form ``module.path:function``.
    """
    module, colon, function = entrypoint.partition(":")
    if not colon or not all(name.isidentifier() for name in (*module.split("."), *function.split("."))):
        raise EntrypointError(
            f"'{entrypoint}' is not an entrypoint", "write module.path:function, such as tools.weather:get_weather"
        )
    return module, function


def find_project_root(entrypoint: str, spec_file: FilePath, project_dir: FilePath | None = None) -> FilePath:
    """Find the folder that is the import root of the entrypoint's module.

    It is ``project_dir`` if given. Otherwise it is the nearest folder, from the spec's own up to the project's, that
    contains the module's top-level package or file.

    Raises:
        NotInProject: the module does not exist.
        EntrypointError: its folder has no ``__init__.py``.
    """
    first = split_entrypoint(entrypoint)[0].partition(".")[0]
    folders = [project_dir.resolve()] if project_dir is not None else list(_folders_up_to_project(spec_file))
    for folder in folders:
        if is_file(folder / first / "__init__.py") or is_file(folder / f"{first}.py"):
            return folder
    for folder in folders:
        if len(first) < _LONGEST_NAME and (folder / first).is_dir():
            # Without this file Python prefers an installed package of the same name.
            raise EntrypointError(f"{first}/ has no __init__.py", f"create an empty file {folder / first}/__init__.py")
    searched = str(folders[0]) if len(folders) == 1 else f"{folders[0]} and its parents up to {folders[-1]}"
    raise NotInProject(
        f"there is no module '{cut(first, 60)}' in {searched}",
        f"create {cut(first, 60)}/__init__.py or {cut(first, 60)}.py there, "
        "or name the project's folder with --project-dir",
    )


def load_entrypoint(entrypoint: str, *, spec_file: FilePath, project_dir: FilePath | None = None) -> Callable[..., Any]:
    """Import the module of an entrypoint, with the project's root first on ``sys.path``, and return the function.

    Raises:
        EntrypointError: the module or function does not exist, the import raises an exception (the message names its
            line), or the module's name belongs to a module outside of the project.
    """
    module_name, function_name = split_entrypoint(entrypoint)
    try:
        root = find_project_root(entrypoint, spec_file, project_dir)
    except NotInProject:
        if not _is_installed(module_name.partition(".")[0], find_project(spec_file, project_dir)):
            raise
        return _resolve_function(_import(module_name, None), function_name)
    _refuse_other_project(module_name.partition(".")[0], root)
    _prepend_to_sys_path(root)
    module = _import(module_name, root)
    if not _lies_below(module, root):
        where = getattr(module, "__file__", None) or "Python itself"
        raise EntrypointError(
            f"{module_name} comes from {where}, outside of the project {root}", "call it from a module of the project"
        )
    return _resolve_function(module, function_name)


def path_of_installed() -> list[str]:
    """Return ``sys.path`` without the projects whose functions this process has imported."""
    return [folder for folder in sys.path if folder not in _roots]


def _folders_up_to_project(spec_file: FilePath) -> Iterator[FilePath]:
    """Yield the spec's folder and those around it, up to the project's."""
    folder, project = spec_file.resolve().parent, find_project(spec_file)
    for parent in (folder, *folder.parents):
        yield parent
        if parent == project:
            return


def _is_installed(name: str, project: FilePath) -> bool:
    """Return whether a top-level module is installed. Folders above the project are not searched."""
    above = {str(parent) for parent in project.parents} | _roots
    folders = [folder for folder in sys.path if str(FilePath(folder).resolve()) not in above]
    for finder in sys.meta_path:
        path = folders if finder is importlib.machinery.PathFinder else None
        if getattr(finder, "find_spec", None) is not None and finder.find_spec(name, path) is not None:
            return True
    return False


def _refuse_other_project(first: str, root: FilePath) -> None:
    loaded = sys.modules.get(first)
    if loaded is not None and not _lies_below(loaded, root):
        where = getattr(loaded, "__file__", None) or "Python itself"
        raise OtherModuleLoaded(
            f"another module '{first}' is loaded already, from {where}",
            f"rename '{first}' in {root}, or run the flows of different projects in processes of their own",
        )


def _lies_below(module: ModuleType, root: FilePath) -> bool:
    if file := getattr(module, "__file__", None):
        return FilePath(file).resolve().is_relative_to(root)
    return any(FilePath(folder).resolve().is_relative_to(root) for folder in getattr(module, "__path__", ()))


def _prepend_to_sys_path(root: FilePath) -> None:
    _roots.add(str(root))
    if sys.path[:1] != [str(root)]:
        sys.path[:] = [str(root), *(folder for folder in sys.path if folder != str(root))]
    importlib.invalidate_caches()


def _import(name: str, root: FilePath | None) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise _no_such_module(missing, root) from error
        raise _import_error(name, root, error, remedy=f"install what provides '{missing}'") from error
    except (Exception, SystemExit) as error:
        raise _import_error(name, root, error, remedy="importing a module of tools must do nothing else") from error


def _no_such_module(name: str, root: FilePath | None) -> EntrypointError:
    if root is None:
        return EntrypointError(f"the installed packages have no module {name}", "see the package's documentation")
    *packages, last = name.split(".")
    folder = root.joinpath(*packages)
    siblings = sorted(
        entry.stem
        for entry in (folder.iterdir() if folder.is_dir() else ())
        if entry.suffix == ".py" or (entry / "__init__.py").is_file()
    )
    similar = closest(last, siblings)
    remedy = f"did you mean {'.'.join((*packages, similar))}?" if similar else f"create {folder / last}.py"
    return EntrypointError(f"there is no module {name} in {root}", remedy)


def _import_error(name: str, root: FilePath | None, error: BaseException, *, remedy: str) -> EntrypointError:
    described = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return EntrypointError(
        f"{name} cannot be imported: {described}{'' if root is None else _line_of(error, root)}", remedy
    )


def _line_of(error: BaseException, root: FilePath) -> str:
    """Return the line of the project that raised an exception, such as `` (tools/weather.py, line 3)``, or ""."""
    if isinstance(error, SyntaxError) and error.filename:
        lines = [(error.filename, error.lineno)]
    else:
        lines = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    for file, line in reversed(lines):
        if FilePath(file).is_relative_to(root):
            return f" ({FilePath(file).relative_to(root)}, line {line})"
    return ""


def _resolve_function(module: ModuleType, name: str) -> Callable[..., Any]:
    found: Any = module
    owner = module.__name__
    for part in name.split("."):
        if not hasattr(found, part):
            functions = [
                known
                for known, value in vars(found).items()
                if callable(value) and not known.startswith("_") and getattr(value, "__module__", "") == module.__name__
            ]
            raise EntrypointError(f"{owner} has no function '{part}'", _function_remedy(owner, part, functions))
        found = getattr(found, part)
        owner = f"{owner}{'.' if ':' in owner else ':'}{part}"
    if not callable(found):
        raise EntrypointError(f"{owner} is not a function but of type {type(found).__name__}", "name a function")
    function: Callable[..., Any] = found
    return function


def _function_remedy(owner: str, name: str, functions: list[str]) -> str:
    joint = "." if ":" in owner else ":"
    if similar := closest(name, functions):
        return f"did you mean {owner}{joint}{similar}?"
    return f"it has: {', '.join(sorted(functions))}" if functions else "define it there"
