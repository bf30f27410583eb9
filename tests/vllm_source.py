"""A version of vLLM as its source says, without importing it: the protocol ``Vllm`` over a folder of Python files."""

import ast
import functools
import inspect
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from flowrun.backends.vllm.contract import UNKNOWN, Definition

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Function = ast.FunctionDef | ast.AsyncFunctionDef
_NO_DEFAULT = inspect.Parameter.empty


class SourceVllm:
    """The package ``vllm`` in a folder.

    Args:
        root: the folder that ``vllm/`` lies in.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def file(self, module: str) -> Path | None:
        """Return the file of a module; None if there is none."""
        path = self._root.joinpath(*module.split("."))
        found = (path.with_suffix(".py"), path / "__init__.py")
        return next((file for file in found if file.is_file()), None)

    @functools.cache  # noqa: B019 - a few of them, for one test
    def tree(self, module: str) -> ast.Module | None:
        """Return a module's syntax tree; None if there is no such module."""
        file = self.file(module)
        return None if file is None else ast.parse(file.read_text(encoding="utf-8"))

    def find(self, module: str, name: str) -> Definition | None:
        """Return what a module defines or imports under a name. See ``Vllm.find``."""
        tree = self.tree(module)
        if tree is None:
            return None
        for node in _statements(tree.body):
            match node:
                case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef() if node.name == name:
                    return SourceDefinition(self, module, node)
                case ast.Assign(targets=[ast.Name(id=known)], value=ast.Name(id=other)) if known == name != other:
                    return self.find(module, other)
                case ast.Assign(targets=targets) if any(name in _names(target) for target in targets):
                    return SourceDefinition(self, module, node)
                case ast.AnnAssign(target=ast.Name(id=known)) if known == name:
                    return SourceDefinition(self, module, node)
                case ast.Import(names=names) if any((one.asname or one.name) == name for one in names):
                    return SourceDefinition(self, module, node)
                case ast.ImportFrom():
                    if (found := self._imported(module, node, name)) is not None:
                        return found
        return None

    def _imported(self, module: str, node: ast.ImportFrom, name: str) -> Definition | None:
        source = self._absolute(module, node)
        for one in node.names:
            if one.name == "*":
                if source.startswith("vllm") and (found := self.find(source, name)) is not None:
                    return found
            elif (one.asname or one.name) == name:
                if not source.startswith("vllm"):
                    return SourceDefinition(self, module, node)
                return self.find(source, one.name)
        return None

    def _absolute(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        file = self.file(module)
        parts = module.split(".")
        package = parts if file is not None and file.name == "__init__.py" else parts[:-1]
        return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])

    def variables(self) -> Collection[str]:
        """Return the names of the environment variables."""
        tree = self.tree("vllm.envs")
        assert tree is not None
        for node in tree.body:
            match node:
                case ast.AnnAssign(target=ast.Name(id="environment_variables"), value=ast.Dict(keys=keys)):
                    return {str(key.value) for key in keys if isinstance(key, ast.Constant)}
        return ()

    def plugin_group(self) -> str:
        """Return the group of entry points whose plugins each process calls."""
        tree = self.tree("vllm.plugins")
        assert tree is not None
        for node in tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id="DEFAULT_PLUGINS_GROUP")], value=ast.Constant(value=group)):
                    return str(group)
        return ""


class SourceDefinition:
    """A ``Definition`` that is a piece of source."""

    def __init__(self, vllm: SourceVllm, module: str, node: ast.AST) -> None:
        self._vllm = vllm
        self._module = module
        self._node = node

    def _classes(self) -> Iterator[ast.ClassDef]:
        """Yield the class and its bases within vLLM, nearest first."""
        if not isinstance(self._node, ast.ClassDef):
            return
        yield self._node
        for base in self._node.bases:
            named = base.value if isinstance(base, ast.Subscript) else base
            found = self._vllm.find(self._module, named.id) if isinstance(named, ast.Name) else None
            if isinstance(found, SourceDefinition):
                yield from found._classes()

    def _method(self, name: str) -> Function | None:
        for owner in self._classes():
            for node in owner.body:
                if isinstance(node, _FUNCTIONS) and node.name == name:
                    return node
        return None

    def has(self, member: str) -> bool:
        """Return whether the class or its ``__init__`` has an attribute."""
        for owner in self._classes():
            for node in _statements(owner.body):
                if isinstance(node, (*_FUNCTIONS, ast.ClassDef)) and node.name == member:
                    return True
                targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
                if any(member in _names(target) for target in targets):
                    return True
            for node in owner.body:
                if isinstance(node, _FUNCTIONS) and node.name == "__init__" and member in _set_in(node):
                    return True
        return False

    def default(self, member: str) -> Any:
        """Return the default of a field, if it is a literal."""
        for owner in self._classes():
            for node in owner.body:
                if isinstance(node, ast.AnnAssign) and member in _names(node.target):
                    return _literal(node.value)
        return UNKNOWN

    def signature(self, member: str | None) -> inspect.Signature | None:
        """Return the parameters of the function, the class or a method, without ``self``."""
        if isinstance(self._node, _FUNCTIONS):
            return _signature(self._node, bound=False)
        if not isinstance(self._node, ast.ClassDef):
            return None
        method = self._method(member or "__init__")
        if method is not None:
            static = any(isinstance(one, ast.Name) and one.id == "staticmethod" for one in method.decorator_list)
            return _signature(method, bound=not static)
        return None if member is not None else self._fields()

    def _fields(self) -> inspect.Signature:
        """Return the parameters of a class that makes its own ``__init__`` of its annotations."""
        found: dict[str, inspect.Parameter] = {}
        for owner in reversed(list(self._classes())):
            for node in owner.body:
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    default = _NO_DEFAULT if node.value is None else _literal(node.value)
                    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
                    found[node.target.id] = inspect.Parameter(node.target.id, kind, default=default)
        ordered = sorted(found.values(), key=lambda one: one.default is not _NO_DEFAULT)
        return inspect.Signature(ordered)

    def reads(self, member: str) -> Collection[str]:
        """Return the attributes in a method's code."""
        method = self._method(member)
        return () if method is None else {one.attr for one in ast.walk(method) if isinstance(one, ast.Attribute)}


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield statements, those in ``if`` and ``try`` too."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            yield from _statements([*node.body, *node.orelse])


def _names(target: ast.AST | None) -> set[str]:
    return {node.id for node in ast.walk(target) if isinstance(node, ast.Name)} if target is not None else set()


def _set_in(function: Function) -> set[str]:
    """Return the attributes of ``self`` that a function sets."""
    return {
        node.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _names(node.value) == {"self"}
    }


def _literal(node: ast.expr | None) -> Any:
    try:
        return UNKNOWN if node is None else ast.literal_eval(node)
    except ValueError:
        return UNKNOWN


def _signature(function: Function, *, bound: bool) -> inspect.Signature:
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + list(given.defaults)
    only, either = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    kinds = [*[only for _ in given.posonlyargs], *[either for _ in given.args]]
    parameters = [
        inspect.Parameter(one.arg, kind, default=_NO_DEFAULT if default is None else _literal(default))
        for one, kind, default in zip(positional, kinds, defaults, strict=True)
    ][bound:]
    if given.vararg:
        parameters.append(inspect.Parameter(given.vararg.arg, inspect.Parameter.VAR_POSITIONAL))
    for one, value in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        default = _NO_DEFAULT if value is None else _literal(value)
        parameters.append(inspect.Parameter(one.arg, inspect.Parameter.KEYWORD_ONLY, default=default))
    if given.kwarg:
        parameters.append(inspect.Parameter(given.kwarg.arg, inspect.Parameter.VAR_KEYWORD))
    return inspect.Signature(parameters)
