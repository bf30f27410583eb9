"""The teams of a shop, in place of the service that you have."""

_TEAMS = {"billing": "accounts", "technical": "workshop", "other": "desk"}


def find_team(kind: str) -> str:
    """Find the team that takes care of a kind of message."""
    return _TEAMS[kind]
