"""Flows behind HTTP: as models of the OpenAI chat API, as tools of an MCP server, and as pages."""
