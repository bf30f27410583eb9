"""The names of OpenTelemetry's semantic conventions for generative AI, and of what flowrun adds to them. Data only.

They are those of ``VERSION``, the last release of the general conventions that has them, which SDKs and backends know.
Since then they have a repository of their own (semantic-conventions-genai), whose first release, 0.1.0, calls some of
them otherwise: what has to change for it stands here. ``AGENT_NAME`` of a run is what 0.1.0 has for ``WORKFLOW_NAME``.
"""

from collections.abc import Mapping
from typing import Final

VERSION: Final = "1.41.0"
SCHEMA_URL: Final = f"https://opentelemetry.io/schemas/{VERSION}"

# --- operations, which begin the names of spans -------------------------------------------------------------------

CHAT: Final = "chat"
EXECUTE_TOOL: Final = "execute_tool"
INVOKE_AGENT: Final = "invoke_agent"
INVOKE_WORKFLOW: Final = "invoke_workflow"

# --- attributes of the conventions --------------------------------------------------------------------------------

AGENT_NAME: Final = "gen_ai.agent.name"
AGENT_VERSION: Final = "gen_ai.agent.version"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
ERROR_TYPE: Final = "error.type"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
OPERATION_NAME: Final = "gen_ai.operation.name"
OUTPUT_TYPE: Final = "gen_ai.output.type"
PROVIDER_NAME: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - no password
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_TYPE: Final = "gen_ai.tool.type"
USAGE_CACHE_READ: Final = "gen_ai.usage.cache_read.input_tokens"
USAGE_INPUT: Final = "gen_ai.usage.input_tokens"
USAGE_OUTPUT: Final = "gen_ai.usage.output_tokens"
WORKFLOW_NAME: Final = "gen_ai.workflow.name"

SAMPLING: Final[Mapping[str, str]] = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "seed": "gen_ai.request.seed",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
}
"""The attributes of sampling parameters that are numbers; ``stop`` is a list."""

STOP_SEQUENCES: Final = "gen_ai.request.stop_sequences"

# --- attributes with content --------------------------------------------------------------------------------------

INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_DEFINITIONS: Final = "gen_ai.tool.definitions"
TOOL_RESULT: Final = "gen_ai.tool.call.result"

CAPTURE_VARIABLE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
CAPTURING: Final = frozenset({"true", "1", "span_only", "span_and_event"})
"""The values of the variable, in lower case, with which spans have content."""

# --- metrics, with the bounds of their buckets --------------------------------------------------------------------

TOKEN_USAGE: Final = "gen_ai.client.token.usage"  # noqa: S105 - no password
TOKEN_BUCKETS: Final = tuple(4**power for power in range(14))
DURATION: Final = "gen_ai.client.operation.duration"
DURATION_BUCKETS: Final = tuple(2**power / 100 for power in range(14))

# --- attributes of flowrun's own ----------------------------------------------------------------------------------

RUN_ID: Final = "flowrun.run.id"
RUN_RESUMED: Final = "flowrun.run.resumed"
RUN_STATUS: Final = "flowrun.run.status"
STATE_EXIT: Final = "flowrun.state.exit"
STATE_KIND: Final = "flowrun.state.kind"
STATE_NAME: Final = "flowrun.state.name"
STATE_STEP: Final = "flowrun.state.step"

CANCELLED: Final = "cancelled"
"""The ``error.type`` of what was cancelled before it ended: by a timeout, with its run, or with this process."""
