"""flowrun: git-versioned YAML flows of tool-calling LLMs, at vLLM's speed."""

__version__ = "0.1.0"
