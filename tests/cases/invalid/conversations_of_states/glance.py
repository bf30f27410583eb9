"""A tool."""


def look() -> str:
    """Look."""
    return "seen"
