"""Functions of the flows in ``tests/cases/tests/``."""


def greet(name: str, times: int = 1) -> str:
    """Greet somebody."""
    return " ".join([f"Hello, {name}."] * times)
