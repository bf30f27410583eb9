"""Cuts texts that are too long to be shown whole. Pure."""


def cut(text: str, most: int, mark: str = "...") -> str:
    """Return a text of at most ``most`` characters: a longer one is cut, and ends in a mark."""
    return text if len(text) <= most else text[: most - len(mark)] + mark


def beginning(text: str, most: int) -> str:
    """Return the first ``most`` characters of a text, and three dots behind them if there are more."""
    return text if len(text) <= most else f"{text[:most]} ..."


def shortened(text: str, most: int) -> str:
    """Return a text of at most about ``most`` characters: of a longer one, its beginning and its end."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} ... {text[-half:]}"


def cut_with_note(text: str, most: int) -> str:
    """Return a text; of one with more than ``most`` characters, the first of them and a note of how many it has."""
    return text if len(text) <= most else f"{text[:most]} [cut: it has {len(text):,} characters]"


def cut_bytes(text: str, most: int) -> str:
    """Return a text of at most ``most`` bytes of UTF-8: a longer one is cut, and ends in a note that says so."""
    data = text.encode()
    if len(data) <= most:
        return text
    note = f"\n[cut: it has {len(data):,} bytes, of which {most:,} may be shown]"
    return data[: max(most - len(note), 0)].decode(errors="ignore") + note


def one_line(text: str, most: int) -> str:
    """Return a text as one line of at most ``most`` characters, with its control characters replaced."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"
