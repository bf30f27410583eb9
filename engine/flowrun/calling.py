"""Where tools import ``current_call`` from; its home is ``flowrun.core.tool_context``."""

from flowrun.core.tool_context import ToolContext, current_call

Call = ToolContext
"""The name that it had first."""

__all__ = ["Call", "ToolContext", "current_call"]
