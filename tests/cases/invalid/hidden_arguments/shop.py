"""What the spec's tools name."""


def refund(amount: float, customer: str, currency: str, note: str = "", tries: int = 1) -> str:
    return f"{amount} {currency} to {customer}: {note} {tries}"
