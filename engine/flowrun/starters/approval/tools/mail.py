"""Sends mail: that is, it would."""


def send(to: str, text: str) -> str:
    """Send a text to a customer, and return a receipt."""
    return f"mail to {to}, {len(text)} characters"
