"""Where tools import ``current_call`` from; its home is ``flowrun.core.tool_context``."""

from flowrun.core.tool_context import Call, current_call

__all__ = ["Call", "current_call"]
