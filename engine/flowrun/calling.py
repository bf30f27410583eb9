"""The public import path of ``current_call`` and ``trace_headers`` for tools; the code is in ``flowrun.core``."""

from flowrun.core.tool_context import ToolContext, current_call
from flowrun.core.trace_context import trace_headers

Call = ToolContext
"""The former name, for compatibility."""

__all__ = ["Call", "ToolContext", "current_call", "trace_headers"]
