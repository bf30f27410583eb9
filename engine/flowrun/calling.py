"""The public import path of ``current_call`` for tools; the code is in ``flowrun.core.tool_context``."""

from flowrun.core.tool_context import ToolContext, current_call

Call = ToolContext
"""The former name, for compatibility."""

__all__ = ["Call", "ToolContext", "current_call"]
