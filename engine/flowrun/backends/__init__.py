"""One module a port: vLLM, OpenAI-compatible servers, scripted replies, Python functions, observers."""
