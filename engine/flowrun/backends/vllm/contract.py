"""Compares what flowrun uses of vLLM (``internals.py``) with what a version of vLLM has.

At the start of an engine only modules that are imported anyway are looked at, which takes milliseconds.
"""

import dis
import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Collection, Iterator
from types import CodeType
from typing import Any, Final, Protocol

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from flowrun.backends.vllm.internals import ENVIRONMENT, INTERNALS, PLUGINS, SUPPORTED, Call, Internal
from flowrun.errors import BackendError

UNKNOWN: Final = object()
"""The default of what has none, or one that cannot be told."""


class Definition(Protocol):
    """A function, class or constant, as a version of vLLM has it."""

    def has(self, member: str) -> bool:
        """Return whether a class, or its objects, have an attribute."""

    def default(self, member: str) -> Any:
        """Return the default of a field, or ``UNKNOWN``."""

    def signature(self, member: str | None) -> inspect.Signature | None:
        """Return the parameters of itself or of a method, without ``self``; None if they cannot be told."""

    def reads(self, member: str) -> Collection[str]:
        """Return the attributes that a method's code reads."""


class Vllm(Protocol):
    """A version of vLLM."""

    def find(self, module: str, name: str) -> Definition | None:
        """Return what a module has under a name; None if there is no such module or name."""

    def variables(self) -> Collection[str]:
        """Return the names of the environment variables."""

    def plugin_group(self) -> str:
        """Return the group of entry points whose plugins each process calls."""


def faults_of_vllm(vllm: Vllm, *, internals: Collection[Internal] = INTERNALS) -> list[str]:
    """Return what flowrun uses and a version of vLLM has not, or has otherwise."""
    faults = [fault for internal in internals for fault in _faults_of(vllm, internal)]
    faults += [f"vllm.envs has no variable {name}" for name in ENVIRONMENT if name not in vllm.variables()]
    if vllm.plugin_group() != PLUGINS[1]:
        faults.append(f"{PLUGINS[0]} calls the plugins of {vllm.plugin_group()!r}, and not of {PLUGINS[1]!r}")
    return faults


def _faults_of(vllm: Vllm, internal: Internal) -> Iterator[str]:
    places = (vllm.find(module, internal.name) for module in (internal.module, *internal.moved))
    found = next((one for one in places if one is not None), None)
    if internal.optional:
        return
    if found is None:
        yield f"{internal.module} has no {internal.name}"
        return
    whole = f"{internal.module}.{internal.name}"
    if internal.call is not None:
        yield from _faults_of_call(whole, found.signature(None), internal.call)
    for member, call in internal.members.items():
        where = f"{whole}.{member}"
        if not found.has(member):
            yield f"{whole} has no {member}"
        elif call is not None:
            if call.positional is not None:
                yield from _faults_of_call(where, found.signature(member), call)
            missing = [name for name in call.calls if name not in found.reads(member)]
            yield from (f"{where} does not call {name}" for name in missing)
    for member, known in internal.defaults.items():
        default = found.default(member)
        if default is not UNKNOWN and default not in known:
            yield f"{whole}.{member} is {default!r} by default, whose meaning is not known"


def _faults_of_call(where: str, signature: inspect.Signature | None, call: Call) -> Iterator[str]:
    if signature is None:
        return
    try:
        signature.bind(*range(call.positional or 0), **dict.fromkeys(call.keywords))
    except TypeError as exc:
        yield f"{where}: {exc}".replace("required keyword-only argument", "required argument")  # since Python 3.12
        return
    for name, known in call.relies_on.items():
        parameter = signature.parameters.get(name)
        if parameter is None:
            yield f"{where} has no parameter {name!r}"
        elif parameter.default not in known:
            yield f"{where}: {name!r} is {parameter.default!r} by default, whose meaning is not known"


# --- the vLLM that is installed ------------------------------------------------------------------------------------


class InstalledVllm:
    """The vLLM that is installed, as far as it is imported.

    Args:
        imports: import what is not yet; else such modules must only exist.
    """

    def __init__(self, *, imports: bool = False) -> None:
        self._imports = imports

    def find(self, module: str, name: str) -> Definition | None:
        """Return what a module has under a name. See ``Vllm.find``."""
        loaded = sys.modules.get(module)
        if loaded is None:
            if not _exists(module):
                return None
            if not self._imports:
                return _NotImported()
            loaded = importlib.import_module(module)
        found = getattr(loaded, name, UNKNOWN)
        return None if found is UNKNOWN else _Installed(found)

    def variables(self) -> Collection[str]:
        """Return the names of the environment variables."""
        known: Collection[str] = getattr(sys.modules.get("vllm.envs"), "environment_variables", ())
        return known

    def plugin_group(self) -> str:
        """Return the group of entry points whose plugins each process calls."""
        return str(getattr(sys.modules.get(PLUGINS[0]), "DEFAULT_PLUGINS_GROUP", ""))


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # so is a package around it
        return False


class _Installed:
    """A ``Definition`` that is an object of this process."""

    def __init__(self, value: Any) -> None:
        self._value = value
        self._classes = inspect.getmro(value) if inspect.isclass(value) else ()

    def has(self, member: str) -> bool:
        """Return whether the class, its annotations or its ``__init__`` have an attribute."""
        if not self._classes:
            return hasattr(self._value, member)
        declared = (member in vars(one) or member in _annotated(one) for one in self._classes)
        return any(declared) or any(member in _set_by(one) for one in self._classes)

    def default(self, member: str) -> Any:
        """Return the default of a field of a class of pydantic, or of any other class."""
        fields = getattr(self._value, "model_fields", {})
        if member in fields:
            return fields[member].default
        found = getattr(self._value, member, UNKNOWN)
        return UNKNOWN if inspect.isroutine(found) or isinstance(found, property) else found

    def signature(self, member: str | None) -> inspect.Signature | None:
        """Return the parameters of the value or its member, without ``self``."""
        try:
            if member is None:
                return inspect.signature(self._value)
            function = inspect.getattr_static(self._value, member)
            signature = inspect.signature(getattr(self._value, member))
        except (TypeError, ValueError):  # such as of what is compiled
            return None
        if isinstance(function, staticmethod | classmethod) or not self._classes:
            return signature
        return signature.replace(parameters=list(signature.parameters.values())[1:])

    def reads(self, member: str) -> Collection[str]:
        """Return the names in a method's code."""
        code = getattr(inspect.unwrap(getattr(self._value, member)), "__code__", None)
        return frozenset(_names_in(code))


class _NotImported:
    """A ``Definition`` in a module that was not imported: nothing is known of it but that its module exists."""

    def has(self, member: str) -> bool:
        """Return True: whoever imports the module will see."""
        return True

    def default(self, member: str) -> Any:
        """Return that no default is known."""
        return UNKNOWN

    def signature(self, member: str | None) -> None:
        """Return None."""

    def reads(self, member: str) -> Collection[str]:
        """Return what any method is asked for."""
        return _Everything()


class _Everything(tuple[str, ...]):
    """Holds every name."""

    def __contains__(self, name: object) -> bool:
        return True


def _names_in(code: CodeType | None) -> Iterator[str]:
    if code is not None:
        yield from code.co_names
        for inner in code.co_consts:
            yield from _names_in(inner if isinstance(inner, CodeType) else None)


def _annotated(owner: type) -> Collection[str]:
    """Return the annotated attributes of a class."""
    try:
        return inspect.get_annotations(owner)
    except NameError:  # since Python 3.14 annotations are evaluated, and a name may be there for type checkers only
        return getattr(owner, "__dataclass_fields__", ())


@functools.cache
def _set_by(owner: type) -> frozenset[str]:
    """Return the attributes that a class's own ``__init__`` sets."""
    init = inspect.unwrap(vars(owner).get("__init__", object.__init__))
    code = getattr(init, "__code__", None)
    if code is None:
        return frozenset()
    return frozenset(str(one.argval) for one in dis.get_instructions(code) if one.opname == "STORE_ATTR")


# --- versions ------------------------------------------------------------------------------------------------------


def is_supported(version: str) -> bool:
    """Return whether flowrun was tested with a version of vLLM, whatever its build."""
    try:
        return SpecifierSet(SUPPORTED).contains(Version(Version(version).public), prereleases=True)
    except InvalidVersion:
        return False


def _runs_on_cpus() -> bool:
    platform = getattr(sys.modules.get("vllm.platforms"), "current_platform", None)
    is_cpu = getattr(platform, "is_cpu", None)
    return bool(is_cpu and is_cpu())  # what is missing is named by the table


def check_contract(version: str, note: Callable[[str], object], *, vllm: Vllm | None = None) -> None:
    """Check that the installed vLLM has what flowrun uses. A version that was not tested goes on if it has.

    Args:
        version: the version of vLLM.
        note: receives that the version was not tested.

    Raises:
        BackendError: it has not.
    """
    used = [internal for internal in INTERNALS if _runs_on_cpus() or not internal.only_on_cpus]
    faults = faults_of_vllm(InstalledVllm() if vllm is None else vllm, internals=used)
    if faults:
        why = "\n".join(f"- {fault}" for fault in faults)
        raise BackendError(
            f"flowrun cannot use vLLM {version}: it lacks what flowrun needs, or has it otherwise:\n{why}\n"
            f"flowrun was tested with vLLM {SUPPORTED}: install such a version, or a newer flowrun"
        )
    if not is_supported(version):
        note(f"vLLM {version} is not among the versions that flowrun was tested with ({SUPPORTED}), but fits")
