"""The backends of models: vLLM in this process, OpenAI-compatible servers, scripted replies."""
