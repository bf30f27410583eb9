"""What a form cannot say of an invoice."""

from datetime import date


def find_problems(total: float, due: str, text: str) -> list[str]:
    """Compare the facts with the text that they come from."""
    problems = []
    if f"{total:.2f}" not in text:
        problems.append(f"the text does not say {total:.2f}")
    try:
        date.fromisoformat(due)
    except ValueError:
        problems.append(f"{due} is no day")
    return problems
