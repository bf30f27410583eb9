"""Payments, as far as the examples need them: a ledger in memory."""

_ledger: list[dict[str, object]] = []


def look_up_order(order_id: int) -> dict[str, object]:
    """Give an order's customer and amount."""
    if order_id <= 0:
        raise ValueError(f"there is no order {order_id}")
    return {"order_id": order_id, "customer": f"customer {order_id % 7}", "amount": 20.0 * (order_id % 50)}


def pay_back(order_id: int, amount: float) -> dict[str, object]:
    """Pay money back, and write it down."""
    entry: dict[str, object] = {"entry": len(_ledger) + 1, "order_id": order_id, "amount": amount}
    _ledger.append(entry)
    return entry
