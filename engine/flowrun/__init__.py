"""flowrun: git-versioned YAML flows of tool-calling LLMs, at vLLM's speed.

The Python API. Each name is imported from its room when it is first used, so that ``import flowrun`` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

from flowrun.version import __version__ as __version__

if TYPE_CHECKING:
    from flowrun import testing
    from flowrun.api import check, load
    from flowrun.core.events import AskModel, CallFunction, Notice
    from flowrun.core.messages import Reply, Usage
    from flowrun.core.ports import ModelBackend, Observer
    from flowrun.errors import (
        BackendError,
        Failure,
        FlowrunError,
        Issue,
        NoResponderError,
        SpecError,
        StoreError,
        UsageError,
    )
    from flowrun.runtime.flow import Flow
    from flowrun.runtime.run_events import (
        InputRequested,
        RunEnded,
        RunEvent,
        StateEntered,
        StateLeft,
        TextDelta,
        TextDiscarded,
        ToolCalled,
        ToolReturned,
    )
    from flowrun.runtime.run_result import (
        AssumeDone,
        CallAgain,
        InputRequest,
        RunFailed,
        RunNotFinished,
        RunResult,
    )
    from flowrun.runtime.run_stream import RunStream
    from flowrun.runtime.session import Responder, Session

__all__ = [
    "AskModel",
    "AssumeDone",
    "BackendError",
    "CallAgain",
    "CallFunction",
    "Failure",
    "Flow",
    "FlowrunError",
    "InputRequest",
    "InputRequested",
    "Issue",
    "ModelBackend",
    "NoResponderError",
    "Notice",
    "Observer",
    "Reply",
    "Responder",
    "RunEnded",
    "RunEvent",
    "RunFailed",
    "RunNotFinished",
    "RunResult",
    "RunStream",
    "Session",
    "SpecError",
    "StateEntered",
    "StateLeft",
    "StoreError",
    "TextDelta",
    "TextDiscarded",
    "ToolCalled",
    "ToolReturned",
    "Usage",
    "UsageError",
    "check",
    "load",
    "testing",
]

_MODULES: Final = {
    "flowrun.api": ("check", "load"),
    "flowrun.core.events": ("AskModel", "CallFunction", "Notice"),
    "flowrun.core.messages": ("Reply", "Usage"),
    "flowrun.core.ports": ("ModelBackend", "Observer"),
    "flowrun.errors": (
        "BackendError",
        "Failure",
        "FlowrunError",
        "Issue",
        "NoResponderError",
        "SpecError",
        "StoreError",
        "UsageError",
    ),
    "flowrun.runtime.flow": ("Flow",),
    "flowrun.runtime.run_events": (
        "InputRequested",
        "RunEnded",
        "RunEvent",
        "StateEntered",
        "StateLeft",
        "TextDelta",
        "TextDiscarded",
        "ToolCalled",
        "ToolReturned",
    ),
    "flowrun.runtime.run_result": (
        "AssumeDone",
        "CallAgain",
        "InputRequest",
        "RunFailed",
        "RunNotFinished",
        "RunResult",
    ),
    "flowrun.runtime.run_stream": ("RunStream",),
    "flowrun.runtime.session": ("Responder", "Session"),
}
"""The public names of each module; a test holds them equal to ``__all__``."""


def __getattr__(name: str) -> Any:
    if name == "testing":
        return importlib.import_module("flowrun.testing")
    for module, names in _MODULES.items():
        if name in names:
            value = globals()[name] = getattr(importlib.import_module(module), name)
            return value
    raise AttributeError(f"module 'flowrun' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
