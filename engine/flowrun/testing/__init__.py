"""Spec tests: flows run against scripted or recorded replies, without a model.

pytest imports this package in every run, so this module imports nothing until a name is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowrun.testing.scripted_model import ScriptedModel

__all__ = ["ScriptedModel"]


def __getattr__(name: str) -> Any:
    if name == "ScriptedModel":
        from flowrun.testing.scripted_model import ScriptedModel

        return ScriptedModel
    raise AttributeError(f"module 'flowrun.testing' has no attribute {name!r}")
