"""What tests of MCP servers share."""
